package gateway

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// certificate makes one that names sign themselves.
func certificate(t *testing.T, names ...string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// secured adds a certificate for each of some names to a table.
func secured(table *Table, of map[string]*tls.Certificate) *Table {
	with := *table
	with.Certificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c := of[hello.ServerName]; c != nil {
			return c, nil
		}
		return nil, errors.New("there is none")
	}
	return &with
}

func dialTLS(t *testing.T, at, name string) (*peer, *tls.Conn) {
	t.Helper()
	conn, err := tls.Dial("tcp", at, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &peer{conn, bufio.NewReader(conn), t}, conn
}

func TestTLS(t *testing.T) {
	up := script(t, func(_ int, conn net.Conn) {
		in := bufio.NewReader(conn)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if r.Header.Get("Upgrade") != "" {
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				_, _ = io.Copy(conn, in)
				return
			}
			body, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Seen: %s %s\r\n\r\n%s", len(body), r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-Host"), body)
		}
	})
	first, second := certificate(t, "a"), certificate(t, "a")
	table := secured(one(&Route{}, up), map[string]*tls.Certificate{"a": first, "b": first})
	server, at := start(t, Settings{Header: 300 * time.Millisecond}, table)
	p, conn := dialTLS(t, at, "a")
	large := strings.Repeat("0123456789abcdef", 1<<16)
	for _, body := range []string{"", "hello", large} {
		p.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		response, got := p.answer("POST")
		if got != body || response.Header.Get("X-Seen") != "https a" {
			t.Fatalf("%d bytes of %d, %s", len(got), len(body), response.Header.Get("X-Seen"))
		}
	}
	server.Serve(secured(table, map[string]*tls.Certificate{"a": second}))
	p.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if response, err := http.ReadResponse(p.Reader, nil); err != nil || response.StatusCode != 101 {
		t.Fatalf("after another certificate came: %v %v", response, err)
	}
	go func() { _, _ = io.WriteString(p.Conn, large) }()
	got := make([]byte, len(large))
	if _, err := io.ReadFull(p.Reader, got); err != nil || string(got) != large {
		t.Errorf("through the WebSocket: %v", err)
	}
	_, again := dialTLS(t, at, "a")
	if bytes.Equal(conn.ConnectionState().PeerCertificates[0].Raw, again.ConnectionState().PeerCertificates[0].Raw) {
		t.Error("a new connection has the old certificate")
	}
	if _, err := tls.Dial("tcp", at, &tls.Config{ServerName: "b", InsecureSkipVerify: true}); err == nil {
		t.Error("a name without a certificate has one")
	}
	silent := dial(t, at)
	silent.closed()
}

// TestTicketsAreOneServers: a session goes on by its ticket while the key of it lives, whatever
// table there is by then; after that, and at another server, there is a new one.
func TestTicketsAreOneServers(t *testing.T) {
	up := backend(t, func(http.ResponseWriter, *http.Request) {})
	table := secured(one(&Route{}, up), map[string]*tls.Certificate{"a": certificate(t, "a")})
	server, at := start(t, Settings{}, table)
	// A table is of one server: it has that one's endpoints.
	_, elsewhere := start(t, Settings{}, secured(one(&Route{}, up), map[string]*tls.Certificate{"a": certificate(t, "a")}))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		sessions := tls.NewLRUClientSessionCache(4)
		resumed := func(at string) bool {
			t.Helper()
			conn, err := tls.Dial("tcp", at, &tls.Config{ServerName: "a", InsecureSkipVerify: true, ClientSessionCache: sessions, MaxVersion: version})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			p := &peer{conn, bufio.NewReader(conn), t}
			p.send(get) // a ticket of TLS 1.3 comes behind the handshake
			if response, _ := p.answer("GET"); response.StatusCode != http.StatusOK {
				t.Fatalf("status %d", response.StatusCode)
			}
			return conn.ConnectionState().DidResume
		}
		if resumed(at) {
			t.Error("the first session is resumed")
		}
		server.Serve(secured(table, map[string]*tls.Certificate{"a": certificate(t, "a")}))
		if !resumed(at) {
			t.Error("the second one is not resumed")
		}
		for range ticketKeys - 1 {
			server.tickets.rotate()
		}
		if !resumed(at) {
			t.Error("it is not resumed while its key lives")
		}
		for range ticketKeys + 1 {
			server.tickets.rotate()
		}
		if resumed(at) {
			t.Error("it is resumed by a key that is gone")
		}
		if resumed(elsewhere) {
			t.Error("another server resumes it")
		}
	}
}

// client2 is one of HTTP/2.
func client2(t *testing.T) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: &tls.Config{ServerName: "a", InsecureSkipVerify: true}, Protocols: protocols, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func TestHTTP2(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "abc")
			return
		case "/cut-chunks":
			_, _ = io.WriteString(w, "abc")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/slow":
			select {
			case <-r.Context().Done():
			case <-t.Context().Done():
			}
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s %s %v %s", r.Proto, r.Method, r.Host, r.URL, r.TransferEncoding, r.Header.Get("X-Forwarded-Proto")))
		if r.URL.Query().Has("stream") {
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write(body)
		w.Header().Set("X-Sum", r.Trailer.Get("X-Sent"))
	})
	table := secured(one(&Route{MaxBody: 2 << 20, Timeouts: Timeouts{Response: 300 * time.Millisecond}}, up), map[string]*tls.Certificate{"a": certificate(t, "a")})
	server, at := start(t, Settings{}, table)
	client := client2(t)
	large := strings.Repeat("0123456789abcdef", 1<<16)
	for _, c := range []struct {
		method, path, body string
		unknown            bool // the client does not say how long it is
		seen               string
	}{
		{"GET", "/x%41/../y?z", "", false, "HTTP/1.1 GET a /y?z [] https"},
		{"POST", "/", "hello", false, "HTTP/1.1 POST a / [] https"},
		{"POST", "/?stream", "hello", true, "HTTP/1.1 POST a /?stream [chunked] https"},
		{"POST", "/?stream", large, true, "HTTP/1.1 POST a /?stream [chunked] https"},
		{"POST", "/", large, false, "HTTP/1.1 POST a / [] https"},
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
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || string(body) != c.body || response.ProtoMajor != 2 || response.Header.Get("X-Seen") != c.seen {
			t.Errorf("%s %s: %d bytes of %d, HTTP/%d, %q, %v", c.method, c.path, len(body), len(c.body), response.ProtoMajor, response.Header.Get("X-Seen"), err)
		}
		if c.unknown && response.Trailer.Get("X-Sum") != "1" {
			t.Errorf("%s: trailers %v", c.path, response.Trailer)
		}
	}
	ask := func(path, host string) (*http.Response, error) {
		r, _ := http.NewRequest("GET", "https://"+at+path, nil)
		r.Host = host
		response, err := client.Do(r)
		if err == nil {
			_, err = io.ReadAll(response.Body)
		}
		return response, err
	}
	for path, want := range map[string]int{"/slow": 504, "/a%2f..%2fb": 400, "/..": 400} {
		if response, err := ask(path, "a"); err != nil || response.StatusCode != want {
			t.Errorf("%s: %v %v", path, response, err)
		}
	}
	if response, err := ask("/", "nowhere"); err != nil || response.StatusCode != 404 {
		t.Errorf("no route: %v %v", response, err)
	}
	for _, path := range []string{"/cut", "/cut-chunks"} {
		if _, err := ask(path, "a"); err == nil {
			t.Errorf("%s is taken for whole", path)
		}
	}
	if n := server.Counts(); n.Clients != 1 {
		t.Errorf("%d connections", n.Clients)
	}
}

// TestHTTP2Drain: streams finish, and the connection ends.
func TestHTTP2Drain(t *testing.T) {
	release, began := make(chan struct{}), make(chan struct{})
	up := backend(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-release
		_, _ = io.WriteString(w, "ok")
	})
	_, at, end := startUntil(t, Settings{}, secured(one(&Route{}, up), map[string]*tls.Certificate{"a": certificate(t, "a")}))
	client := client2(t)
	got := make(chan string)
	go func() {
		r, _ := http.NewRequest("GET", "https://"+at+"/", nil)
		r.Host = "a"
		response, err := client.Do(r)
		if err != nil {
			got <- err.Error()
			return
		}
		body, _ := io.ReadAll(response.Body)
		got <- string(body)
	}()
	<-began
	ended := make(chan struct{})
	go func() { end(); close(ended) }()
	select {
	case <-ended:
		t.Error("it has ended before its last answer")
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	if text := <-got; text != "ok" {
		t.Errorf("what was under way: %s", text)
	}
	<-ended
}
