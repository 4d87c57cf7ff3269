package forward

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestMerged: however many ask, upstreams are asked once, and all get the answer.
func TestMerged(t *testing.T) {
	inBubble(t, Options{}, []does{after(100*time.Millisecond, 60, "10.9.0.1")}, func(t *testing.T, b *bench) {
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				q := question("www.example", typeA)
				q.Client = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
				if m, _ := b.look(q); addr(m) != "10.9.0.1" {
					t.Errorf("got %v", m)
				}
			})
		}
		all.Wait()
		if n := b.fakes[0].asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if n := b.counts.merged.Load(); n != 199 {
			t.Errorf("%d are counted as merged", n)
		}
		synctest.Wait()
		if n := len(b.flights.clients); n > 0 {
			t.Errorf("%d clients are counted still", n)
		}
	})
}

// TestOneClientIsBounded: what one client asks too much of fails at once and is
// counted; others get their answers.
func TestOneClientIsBounded(t *testing.T) {
	inBubble(t, Options{Waiting: 100, WaitingOfOne: 20}, []does{dead}, func(t *testing.T, b *bench) {
		b.fakes[0].becomes(after(time.Second, 60, "10.9.0.1"))
		answered, failed := b.storm(netip.MustParseAddr("10.0.0.66"), 500)
		time.Sleep(10 * time.Millisecond)
		q := question("other.example", typeA)
		if m, _ := b.look(q); addr(m) != "10.9.0.1" {
			t.Errorf("another client gets %v", m)
		}
		synctest.Wait()
		if answered.Load() != 20 || failed.Load() != 480 || b.counts.rejected.Load() != 480 {
			t.Errorf("%d answered, %d failed, %d counted", answered.Load(), failed.Load(), b.counts.rejected.Load())
		}
		if calls, waiting := b.flights.count(); calls != 0 || waiting != 0 || len(b.flights.clients) != 0 {
			t.Errorf("left are %d questions, %d that wait, clients %v", calls, waiting, b.flights.clients)
		}
	})
}

// TestAllAreBounded: many clients together.
func TestAllAreBounded(t *testing.T) {
	inBubble(t, Options{Waiting: 100, WaitingOfOne: 20}, []does{after(time.Second, 60, "10.9.0.1")}, func(t *testing.T, b *bench) {
		total := int64(0)
		var counts []*atomic.Int64
		for i := range 50 {
			answered, _ := b.storm(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 10)
			counts = append(counts, answered)
		}
		time.Sleep(5 * time.Second)
		for _, n := range counts {
			total += n.Load()
		}
		if total != 100 {
			t.Errorf("%d are answered", total)
		}
	})
}

// storm asks for many names at once.
func (b *bench) storm(client netip.Addr, n int) (answered, failed *atomic.Int64) {
	answered, failed = new(atomic.Int64), new(atomic.Int64)
	for i := range n {
		go func() {
			q := question(fmt.Sprintf("%s-%d.example", client, i), typeA)
			q.Client = client
			began := time.Now()
			wire, _ := b.Answer(context.Background(), q, nil)
			if m := b.read(q, wire); m.Rcode == 0 {
				answered.Add(1)
				return
			}
			failed.Add(1)
			if time.Since(began) > 0 {
				b.t.Errorf("a failure takes %s", time.Since(began))
			}
		}()
	}
	synctest.Wait()
	return answered, failed
}

// TestClientGoes: who gives up waits no more; the answer is kept for whoever asks
// next.
func TestClientGoes(t *testing.T) {
	inBubble(t, Options{}, []does{after(300*time.Millisecond, 60, "10.9.0.1")}, func(t *testing.T, b *bench) {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		q := question("www.example", typeA)
		wire, _ := b.Answer(ctx, q, nil)
		if m := b.read(q, wire); m.Rcode != rcodeServFail {
			t.Errorf("got %v", m)
		}
		time.Sleep(300 * time.Millisecond)
		if m, took := b.look(q); addr(m) != "10.9.0.1" || took != 0 {
			t.Errorf("after %s: %v", took, m)
		}
	})
}

// TestEnd: a server that ends lets nobody wait for long, and leaves nothing behind:
// a bubble would not end either.
func TestEnd(t *testing.T) {
	inBubble(t, Options{}, []does{dead, dead}, func(t *testing.T, b *bench) {
		done := make(chan struct{})
		go func() {
			b.look(question("www.example", typeA))
			close(done)
		}()
		time.Sleep(100 * time.Millisecond)
		b.end()
		b.end = func() {}
		<-done
		if m, took := b.look(question("w3.example", typeA)); m.Rcode != rcodeServFail || took > 0 {
			t.Errorf("after the end: %v after %s", m, took)
		}
	})
}
