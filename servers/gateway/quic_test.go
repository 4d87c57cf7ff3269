package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// start3 runs a server by TLS and by HTTP/3 until the test ends, and returns where.
func start3(t *testing.T, settings Settings, table *Table) (s *Server, tcp, udp string, end func()) {
	t.Helper()
	if settings.DrainIdle == 0 {
		settings.DrainIdle = 20 * time.Millisecond
	}
	if settings.Drain == 0 {
		settings.Drain = 5 * time.Second
	}
	s = New(settings, slog.New(slog.DiscardHandler))
	s.Serve(table)
	at := netip.MustParseAddrPort("127.0.0.1:0")
	s.Listen([]Listener{{At: at, Secure: true}, {At: at, Secure: true, HTTP3: true, Port: 4433}})
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
	until(t, "it listens", func() bool { return len(s.Listening()) == 2 })
	for _, l := range s.Listening() {
		if l.HTTP3 {
			udp = l.At.String()
		} else {
			tcp = l.At.String()
		}
	}
	return s, tcp, udp, end
}

// until waits for what is to become true.
func until(t *testing.T, what string, true func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !true(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it is not so that %s", what)
		}
	}
}

// client3 is a client of HTTP/3 that comes to a name of TLS.
func client3(t *testing.T, name string, with ...tls.Certificate) *http.Client {
	t.Helper()
	transport := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: name, Certificates: with},
		QUICConfig:      &quicgo.Config{MaxIdleTimeout: 20 * time.Second},
	}
	t.Cleanup(func() { _ = transport.Close() })
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// ask3 asks for a path of a host, and returns the answer and its body.
func ask3(t *testing.T, client *http.Client, at, path, host string) (*http.Response, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+at+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	response, err := client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response, string(body), err
}

func TestHTTP3(t *testing.T) {
	up := script3(t)
	table := secured(one(&Route{MaxBody: 2 << 20, Timeouts: Timeouts{Response: 300 * time.Millisecond}}, up), map[string]*tls.Certificate{"a": certificate(t, "a")})
	server, _, at, _ := start3(t, Settings{}, table)
	client := client3(t, "a")
	large := strings.Repeat("0123456789abcdef", 1<<16)
	for _, c := range []struct {
		method, path, body string
		unknown            bool // the client does not say how long it is
		seen               string
	}{
		{"GET", "/x%41/../y?z", "", false, "HTTP/1.1 GET a /y?z [] https 4433 127.0.0.1"},
		{"POST", "/", "hello", false, "HTTP/1.1 POST a / [] https 4433 127.0.0.1"},
		{"POST", "/?stream", large, true, "HTTP/1.1 POST a /?stream [chunked] https 4433 127.0.0.1"},
		{"POST", "/", large, false, "HTTP/1.1 POST a / [] https 4433 127.0.0.1"},
		{"DELETE", "/", "", false, "HTTP/1.1 DELETE a / [] https 4433 127.0.0.1"},
	} {
		r, err := http.NewRequest(c.method, "https://"+at+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "a"
		if c.unknown {
			r.ContentLength, r.Trailer = -1, http.Header{"X-Sent": {"1"}}
		}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(c, err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || string(body) != c.body || response.ProtoMajor != 3 || response.Header.Get("X-Seen") != c.seen {
			t.Errorf("%s %s: %d bytes of %d, HTTP/%d, %q, %v", c.method, c.path, len(body), len(c.body), response.ProtoMajor, response.Header.Get("X-Seen"), err)
		}
		if c.unknown && response.Trailer.Get("X-Sum") != "1" {
			t.Errorf("%s: trailers %v", c.path, response.Trailer)
		}
		if got := response.Header.Get("Alt-Svc"); got != "" {
			t.Errorf("who speaks HTTP/3 is told of it: %s", got)
		}
	}
	for path, want := range map[string]int{"/slow": 504, "/a%2f..%2fb": 400, "/..": 400} {
		if response, _, err := ask3(t, client, at, path, "a"); err != nil || response.StatusCode != want {
			t.Errorf("%s: %v %v", path, response, err)
		}
	}
	if response, _, err := ask3(t, client, at, "/", "nowhere"); err != nil || response.StatusCode != 404 {
		t.Errorf("no route: %v %v", response, err)
	}
	until(t, "one connection waits", func() bool {
		n := server.Counts()
		return n.Clients == 1 && n.HTTP3 == 1 && n.Waiting == 1
	})
	for _, path := range []string{"/cut", "/cut-chunks"} {
		if _, _, err := ask3(t, client, at, path, "a"); err == nil {
			t.Errorf("%s is taken for whole", path)
		}
	}
	if response, body, err := ask3(t, client, at, "/large", "a"); err != nil || len(body) != 8<<20 {
		t.Errorf("a large answer: %v, %d bytes, %v", response, len(body), err)
	}
}

// script3 is a backend that tells what it has seen.
func script3(t *testing.T) netip.AddrPort {
	return backend(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cut", "/cut-chunks":
			if r.URL.Path == "/cut" {
				w.Header().Set("Content-Length", "100")
			}
			_, _ = io.WriteString(w, "some")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/slow":
			<-r.Context().Done()
			return
		case "/large":
			_, _ = w.Write(make([]byte, 8<<20))
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s %s %v %s %s %s", r.Proto, r.Method, r.Host, r.URL, r.TransferEncoding, r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-Port"), r.Header.Get("X-Forwarded-For")))
		if r.URL.Query().Has("stream") {
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write(body)
		w.Header().Set("X-Sum", r.Trailer.Get("X-Sent"))
	})
}

// TestHTTP3ClientGone: an endpoint need not answer whom nobody waits for.
func TestHTTP3ClientGone(t *testing.T) {
	began, gone := make(chan struct{}), make(chan struct{})
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(gone)
	})
	_, _, at, _ := start3(t, Settings{}, securedBy(t, one(&Route{}, up)))
	client := client3(t, "a")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		r, _ := http.NewRequestWithContext(ctx, "GET", "https://"+at+"/", nil)
		r.Host = "a"
		_, _ = client.Do(r)
	}()
	<-began
	cancel()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the endpoint is waited for")
	}
}

// TestHTTP3Drain: what is under way is finished, the connection ends, and so does the
// server; who comes then is not served.
func TestHTTP3Drain(t *testing.T) {
	release, began := make(chan struct{}), make(chan struct{})
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-release
		_, _ = io.WriteString(w, "ok")
	})
	_, _, at, end := start3(t, Settings{}, securedBy(t, one(&Route{}, up)))
	client := client3(t, "a")
	got := make(chan string)
	go func() {
		_, body, err := ask3(t, client, at, "/", "a")
		got <- fmt.Sprint(body, err)
	}()
	<-began
	ended := make(chan struct{})
	go func() { end(); close(ended) }()
	until(t, "others are not served", func() bool {
		other := client3(t, "a")
		other.Timeout = 200 * time.Millisecond
		_, _, err := ask3(t, other, at, "/", "nowhere")
		return err != nil
	})
	close(release)
	if text := <-got; text != "ok<nil>" {
		t.Errorf("what was under way: %s", text)
	}
	<-ended
}

// TestHTTP3Change: tables change under requests, none fails and no connection ends;
// HTTP/3 is offered while it is spoken, and may be switched off and on.
func TestHTTP3Change(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	table := securedBy(t, one(&Route{}, up))
	server, tcp, at, _ := start3(t, Settings{}, table)
	stop := make(chan struct{})
	var failed, asked atomic.Int64
	var asking sync.WaitGroup
	client := client3(t, "a")
	for range 4 {
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, body, err := ask3(t, client, at, "/", "a"); err != nil || body != "ok" {
					failed.Add(1)
				}
				asked.Add(1)
			}
		})
	}
	for range 50 {
		server.Serve(&Table{Router: hosts{"a": {&Route{}, &Backend{Endpoints: []netip.AddrPort{up}}}}, Certificate: table.Certificate})
		was := asked.Load()
		until(t, "requests are answered", func() bool { return asked.Load() > was })
	}
	close(stop)
	asking.Wait()
	if n := server.Counts(); failed.Load() > 0 || n.HTTP3 != 1 {
		t.Errorf("%d of %d failed, %d connections", failed.Load(), asked.Load(), n.HTTP3)
	}
	offered := func() string {
		client := client2(t)
		defer client.CloseIdleConnections()
		response, err := client.Do(&http.Request{Method: "GET", URL: mustURL(t, "https://"+tcp+"/"), Host: "a"})
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.Header.Get("Alt-Svc")
	}
	if got := offered(); got != `h3=":4433"; ma=3600` {
		t.Errorf("it is offered: %s", got)
	}
	both := server.wanted
	server.Listen(both[:1])
	until(t, "it is offered no more", func() bool { return offered() == "clear" })
	until(t, "its connection has ended", func() bool { return server.Counts().Clients == 0 })
	server.Listen(both)
	until(t, "it is offered again", func() bool { return strings.HasPrefix(offered(), "h3=") })
	for _, l := range server.Listening() {
		if l.HTTP3 {
			if _, body, err := ask3(t, client3(t, "a"), l.At.String(), "/", "a"); body != "ok" {
				t.Error(err)
			}
		}
	}
}

type routerFunc func(*Request) (*Route, *Backend)

func (f routerFunc) Route(r *Request) (*Route, *Backend) { return f(r) }

func mustURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestHTTP3Certificates: whose name asks for certificates has them, from handshakes
// of its own; who is passed through by TCP is not served, and neither is a load
// balancer that should say for whom it asks.
func TestHTTP3Certificates(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {})
	served := certificate(t, "a", "b", "c")
	own := *certificate(t, "client")
	var seen sync.Map
	table := secured(&Table{Router: routerFunc(func(r *Request) (*Route, *Backend) {
		seen.Store(r.ServerName+" for "+string(r.Host), len(r.Peer.Certificates))
		return &Route{}, &Backend{Endpoints: []netip.AddrPort{up}}
	})}, map[string]*tls.Certificate{"a": served, "b": served, "c": served})
	table.Asks = func(name string) *x509.CertPool {
		if name == "b" {
			return x509.NewCertPool()
		}
		return nil
	}
	table.Passes = func(name string) *Backend {
		if name == "c" {
			return &Backend{Endpoints: []netip.AddrPort{up}}
		}
		return nil
	}
	server, tcp, at, _ := start3(t, Settings{}, table)
	for _, c := range []struct {
		name, host string
		with       []tls.Certificate
		status     int
		shown      int
	}{
		{"a", "a", []tls.Certificate{own}, 200, 0},
		{"b", "b", []tls.Certificate{own}, 200, 1},
		{"b", "b", nil, 200, 0},
		{"a", "b", []tls.Certificate{own}, 200, 0}, // what was shown to b does not count, and the router knows
	} {
		response, _, err := ask3(t, client3(t, c.name, c.with...), at, "/", c.host)
		if err != nil || response.StatusCode != c.status {
			t.Errorf("%+v: %v %v", c, response, err)
		}
		if n, _ := seen.Load(c.name + " for " + c.host); n != c.shown {
			t.Errorf("%+v: %v certificates", c, n)
		}
	}
	if response, _, err := ask3(t, client3(t, "c"), at, "/", "c"); err == nil {
		t.Errorf("who is passed through has %v", response)
	}
	client := client3(t, "a")
	if _, _, err := ask3(t, client, at, "/", "a"); err != nil {
		t.Error(err)
	}
	with := *table
	with.Introduced = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	server.Serve(&with)
	if response, _, err := ask3(t, client, at, "/", "a"); err == nil {
		t.Errorf("a load balancer that says nothing has %v", response)
	}
	var refused *quicgo.TransportError
	if response, _, err := ask3(t, client3(t, "a"), at, "/", "a"); !errors.As(err, &refused) || !refused.ErrorCode.IsCryptoError() {
		t.Errorf("a load balancer that begins has %v, %v", response, err)
	}
	for _, client := range []*http.Client{client2(t), {Transport: &http.Transport{TLSClientConfig: &tls.Config{ServerName: "a", InsecureSkipVerify: true}}}} {
		transport := client.Transport.(*http.Transport)
		transport.DialContext = func(ctx context.Context, network, to string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, to)
			if err == nil {
				_, err = io.WriteString(conn, "PROXY TCP4 192.0.2.7 192.0.2.8 80 443\r\n")
			}
			return conn, err
		}
		response, err := client.Do(&http.Request{Method: "GET", URL: mustURL(t, "https://"+tcp+"/"), Host: "a"})
		transport.CloseIdleConnections()
		if err != nil || response.StatusCode != 200 || response.Header.Get("Alt-Svc") != "" {
			t.Errorf("who comes by a load balancer has %v, %v", response, err)
		}
	}
}

// TestHTTP3Waits: a connection ends that asks for nothing, and one more than there may
// be does not begin.
func TestHTTP3Waits(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {})
	server, _, at, _ := start3(t, Settings{Idle: 300 * time.Millisecond, Clients: 1}, securedBy(t, one(&Route{}, up)))
	if _, _, err := ask3(t, client3(t, "a"), at, "/", "a"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask3(t, client3(t, "a"), at, "/", "a"); err == nil || server.Counts().Refused == 0 {
		t.Errorf("a second client is served: %v", err)
	}
	until(t, "the first one has ended", func() bool { return server.Counts().Clients == 0 })
	if _, _, err := ask3(t, client3(t, "a"), at, "/", "a"); err != nil {
		t.Error(err)
	}
}

// TestHTTP3Resets: who asks and leaves, again and again, has the connection ended.
func TestHTTP3Resets(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server, _, at, _ := start3(t, Settings{}, securedBy(t, one(&Route{}, up)))
	conn, err := quicgo.DialAddr(t.Context(), at, &tls.Config{InsecureSkipVerify: true, ServerName: "a", NextProtos: []string{"h3"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 100_000 {
		s, err := conn.OpenStreamSync(t.Context())
		if err != nil {
			break
		}
		_, _ = s.Write([]byte{1, 3, 0, 0, 0xd1}) // half a head
		s.CancelWrite(0x10c)
		s.CancelRead(0x10c)
	}
	select { // streams fail a moment before the connection says so
	case <-conn.Context().Done():
	case <-time.After(10 * time.Second):
	}
	var said *quicgo.ApplicationError
	if cause := context.Cause(conn.Context()); !errors.As(cause, &said) || said.ErrorCode != 0x107 {
		t.Errorf("it may go on: %v", cause)
	}
	until(t, "nothing is left", func() bool { return server.Counts().Clients == 0 })
}
