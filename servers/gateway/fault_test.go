package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// takes reads the head and the body of a request, and returns false at the end.
func takes(in *bufio.Reader) bool {
	r, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err == nil
}

func TestRetries(t *testing.T) {
	for _, c := range []struct {
		name, method string
		closesAfter  int // answers on the first connection; then it takes a request more, and closes
		status       int // of the request that meets this
		reads        bool
	}{
		{"get, of a pooled connection", "GET", 1, 200, true},
		{"post, of a pooled connection: it may have been done", "POST", 1, 502, true},
		{"get, of a new connection", "GET", 0, 502, true},
		{"post, of one that was closed before", "POST", 1, 200, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			closed := make(chan struct{})
			up := script(t, func(n int, conn net.Conn) {
				in := bufio.NewReader(conn)
				for i := 0; ; i++ {
					if n == 1 && i == c.closesAfter && !c.reads {
						_ = conn.Close()
						close(closed)
						return
					}
					if !takes(in) || n == 1 && i == c.closesAfter {
						return
					}
					_, _ = io.WriteString(conn, ok)
				}
			})
			_, at := start(t, Settings{}, one(&Route{}, up))
			p := dial(t, at)
			for range c.closesAfter {
				p.send(get)
				p.answer("GET")
			}
			if !c.reads {
				<-closed
			}
			p.send(c.method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
			if response, body := p.answer("GET"); response.StatusCode != c.status {
				t.Errorf("%d %s", response.StatusCode, body)
			}
		})
	}
}

// TestDeadEndpoint: one that takes no connections costs nobody a request, and rests.
func TestDeadEndpoint(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	for _, balance := range []Balance{RoundRobin, LeastRequests} {
		server, at := start(t, Settings{}, &Table{Router: hosts{"a": {&Route{}, &Backend{Balance: balance, Endpoints: []netip.AddrPort{nobody(t), up, nobody(t)}}}}})
		p := dial(t, at)
		for range 20 {
			p.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
			if response, body := p.answer("POST"); response.StatusCode != 200 {
				t.Fatalf("%d %s", response.StatusCode, body)
			}
		}
		if n := server.Counts().Unreached; n == 0 && balance == RoundRobin || n > 2 {
			t.Errorf("%d connections failed", n)
		}
	}
}

func TestBalance(t *testing.T) {
	var hits [2]atomic.Int32
	var all []netip.AddrPort
	for i := range hits {
		all = append(all, backend(t, func(w http.ResponseWriter, r *http.Request) {
			hits[i].Add(1)
			if r.URL.Path == "/wait" {
				select {
				case <-r.Context().Done():
				case <-t.Context().Done():
				}
			}
		}))
	}
	least := &Backend{Balance: LeastRequests, Endpoints: all}
	_, at := start(t, Settings{}, &Table{Router: hosts{"a": {&Route{}, &Backend{Endpoints: all}}, "least": {&Route{}, least}}})
	p := dial(t, at)
	for range 20 {
		p.send(get)
		p.answer("GET")
	}
	if hits[0].Load() != 10 || hits[1].Load() != 10 {
		t.Errorf("round robin: %d and %d", hits[0].Load(), hits[1].Load())
	}
	waiting := dial(t, at)
	waiting.send("GET /wait HTTP/1.1\r\nHost: least\r\n\r\n")
	for hits[0].Load()+hits[1].Load() < 21 {
		time.Sleep(time.Millisecond)
	}
	busy, before := 0, hits[0].Load()
	if hits[1].Load() == 11 {
		busy, before = 1, hits[1].Load()
	}
	for range 10 {
		p.send("GET / HTTP/1.1\r\nHost: least\r\n\r\n")
		p.answer("GET")
	}
	if got := hits[busy].Load() - before; got != 0 {
		t.Errorf("the busy one of two had %d requests more", got)
	}
}

// TestCutAnswers: what an endpoint does not finish, the client does not take for
// finished.
func TestCutAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"a length":     "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
		"a long one":   "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc",
		"chunks":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
		"broken chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
	} {
		up := script(t, func(_ int, conn net.Conn) {
			takes(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, answer)
		})
		_, at := start(t, Settings{}, one(&Route{}, up))
		p := dial(t, at)
		p.send(get)
		response, err := http.ReadResponse(p.Reader, nil)
		if err != nil {
			continue // the reset came first
		}
		if body, err := io.ReadAll(response.Body); err == nil {
			t.Errorf("%s: %q is taken for whole", name, body)
		}
	}
}

// TestUntilClose: an answer that ends with its connection is whole for a client
// whose connection goes on, and what comes after an answer is for nobody.
func TestUntilClose(t *testing.T) {
	up := script(t, func(n int, conn net.Conn) {
		takes(bufio.NewReader(conn))
		if n%2 == 1 {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"+strings.Repeat("x", 100_000))
			return
		}
		_, _ = io.WriteString(conn, ok+"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		takes(bufio.NewReader(conn))
	})
	_, at := start(t, Settings{}, one(&Route{}, up))
	p := dial(t, at)
	for range 3 {
		p.send(get)
		if _, body := p.answer("GET"); len(body) != 100_000 {
			t.Fatalf("%d bytes", len(body))
		}
		p.send(get)
		if _, body := p.answer("GET"); body != "ok" {
			t.Fatalf("%q", body)
		}
	}
	old := dial(t, at)
	old.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
	if response, body := old.answer("GET"); len(body) != 100_000 || !response.Close {
		t.Errorf("HTTP/1.0: %d bytes", len(body))
	}
	old.closed()
}

// TestUnasked: what an endpoint sends after its answer is not the answer to the
// next request, whenever it comes.
func TestUnasked(t *testing.T) {
	sent := make(chan struct{})
	up := script(t, func(n int, conn net.Conn) {
		in := bufio.NewReader(conn)
		for takes(in) {
			_, _ = io.WriteString(conn, ok)
			if n == 1 {
				time.Sleep(50 * time.Millisecond) // so that it comes in another piece
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
				close(sent)
			}
		}
	})
	_, at := start(t, Settings{}, one(&Route{}, up))
	p := dial(t, at)
	p.send(get)
	p.answer("GET")
	<-sent
	p.send(get)
	if _, body := p.answer("GET"); body != "ok" {
		t.Errorf("%q", body)
	}
}

// TestTooMuch: a connection on which more came than the answer is not used again.
func TestTooMuch(t *testing.T) {
	up := script(t, func(n int, conn net.Conn) {
		for in := bufio.NewReader(conn); takes(in); {
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%dHTTP/1.1 2", n)
		}
	})
	_, at := start(t, Settings{}, one(&Route{}, up))
	p := dial(t, at)
	for _, want := range []string{"1", "2"} {
		p.send(get)
		if _, body := p.answer("GET"); body != want {
			t.Errorf("of connection %s, not %s", body, want)
		}
	}
}

// TestCutForOld: a client of HTTP/1.0 knows the end of an answer by the end of the
// connection: it hears of a reset if that is not the end.
func TestCutForOld(t *testing.T) {
	up := script(t, func(_ int, conn net.Conn) {
		takes(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhe")
	})
	_, at := start(t, Settings{}, one(&Route{}, up))
	p := dial(t, at)
	p.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
	if got, err := io.ReadAll(p.Conn); err == nil {
		t.Errorf("%q is taken for whole", got)
	}
}

// TestLateBody: a body that comes in pieces is measured as well.
func TestLateBody(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	_, at := start(t, Settings{}, one(&Route{MaxBody: 10}, up))
	p := dial(t, at)
	p.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	time.Sleep(20 * time.Millisecond) // so that it comes in another piece
	p.send("6\r\nhello!\r\n0\r\n\r\n")
	if response, body := p.answer("POST"); response.StatusCode != 413 {
		t.Errorf("%d %s", response.StatusCode, body)
	}
}

// TestLastJudgement: what became of a body is heard also if the answer is given up a
// moment before its goroutine has ended; but not what comes of its being ended.
func TestLastJudgement(t *testing.T) {
	for _, found := range []*http1.Error{errLargeBody, nil} {
		_, c := accepted(t)
		_, u := accepted(t)
		c.upload.client, c.upload.ended = c, make(chan struct{})
		go func() {
			defer close(c.upload.ended)
			c.upload.refused = found
			_, err := c.sock.Read(make([]byte, 1)) // until it is ended
			c.upload.judge(&side{err: err, reading: true})
		}()
		if refused, gone := c.upload.stop(&upstream{sock: u.sock}); refused != found || gone {
			t.Errorf("%v was found: %v, the client is gone: %t", found, refused, gone)
		}
	}
}

// TestLastWord: a request that came just before the wait for it was ended is heard.
func TestLastWord(t *testing.T) {
	other, c := accepted(t)
	other.send(get)
	for !c.sock.has() {
		time.Sleep(time.Millisecond)
	}
	_ = c.sock.SetReadDeadline(past())
	if !c.next() || string(c.request.Host) != "a" {
		t.Error("it is not")
	}
}

// accepted returns both ends of a connection.
func accepted(t *testing.T) (*peer, *client) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	other := dial(t, listener.Addr().String())
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s := New(Settings{}, nil)
	sock, err := newSock(conn.(*net.TCPConn), &s.watch)
	if err != nil {
		t.Fatal(err)
	}
	return other, newClient(s, sock, 0, Listener{})
}

func TestContinue(t *testing.T) {
	up := script(t, func(_ int, conn net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil || r.Header.Get("Expect") != "" {
			return
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
		if string(body) == "hello" {
			_, _ = io.WriteString(conn, ok)
		}
	})
	_, at := start(t, Settings{}, one(&Route{}, up))
	p := dial(t, at)
	p.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	for _, want := range []string{"HTTP/1.1 100 Continue\r\n", "\r\n"} {
		if line, err := p.ReadString('\n'); line != want {
			t.Fatalf("%q, %v", line, err)
		}
	}
	p.send("hello")
	for _, want := range []string{"HTTP/1.1 103 Early Hints\r\n", "Link: x\r\n", "\r\n"} {
		if line, err := p.ReadString('\n'); line != want {
			t.Fatalf("%q, %v", line, err)
		}
	}
	if _, body := p.answer("POST"); body != "ok" {
		t.Errorf("%q", body)
	}
	p.send("POST / HTTP/1.1\r\nHost: nowhere\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if response, _ := p.answer("POST"); response.StatusCode != 404 {
		t.Errorf("without a route: %d", response.StatusCode)
	}
}

// TestEarlyAnswer: an endpoint that answers before it has read the body is heard.
func TestEarlyAnswer(t *testing.T) {
	up := script(t, func(_ int, conn net.Conn) {
		_, _ = conn.Read(make([]byte, 100))
		_, _ = io.WriteString(conn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
		_, _ = io.Copy(io.Discard, conn)
	})
	_, at := start(t, Settings{}, one(&Route{}, up))
	for _, framing := range []string{"Content-Length: 100000000", "Transfer-Encoding: chunked"} {
		p := dial(t, at)
		p.send("POST / HTTP/1.1\r\nHost: a\r\n" + framing + "\r\n\r\n")
		if response, body := p.answer("POST"); response.StatusCode != 401 || body != "no" || !response.Close {
			t.Errorf("%s: %d %q", framing, response.StatusCode, body)
		}
		p.closed()
	}
}

// TestRestOfABody: where another request is sent in the place of the client's, without
// a body, the rest of the client's body is not taken for one more request.
func TestRestOfABody(t *testing.T) {
	var heard atomic.Int64
	up := backend(t, func(http.ResponseWriter, *http.Request) { heard.Add(1) })
	_, at := start(t, Settings{}, one(&Route{Method: http.MethodGet}, up))
	p := dial(t, at)
	p.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 38\r\n\r\n")
	if response, _ := p.answer("POST"); response.StatusCode != http.StatusServiceUnavailable || !response.Close {
		t.Errorf("%d, and it goes on: %v", response.StatusCode, !response.Close)
	}
	p.send("GET /admin HTTP/1.1\r\nHost: internal\r\n\r\n")
	p.closed()
	if n := heard.Load(); n != 0 {
		t.Errorf("the backend has had %d requests", n)
	}
}

// TestHere: what somebody may write into an Ingress leads to nothing that listens for
// this machine alone.
func TestHere(t *testing.T) {
	for _, at := range []string{"127.0.0.1:9817", "[::1]:9817", "169.254.169.254:80", "[fe80::1]:80", "[::ffff:127.0.0.1]:1", "0.0.0.0:80"} {
		if Elsewhere(t.Context(), "tcp", at, nil) == nil {
			t.Errorf("%s may be called", at)
		}
	}
	if err := Elsewhere(t.Context(), "tcp", "10.96.0.1:443", nil); err != nil {
		t.Error(err)
	}
}

// TestManyClients: those beyond the limit are not served, and cost the others nothing.
func TestManyClients(t *testing.T) {
	up := backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	_, at := start(t, Settings{Clients: 2}, one(&Route{}, up))
	first, second := dial(t, at), dial(t, at)
	for _, p := range []*peer{first, second} {
		p.send(get)
		p.answer("GET")
	}
	third := dial(t, at)
	if _, err := third.ReadByte(); err == nil {
		t.Error("a third client is served")
	}
	first.send(get)
	if _, body := first.answer("GET"); body != "ok" {
		t.Error("the first is not")
	}
}
