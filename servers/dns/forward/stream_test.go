package forward

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// piped is a stream whose connections are pipes, each served by a function.
func piped(serve func(n int64, conn net.Conn)) (*stream, *atomic.Int64) {
	var dialled atomic.Int64
	return newStream(form{}, func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		n := dialled.Add(1)
		go serve(n, theirs)
		return ours, nil
	}), &dialled
}

// TestSilentConnection: one on which nothing comes any more is given up after the
// time of a query, and the next query has a new one.
func TestSilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dialled := piped(func(n int64, conn net.Conn) {
			if n == 1 {
				buffer := make([]byte, 512)
				for {
					if _, err := conn.Read(buffer); err != nil {
						return
					}
				}
			}
			(&site{}).serve(conn, addresses(2))
		})
		defer s.close()
		if _, err := exchangedBy(t, s, "www.example", 2*time.Second); err == nil {
			t.Fatal("there is an answer")
		}
		if got, err := exchangedBy(t, s, "www.example", 2*time.Second); got.count() != 2 || dialled.Load() != 2 {
			t.Errorf("got %d records, %v, on connection %d", got.count(), err, dialled.Load())
		}
	})
}

// TestIdleConnection: one that nobody uses is closed; the next query is none the
// wiser.
func TestIdleConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dialled := piped(func(_ int64, conn net.Conn) { (&site{}).serve(conn, addresses(2)) })
		defer s.close()
		for i := range 4 {
			if got, err := exchangedBy(t, s, "www.example", time.Second); got.count() != 2 {
				t.Fatalf("query %d: %d records, %v", i, got.count(), err)
			}
			time.Sleep(idle - time.Second)
		}
		if n := dialled.Load(); n != 1 {
			t.Errorf("%d connections although one was in use", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		s.mu.Lock()
		open := len(s.pipes)
		s.mu.Unlock()
		if open != 0 {
			t.Errorf("%d connections are open", open)
		}
		if got, err := exchangedBy(t, s, "www.example", time.Second); got.count() != 2 {
			t.Errorf("%d records, %v", got.count(), err)
		}
	})
}
