package gateway

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const usual = "GET /static/app/main.js?v=12 HTTP/1.1\r\nHost: a\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\nCookie: session=0123456789abcdef; theme=dark\r\n\r\n"

// plainBackend answers each read with the same, without memory.
func plainBackend(t testing.TB) *Table {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in, answer := make([]byte, 4096), []byte(ok)
				for {
					if _, err := conn.Read(in); err != nil {
						return
					}
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return one(&Route{}, listener.Addr().(*net.TCPAddr).AddrPort())
}

// TestRequestsCostNoMemory: once its connections are there, a usual request and its
// answer allocate nothing, also if they are counted and logged.
func TestRequestsCostNoMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector costs memory of its own, and makes pools forget")
	}
	log := NewAccessLog(JSON, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = log.Run(ctx, io.Discard) }()
	for name, settings := range map[string]Settings{"alone": {}, "counted": {Measure: true}, "logged": {Measure: true, Log: log}} {
		t.Run(name, func(t *testing.T) { costsNothing(t, settings) })
	}
}

func costsNothing(t *testing.T, settings Settings) {
	_, at := start(t, settings, plainBackend(t))
	p := dial(t, at)
	request, answer := []byte(usual), make([]byte, len(ok))
	round := func() {
		if _, err := p.Conn.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p.Conn, answer); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		round()
	}
	if n := testing.AllocsPerRun(500, round); n > 0 {
		t.Errorf("%v allocations for each request", n)
	}
	if string(answer) != ok {
		t.Errorf("%q", answer)
	}
}

// TestIdleClientsAreSmall: what a client costs that says nothing.
func TestIdleClientsAreSmall(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector costs memory of its own, and makes pools forget")
	}
	const clients, most = 500, 8 << 10
	_, at := start(t, Settings{}, plainBackend(t))
	peers := make([]*peer, clients)
	answer := make([]byte, len(ok))
	for i := range peers { // whose own memory is there before
		peers[i] = dial(t, at)
		peers[i].send(usual)
		if _, err := io.ReadFull(peers[i].Conn, answer); err != nil {
			t.Fatal(err)
		}
	}
	var with, without runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools keep goes at the second one
	runtime.ReadMemStats(&with)
	for _, p := range peers {
		_ = p.Close()
	}
	time.Sleep(200 * time.Millisecond)
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&without)
	runtime.KeepAlive(peers)
	each := (int64(with.HeapInuse+with.StackInuse) - int64(without.HeapInuse+without.StackInuse)) / clients
	t.Logf("%d bytes for each client", each)
	if each > most {
		t.Errorf("%d bytes for each idle client, more than %d", each, most)
	}
}

// TestChange: tables are replaced all the time, endpoints with them, and not one
// request fails.
func TestChange(t *testing.T) {
	var tables []*Table
	for _, text := range []string{"one", "two"} {
		up := backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, text) })
		tables = append(tables, one(&Route{}, up))
	}
	server, at := start(t, Settings{}, tables[0])
	var requests, second atomic.Int64
	var asking sync.WaitGroup
	end := time.Now().Add(500 * time.Millisecond)
	for range 4 {
		p := dial(t, at)
		asking.Go(func() {
			for time.Now().Before(end) {
				if _, err := io.WriteString(p.Conn, get); err != nil {
					t.Error(err)
					return
				}
				response, err := http.ReadResponse(p.Reader, nil)
				if err != nil {
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(response.Body)
				if response.StatusCode != 200 {
					t.Errorf("%d %s", response.StatusCode, body)
				}
				requests.Add(1)
				if string(body) == "two" {
					second.Add(1)
				}
			}
		})
	}
	for i := 1; time.Now().Before(end); i++ {
		server.Serve(tables[i%2])
		runtime.Gosched()
	}
	asking.Wait()
	if n := server.Counts(); n.Clients != 4 || second.Load() == 0 || second.Load() == requests.Load() {
		t.Errorf("%d requests, of which the second table had %d; %+v", requests.Load(), second.Load(), n)
	}
}

// TestClientGone: an endpoint does not work for who is gone.
func TestClientGone(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
			t.Error("the endpoint was not told")
		}
		close(ended)
	})
	_, at := start(t, Settings{}, one(&Route{}, up))
	p := dial(t, at)
	p.send(get)
	<-began
	_ = p.Close()
	<-ended
}

// TestSlowClients: those that send a byte now and then are cut off, and cost no
// others anything.
func TestSlowClients(t *testing.T) {
	_, at := start(t, Settings{Header: 300 * time.Millisecond}, plainBackend(t))
	var slow sync.WaitGroup
	for range 50 {
		p := dial(t, at)
		slow.Go(func() {
			began := time.Now()
			for i := 0; ; i++ {
				if _, err := p.Conn.Write([]byte(usual[i : i+1])); err != nil {
					break
				}
				if i == 200 {
					t.Error("a byte each 20 ms is waited for")
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			if took := time.Since(began); took > 2500*time.Millisecond {
				t.Errorf("cut off after %v", took)
			}
		})
	}
	quick := dial(t, at)
	for range 20 {
		quick.send(get)
		answer := make([]byte, len(ok))
		if _, err := io.ReadFull(quick.Reader, answer); err != nil || !bytes.Equal(answer, []byte(ok)) {
			t.Errorf("%q %v", answer, err)
		}
	}
	slow.Wait()
}

func BenchmarkRequest(b *testing.B) {
	s := New(Settings{}, nil)
	table := plainBackend(b)
	s.Serve(table)
	c := &client{server: s, clock: &s.watch.clock, counts: &s.counts[0]}
	c.introduce()
	c.learn(table)
	text, limits := []byte(usual), s.settings.Limits
	out := make([]byte, 0, bufferSize)
	route := &Route{}
	b.ReportAllocs()
	for b.Loop() {
		c.request.Reset()
		if done, err := c.request.Parse(text, &limits); !done || err != nil {
			b.Fatal(err)
		}
		out, _ = c.appendRequest(out[:0], route, 0, nil)
	}
}
