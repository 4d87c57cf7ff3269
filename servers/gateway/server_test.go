package gateway

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// table is a Router that knows hosts.
type hosts map[string]struct {
	route   *Route
	backend *Backend
}

func (h hosts) Route(r *Request) (*Route, *Backend) {
	found := h[string(r.Host)]
	return found.route, found.backend
}

// one routes all requests for "a" to some endpoints.
func one(route *Route, at ...netip.AddrPort) *Table {
	return &Table{Router: hosts{"a": {route, &Backend{Endpoints: at}}}}
}

// start runs a server until the test ends, and returns where it listens.
func start(t *testing.T, settings Settings, table *Table) (*Server, string) {
	t.Helper()
	s, at, _ := startUntil(t, settings, table)
	return s, at
}

func startUntil(t *testing.T, settings Settings, table *Table) (s *Server, at string, end func()) {
	t.Helper()
	if settings.DrainIdle == 0 {
		settings.DrainIdle = 10 * time.Millisecond
	}
	if settings.Drain == 0 {
		settings.Drain = 5 * time.Second
	}
	s = New(settings, slog.New(slog.DiscardHandler))
	s.Serve(table)
	s.Listen([]Listener{{At: netip.MustParseAddrPort("127.0.0.1:0"), Secure: table.Certificate != nil}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	end = func() { cancel(); <-ended }
	t.Cleanup(end)
	for range 200 {
		if open := s.Listening(); len(open) > 0 {
			return s, open[0].At.String(), end
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("it does not listen")
	return nil, "", nil
}

// backend serves HTTP until the test ends.
func backend(t *testing.T, handler http.HandlerFunc) netip.AddrPort {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

// script is a backend of bytes: it does with each connection what it is told.
func script(t *testing.T, serve func(n int, conn net.Conn)) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for n := 1; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(n, conn)
			}()
		}
	}()
	return netip.MustParseAddrPort(listener.Addr().String())
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return netip.MustParseAddrPort(listener.Addr().String())
}

// peer is a client of bytes.
type peer struct {
	net.Conn
	*bufio.Reader
	t *testing.T
}

func (p *peer) Read(b []byte) (int, error) { return p.Reader.Read(b) }

func dial(t *testing.T, at string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &peer{conn, bufio.NewReader(conn), t}
}

func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.Conn, text); err != nil {
		p.t.Fatal(err)
	}
}

// answer reads one.
func (p *peer) answer(method string) (*http.Response, string) {
	p.t.Helper()
	response, err := http.ReadResponse(p.Reader, &http.Request{Method: method})
	if err != nil {
		p.t.Fatalf("no answer: %v", err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatalf("after %.80q: %v", body, err)
	}
	return response, string(body)
}

// closed fails unless the connection has ended.
func (p *peer) closed() {
	p.t.Helper()
	if b, err := p.ReadByte(); err != io.EOF {
		p.t.Fatalf("the connection goes on: %q, %v", b, err)
	}
}

const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

func TestProxy(t *testing.T) {
	var dials atomic.Int32
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s %d %v", r.Method, r.URL, r.Host, r.ContentLength, r.TransferEncoding))
		if r.URL.Query().Has("stream") {
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write(body)
	}))
	up.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			dials.Add(1)
		}
	}
	up.Start()
	defer up.Close()
	server, at := start(t, Settings{}, one(&Route{}, netip.MustParseAddrPort(up.Listener.Addr().String())))
	p := dial(t, at)
	large := strings.Repeat("0123456789abcdef", 1<<16) // 1 MB
	for _, c := range []struct{ name, in, method, seen, body string }{
		{"get", "GET /b/../c%41?d=e HTTP/1.1\r\nHost: A\r\n\r\n", "GET", "GET /cA?d=e a 0 []", ""},
		{"head", "HEAD / HTTP/1.1\r\nHost: a:80\r\n\r\n", "HEAD", "HEAD / a:80 0 []", ""},
		{"post", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "POST", "POST / a 5 []", "hello"},
		{"empty post", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "POST", "POST / a 0 []", ""},
		{"chunks that came at once", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "POST", "POST / a 6 []", "hello!"},
		{"a streamed answer", "POST /?stream HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "POST", "POST /?stream a 5 []", "hello"},
		{"a large body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n" + large, "POST", "POST / a 1048576 []", large},
		{"a large body in chunks", "POST /?stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n" + large + "\r\n0\r\n\r\n", "POST", "POST /?stream a -1 [chunked]", large},
		{"absolute", "GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "GET /x a 0 []", ""},
	} {
		p.send(c.in)
		response, body := p.answer(c.method)
		if response.StatusCode != 200 || response.Header.Get("X-Seen") != c.seen || body != c.body {
			t.Fatalf("%s: %d, seen %q, body %.80q (%d)", c.name, response.StatusCode, response.Header.Get("X-Seen"), body, len(body))
		}
	}
	// Pipelined, of which the last has a body in chunks.
	p.send(strings.Repeat("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 50) + "POST /?stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0\r\n\r\n")
	for i := range 51 {
		if _, body := p.answer("POST"); body != "x" && (i < 50 || body != "y") {
			t.Fatalf("answer %d: %q", i, body)
		}
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections to the backend", n)
	}
	for range 100 { // an answer is counted once it is written
		if server.Counts().Requests[2] == 60 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if n := server.Counts(); n.Requests[2] != 60 || n.Dials != 1 || n.Clients != 1 {
		t.Errorf("counts: %+v", n)
	}
}

func TestAnswers(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			select {
			case <-r.Context().Done():
			case <-t.Context().Done(): // net/http does not hear of an end while there is a body to read
			}
		case "/none":
			conn, _, _ := w.(http.Hijacker).Hijack()
			_ = conn.Close()
		case "/bad":
			conn, _, _ := w.(http.Hijacker).Hijack()
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
			_ = conn.Close()
		}
	})
	_, at := start(t, Settings{Header: 200 * time.Millisecond, Body: 200 * time.Millisecond}, &Table{Router: hosts{
		"a":     {&Route{MaxBody: 10, Timeouts: Timeouts{Response: 200 * time.Millisecond}}, &Backend{Endpoints: []netip.AddrPort{up}}},
		"empty": {&Route{}, &Backend{}},
		"dead":  {&Route{}, &Backend{Endpoints: []netip.AddrPort{nobody(t), nobody(t)}}},
		"moved": {&Route{Answer: &Answer{Status: 308, Location: func(b []byte, r *Request) []byte {
			return append(append(append(b, "https://"...), r.Host...), r.Path...)
		}}}, nil},
	}})
	for _, c := range []struct {
		name, in string
		status   int
		says     string
		goesOn   bool
	}{
		{"no route", "GET / HTTP/1.1\r\nHost: b\r\n\r\n", 404, "no route", true},
		{"no endpoint", "GET / HTTP/1.1\r\nHost: empty\r\n\r\n", 503, "no endpoint that is ready", true},
		{"no connection", "GET / HTTP/1.1\r\nHost: dead\r\n\r\n", 502, "can be reached", true},
		{"a redirect", "GET /x HTTP/1.1\r\nHost: moved\r\n\r\n", 308, "", true},
		{"no answer in time", "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", 504, "in time", true},
		{"no answer", "GET /none HTTP/1.1\r\nHost: a\r\n\r\n", 502, "without an answer", true},
		{"a bad answer", "GET /bad HTTP/1.1\r\nHost: a\r\n\r\n", 502, "no HTTP", true},
		{"a long body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello", 413, "longer", false},
		{"a long body in chunks", "POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n", 413, "longer", true},
		{"a body that is not taken", "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 11\r\n\r\nhello", 404, "no route", false},
		{"a slow head", "GET / HT", 408, "in time", false},
		{"a slow body", "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello", 408, "in time", false},
		{"bad chunks", "POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n", 400, "chunk", false},
		{"no HTTP", "hello\r\n\r\n", 400, "first line", false},
		{"a long line", "GET /" + strings.Repeat("a", 10_000) + " HTTP/1.1\r\nHost: a\r\n\r\n", 414, "too long", false},
		{"a long field", "GET / HTTP/1.1\r\nHost: a\r\nA: " + strings.Repeat("a", 100_000) + "\r\n\r\n", 431, "too long", false},
		{"a method for nobody", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "", true},
		{"a tunnel", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405, "", true},
		{"the server itself", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := dial(t, at)
			p.send(c.in)
			response, body := p.answer("GET")
			if response.StatusCode != c.status || !strings.Contains(body, c.says) {
				t.Errorf("%d %q", response.StatusCode, body)
			}
			if response.Close == c.goesOn {
				t.Errorf("the connection is to be closed: %v", response.Close)
			}
			if location := response.Header.Get("Location"); c.status == 308 && location != "https://moved/x" {
				t.Errorf("location %q", location)
			}
			if !c.goesOn {
				p.closed()
			} else {
				p.send(get)
				if response, _ := p.answer("GET"); response.StatusCode != 200 {
					t.Errorf("then %d", response.StatusCode)
				}
			}
		})
	}
}

func TestFieldsOfTheClient(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("X-Request-Id")
		var b bytes.Buffer
		_ = r.Header.Write(&b)
		_, _ = io.WriteString(w, strings.ReplaceAll(b.String(), "\r\n", " "))
	})
	table := one(&Route{Request: Edits{Remove: []string{"b"}, Set: []Field{{Name: "C", Value: "2"}}, Add: []Field{{Name: "A", Value: "3"}}}, Response: Edits{Set: []Field{{Name: "X-Answer", Value: "1"}}}}, up)
	server, at := start(t, Settings{}, table)
	p := dial(t, at)
	const spoofed = "GET / HTTP/1.1\r\nHost: a:1\r\nA: 1\r\nB: 1\r\nc: 1\r\nX-Forwarded-For: 1.2.3.4, 127.0.0.2\r\nX-Real-IP: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /x\r\nForwarded: for=1.2.3.4\r\nX_Forwarded_For: 1.2.3.4\r\nX-Original-URL: /admin\r\nProxy: evil\r\nConnection: X-Forwarded-Host, d\r\nD: 1\r\nTE: trailers\r\n\r\n"
	_, port, _ := net.SplitHostPort(at)
	p.send(spoofed)
	response, got := p.answer("GET")
	want := "A: 1 A: 3 C: 2 X-Forwarded-For: 127.0.0.1 X-Forwarded-Host: a:1 X-Forwarded-Port: " + port + " X-Forwarded-Proto: http X-Forwarded-Scheme: http X-Real-Ip: 127.0.0.1 "
	if got != want {
		t.Errorf("a stranger:\n got %s\nwant %s", got, want)
	}
	if response.Header.Get("X-Answer") != "1" {
		t.Error("the answer is not edited")
	}
	trusting := *table
	trusting.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	server.Serve(&trusting)
	p.send(spoofed)
	_, got = p.answer("GET")
	want = "A: 1 A: 3 C: 2 Forwarded: for=1.2.3.4 X-Forwarded-For: 1.2.3.4, 127.0.0.2, 127.0.0.1 X-Forwarded-Host: a:1 X-Forwarded-Port: " + port + " X-Forwarded-Prefix: /x X-Forwarded-Proto: https X-Real-Ip: 1.2.3.4 "
	if got != want {
		t.Errorf("a trusted proxy, on the same connection:\n got %s\nwant %s", got, want)
	}
}
