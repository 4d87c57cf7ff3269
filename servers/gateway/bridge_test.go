package gateway

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// backend2 serves HTTP/2 without TLS until the test ends.
func backend2(t *testing.T, handler http.HandlerFunc) netip.AddrPort {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

// of2 routes all requests for "a" to endpoints of HTTP/2.
func of2(t *testing.T, route *Route, at ...netip.AddrPort) *Table {
	router := hosts{"a": {route, &Backend{Endpoints: at, HTTP2: true}}}
	return secured(&Table{Router: router}, map[string]*tls.Certificate{"a": certificate(t, "a")})
}

// grpc calls a method with what comes from a reader.
func grpc(t *testing.T, at, method string, messages io.Reader) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, "https://"+at+method, messages)
	if err != nil {
		t.Fatal(err)
	}
	r.Host, r.ContentLength = "a", -1
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	return client2(t).Transport.RoundTrip(r)
}

// TestGRPC: messages go both ways as they come, trailers end them, and who has nothing
// but an error says so in one head.
func TestGRPC(t *testing.T) {
	up := backend2(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("X-Seen", fmt.Sprint(r.Proto, " ", r.Host, " ", r.RequestURI, " ", r.Header.Get("Te"), " ", r.Header.Get("User-Agent"), " ", r.Header.Get("X-Forwarded-Proto")))
		if r.URL.Path == "/a.B/Refused" {
			w.Header().Set("Grpc-Status", "7")
			return
		}
		w.Header().Set("Trailer", "Grpc-Status")
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		b := make([]byte, 64)
		for {
			_ = http.NewResponseController(w).Flush()
			n, err := r.Body.Read(b)
			if _, other := w.Write(b[:n]); err != nil || other != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "late")
	})
	_, at := start(t, Settings{}, of2(t, &Route{}, up))
	for range 2 {
		messages, to := io.Pipe()
		response, err := grpc(t, at, "/a.B/Echo", messages)
		if err != nil {
			t.Fatal(err)
		}
		if seen := response.Header.Get("X-Seen"); seen != "HTTP/2.0 a /a.B/Echo trailers Go-http-client/2.0 https" {
			t.Errorf("the backend has seen %q", seen)
		}
		got := make([]byte, 3)
		for _, text := range []string{"one", "two", "six"} {
			if _, err := io.WriteString(to, text); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(response.Body, got); err != nil || string(got) != text {
				t.Fatalf("for %q comes %q, %v", text, got, err)
			}
		}
		_ = to.Close()
		if rest, err := io.ReadAll(response.Body); err != nil || len(rest) > 0 || response.Trailer.Get("Grpc-Status") != "0" || response.Trailer.Get("Grpc-Message") != "late" {
			t.Errorf("at the end: %q, %v, trailers %v", rest, err, response.Trailer)
		}
	}
	response, err := grpc(t, at, "/a.B/Refused", strings.NewReader("x"))
	if err != nil || response.Header.Get("Grpc-Status") != "7" || !strings.Contains(strings.ToLower(fmt.Sprintf("%T", response.Body)), "nobody") {
		t.Errorf("an error alone is not one head that ends the stream: %v %v, a body of %T", response, err, response.Body)
	}
}

// TestGRPCFails: clients are told in their way, another endpoint is asked where
// nothing was, and what is cut is not taken for whole.
func TestGRPCFails(t *testing.T) {
	up := backend2(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "some")
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/cut" {
			panic(http.ErrAbortHandler)
		}
	})
	_, at := start(t, Settings{}, of2(t, &Route{}, nobody(t)))
	response, err := grpc(t, at, "/", strings.NewReader("x"))
	if err != nil || response.StatusCode != 502 || response.Header.Get("Grpc-Status") != "14" {
		t.Errorf("nobody there: %v %v", response, err)
	}
	_, at = start(t, Settings{}, of2(t, &Route{}, nobody(t), up))
	for range 4 {
		response, err := grpc(t, at, "/", strings.NewReader("x"))
		if err != nil || response.StatusCode != 200 {
			t.Errorf("one of two there: %v %v", response, err)
		}
	}
	if response, err = grpc(t, at, "/cut", strings.NewReader("x")); err == nil {
		if _, err = io.ReadAll(response.Body); err == nil {
			t.Error("what was cut is taken for whole")
		}
	}
	wrong := backend(t, func(http.ResponseWriter, *http.Request) {})
	_, at = start(t, Settings{}, of2(t, &Route{Timeouts: Timeouts{Response: time.Second}}, wrong))
	if response, err := grpc(t, at, "/", strings.NewReader("x")); err != nil || response.StatusCode < 502 {
		t.Errorf("of HTTP/1.1: %v %v", response, err)
	}
}

// TestGRPCLeft: a backend hears that its client is gone, and one that is silent for
// too long is given up.
func TestGRPCLeft(t *testing.T) {
	gone := make(chan string, 2)
	up := backend2(t, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		gone <- r.URL.Path
	})
	table := &Table{Router: hosts{"a": {&Route{}, &Backend{Endpoints: []netip.AddrPort{up}, HTTP2: true}}, "b": {&Route{Timeouts: Timeouts{Response: 200 * time.Millisecond}}, &Backend{Endpoints: []netip.AddrPort{up}, HTTP2: true}}}}
	_, at := start(t, Settings{}, table)
	p := dial(t, at)
	p.send("POST /left HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
	first := p
	time.AfterFunc(200*time.Millisecond, func() { _ = first.Close() })
	if path := <-gone; path != "/left" {
		t.Error(path)
	}
	p = dial(t, at)
	p.send("POST /silent HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\n\r\nx")
	if response, _ := p.answer("POST"); response.StatusCode != 504 {
		t.Errorf("of a silent one: %d", response.StatusCode)
	}
	if path := <-gone; path != "/silent" {
		t.Error(path)
	}
}

// TestGRPCSilent: both sides of a stream may be silent for as long as the endpoint may.
func TestGRPCSilent(t *testing.T) {
	up := backend2(t, func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 64)
		for {
			_ = http.NewResponseController(w).Flush()
			n, err := r.Body.Read(b)
			if _, other := w.Write(b[:n]); err != nil || other != nil {
				return
			}
		}
	})
	for response, lives := range map[time.Duration]bool{time.Minute: true, 200 * time.Millisecond: false} {
		_, at := start(t, Settings{Body: 100 * time.Millisecond}, of2(t, &Route{Timeouts: Timeouts{Response: response}}, up))
		messages, to := io.Pipe()
		answer, err := grpc(t, at, "/a.B/Echo", messages)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(700 * time.Millisecond) // more than what ends it, and the precision of timeouts
		got := make([]byte, 3)
		_, _ = io.WriteString(to, "one")
		if _, err := io.ReadFull(answer.Body, got); lives != (err == nil && string(got) == "one") {
			t.Errorf("with %v for the endpoint: %q, %v", response, got, err)
		}
		_ = to.Close()
	}
}

// TestGRPCShares: requests that come at once share a connection, and one that nothing
// is under way on is closed, whatever the others carry.
func TestGRPCShares(t *testing.T) {
	const most = 40
	var conns atomic.Int64
	arrived, release := make(chan struct{}, 2*most), make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: most}
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed:
			conns.Add(-1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	up := netip.MustParseAddrPort(server.Listener.Addr().String())
	_, at := start(t, Settings{UpstreamIdle: time.Second}, of2(t, &Route{}, up))
	var calls sync.WaitGroup
	call := func(times int) {
		for range times {
			calls.Go(func() {
				if response, err := grpc(t, at, "/", strings.NewReader("x")); err != nil || response.StatusCode != http.StatusOK {
					t.Errorf("%v %v", response, err)
				}
			})
		}
		for range times {
			<-arrived
		}
	}
	call(most / 2)
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for %d requests, want one", n, most/2)
	}
	call(most)
	if n := conns.Load(); n != 2 {
		t.Errorf("%d connections for %d requests of which one takes %d, want two", n, most*3/2, most)
	}
	close(release)
	calls.Wait()
	// One is kept busy, the other falls idle.
	release = make(chan struct{})
	call(1)
	for deadline := time.Now().Add(10 * time.Second); conns.Load() != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections, want one", conns.Load())
		}
	}
	close(release)
	calls.Wait()
}

// TestSecureKept: connections of TLS to an endpoint are kept, by how it is trusted.
func TestSecureKept(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-From", r.RemoteAddr)
	}))
	t.Cleanup(server.Close)
	var mu sync.Mutex
	var from []string
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(from, r.RemoteAddr) {
			from = append(from, r.RemoteAddr)
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})
	up := []netip.AddrPort{netip.MustParseAddrPort(server.Listener.Addr().String())}
	_, at := start(t, Settings{}, &Table{Router: hosts{
		"a": {&Route{}, &Backend{Endpoints: up, TLS: &tls.Config{InsecureSkipVerify: true}}},
		"b": {&Route{}, &Backend{Endpoints: up, TLS: &tls.Config{InsecureSkipVerify: true}}},
		"c": {&Route{}, &Backend{Endpoints: up, TLS: &tls.Config{ServerName: "Elsewhere"}}},
	}})
	p := dial(t, at)
	large := strings.Repeat("0123456789abcdef", 1<<16)
	for _, host := range []string{"a", "a", "b", "a", "b"} {
		p.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", host, len(large), large))
		if _, body := p.answer("POST"); body != large {
			t.Fatalf("%d bytes of %d", len(body), len(large))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(from) != 2 {
		t.Errorf("%d connections, want one for each way", len(from))
	}
	p.send("GET / HTTP/1.1\r\nHost: c\r\n\r\n")
	if response, _ := p.answer("GET"); response.StatusCode != 502 {
		t.Errorf("who is not trusted: %d", response.StatusCode)
	}
}

// TestName: a backend may be a name, which does not lead to this machine.
func TestName(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	table := &Table{Router: hosts{"a": {&Route{}, &Backend{Name: fmt.Sprintf("localhost:%d", up.Port())}}}}
	for _, may := range []bool{false, true} {
		server, at := start(t, Settings{}, &Table{})
		if may {
			server.endpoints.refuses = nil
		}
		table.Router.(hosts)["a"].backend.bound.Store(nil)
		server.Serve(table)
		p := dial(t, at)
		p.send(get)
		if response, body := p.answer("GET"); may != (response.StatusCode == 200 && body == "a") {
			t.Errorf("let: %v; %d %q", may, response.StatusCode, body)
		}
	}
	for address, refused := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "0.0.0.0:1": true, "169.254.169.254:80": true, "[fe80::1]:1": true, "[::ffff:127.0.0.1]:1": true, "192.0.2.1:80": false, "[2001:db8::1]:80": false} {
		if err := Elsewhere(t.Context(), "tcp", address, nil); (err != nil) != refused {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// TestRate: what comes behind the first bytes comes no faster than it may.
func TestRate(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 10<<10) // 160 KiB
	up := backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, large) })
	_, at := start(t, Settings{}, one(&Route{Rate: Rate{PerSecond: 256 << 10, After: 32 << 10}}, up))
	p := dial(t, at)
	for range 2 {
		began := time.Now()
		p.send(get)
		_, body := p.answer("GET")
		if took := time.Since(began); body != large || took < 350*time.Millisecond {
			t.Errorf("%d bytes of %d in %v, want half a second", len(body), len(large), took)
		}
	}
}

// TestMirror: a copy has all of the body, or there is none.
func TestMirror(t *testing.T) {
	copies := make(chan string, 4)
	watcher := backend(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		copies <- fmt.Sprintf("%s%s%d", r.Method, r.URL, len(body))
	})
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	to := func(into []byte, r *Request) []byte {
		return append(append(into, "http://"+watcher.String()...), r.Path...)
	}
	_, at := start(t, Settings{Here: true}, one(&Route{Mirror: &Mirror{To: to}}, up))
	p := dial(t, at)
	for _, c := range []struct {
		path string
		size int
		want string
	}{{"/small", 10, "POST/small10"}, {"/large", 200 << 10, "POST/large204800"}, {"/huge", 1 << 20, ""}, {"/last", 0, "POST/last0"}} {
		p.send(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", c.path, c.size, strings.Repeat("x", c.size)))
		if _, body := p.answer("POST"); body != fmt.Sprint(c.size) {
			t.Errorf("%s: %s", c.path, body)
		}
		if c.want != "" {
			if got := <-copies; got != c.want {
				t.Errorf("the copy is %s, want %s", got, c.want)
			}
		}
	}
}
