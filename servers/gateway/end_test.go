package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestUpgrade(t *testing.T) {
	up := script(t, func(_ int, conn net.Conn) {
		in := bufio.NewReader(conn)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if r.Header.Get("Upgrade") == "" && r.URL.Path != "/lie" {
				_, _ = io.WriteString(conn, ok)
				continue
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\nwelcome ")
			for i := 0; i < 20 && r.URL.Path == "/tick"; i++ {
				time.Sleep(100 * time.Millisecond)
				_, _ = io.WriteString(conn, "x")
			}
			if r.URL.Path != "/tick" {
				_, _ = io.Copy(conn, in)
			}
			return
		}
	})
	server, at := start(t, Settings{}, one(&Route{Timeouts: Timeouts{Response: 800 * time.Millisecond}}, up))
	listening := dial(t, at)
	listening.send("GET /tick HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if _, err := http.ReadResponse(listening.Reader, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(listening.Reader); string(got) != "welcome "+strings.Repeat("x", 20) {
		t.Errorf("who only listens hears %q, %v", got, err)
	}
	p := dial(t, at)
	p.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	if _, body := p.answer("GET"); body != "ok" {
		t.Errorf("h2c: %q", body)
	}
	p.send("GET /lie HTTP/1.1\r\nHost: a\r\n\r\n")
	if response, _ := p.answer("GET"); response.StatusCode != 502 {
		t.Errorf("a switch that nobody asked for: %d", response.StatusCode)
	}
	p.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly ")
	response, err := http.ReadResponse(p.Reader, nil)
	if err != nil || response.StatusCode != 101 || response.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("%v %v", response, err)
	}
	reads := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(p.Reader, got); err != nil || string(got) != want {
			t.Fatalf("%.80q, not %.80q: %v", got, want, err)
		}
	}
	reads("welcome early ")
	server.Serve(&Table{}) // it has no route any more
	for range 3 {
		p.send("hello")
		reads("hello")
		time.Sleep(200 * time.Millisecond) // shorter than it may be silent
	}
	large := strings.Repeat("x", 3<<20)
	go func() { _, _ = io.WriteString(p.Conn, large) }()
	reads(large)
	began := time.Now()
	if _, err := p.ReadByte(); err == nil || time.Since(began) < 400*time.Millisecond {
		t.Errorf("silence ends it after %v with %v", time.Since(began), err)
	}
}

// TestDrain: a server that ends finishes what is under way, tells clients, and cuts
// none.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
		_, _ = io.WriteString(w, "ok")
	})
	server, at, end := startUntil(t, Settings{DrainIdle: 300 * time.Millisecond}, one(&Route{}, up))
	slow, idle, asking := dial(t, at), dial(t, at), dial(t, at)
	for _, p := range []*peer{idle, asking} {
		p.send(get)
		p.answer("GET")
	}
	slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	ended := make(chan struct{})
	go func() { end(); close(ended) }()
	for !server.draining.Load() {
		time.Sleep(time.Millisecond)
	}
	asking.send(get)
	if response, body := asking.answer("GET"); body != "ok" || !response.Close {
		t.Errorf("while it ends: %q, close %v", body, response.Close)
	}
	asking.closed()
	idle.closed()
	select {
	case <-ended:
		t.Error("it has ended before its last answer")
	default:
	}
	close(release)
	if response, body := slow.answer("GET"); body != "ok" || !response.Close {
		t.Errorf("what was under way: %q, close %v", body, response.Close)
	}
	<-ended
	if conn, err := net.Dial("tcp", at); err == nil {
		_ = conn.Close()
		t.Error("it takes connections after its end")
	}
}

// TestIdle: connections that say nothing end, on both sides.
func TestIdle(t *testing.T) {
	closed := make(chan struct{})
	up := script(t, func(_ int, conn net.Conn) {
		in := bufio.NewReader(conn)
		takes(in)
		_, _ = io.WriteString(conn, ok)
		takes(in)
		close(closed)
	})
	_, at := start(t, Settings{Idle: 200 * time.Millisecond, UpstreamIdle: 200 * time.Millisecond}, one(&Route{}, up))
	p := dial(t, at)
	p.send(get)
	p.answer("GET")
	p.closed()
	<-closed
}

// TestForgottenEndpoint: endpoints that nobody uses cost nothing after a time, and
// are there again when somebody does.
func TestForgottenEndpoint(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	server, at := start(t, Settings{UpstreamIdle: time.Millisecond, Forget: time.Millisecond}, one(&Route{}, up))
	p := dial(t, at)
	for range 2 {
		for range 2 {
			p.send(get)
			p.answer("GET")
		}
		for known := 1; known > 0; time.Sleep(10 * time.Millisecond) {
			server.endpoints.mu.Lock()
			known = len(server.endpoints.known)
			server.endpoints.mu.Unlock()
		}
	}
	if n := server.Counts(); n.Requests[2] != 4 || n.Dials != 2 {
		t.Errorf("%+v", n)
	}
}
