package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// clients of each version of HTTP, by TLS, each with where it comes.
func clientsOf(t *testing.T, tcp, udp string) map[string]*http.Client {
	first := client2(t)
	transport := first.Transport.(*http.Transport)
	transport.Protocols = nil
	transport.TLSClientConfig = &tls.Config{ServerName: "a", InsecureSkipVerify: true}
	return map[string]*http.Client{"HTTP/1.1 " + tcp: first, "HTTP/2 " + tcp: client2(t), "HTTP/3 " + udp: client3(t, "a")}
}

// busyFor counts requests and connections that endpoints are kept busy with.
func busyFor(s *Server) (n int64) {
	s.endpoints.mu.Lock()
	defer s.endpoints.mu.Unlock()
	for _, p := range s.endpoints.known {
		n += p.active.Load()
		if p.bridge == nil {
			continue
		}
		p.bridge.mu.Lock()
		for _, conn := range p.bridge.conns {
			n += int64(conn.InFlight())
		}
		p.bridge.mu.Unlock()
	}
	return n
}

// TestCancelled: what a client cancels is given up at the endpoint, and nothing of it
// stays in use, whichever versions of HTTP the two speak and however far it has come.
func TestCancelled(t *testing.T) {
	var active atomic.Int64
	asked := make(chan struct{}, 1)
	handler := func(w http.ResponseWriter, r *http.Request) {
		active.Add(1)
		defer active.Add(-1)
		switch r.URL.Path {
		case "/wait":
			asked <- struct{}{}
			<-r.Context().Done()
		case "/answer":
			piece := make([]byte, 8<<10)
			for r.Context().Err() == nil {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
		case "/upload":
			_, _ = io.ReadFull(r.Body, make([]byte, 1))
			asked <- struct{}{}
			_, _ = io.Copy(io.Discard, r.Body)
		}
	}
	for name, table := range map[string]*Table{"HTTP/1.1": securedBy(t, one(&Route{}, backend(t, handler))), "HTTP/2": of2(t, &Route{}, backend2(t, handler))} {
		server, tcp, udp, _ := start3(t, Settings{}, table)
		for who, client := range clientsOf(t, tcp, udp) {
			version, at, _ := strings.Cut(who, " ")
			t.Run(version+" to "+name, func(t *testing.T) {
				for _, path := range []string{"/wait", "/answer", "/upload"} {
					for range 5 {
						cancelOne(t, client, "https://"+at+path, asked)
					}
					until(t, "nothing is in use after "+path, func() bool { return active.Load() == 0 && busyFor(server) == 0 })
				}
				if response, _, err := ask3(t, client, at, "/", "a"); err != nil || response.StatusCode != 200 {
					t.Errorf("then: %v %v", response, err)
				}
			})
		}
	}
}

// cancelOne asks, and cancels once the endpoint knows.
func cancelOne(t *testing.T, client *http.Client, url string, asked <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	method, body := http.MethodGet, io.Reader(http.NoBody)
	upload := strings.HasSuffix(url, "/upload")
	if upload {
		pipe, to := io.Pipe()
		defer to.Close()
		go func() { // net/http keeps what is little
			for _, err := io.WriteString(to, strings.Repeat("x", 8<<10)); err == nil; {
				_, err = io.WriteString(to, strings.Repeat("x", 8<<10))
			}
		}()
		method, body = http.MethodPost, pipe
	}
	if upload || strings.HasSuffix(url, "/wait") {
		go func() {
			<-asked
			cancel()
		}()
	}
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "a"
	response, err := client.Do(r)
	switch {
	case strings.HasSuffix(url, "/answer"):
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadFull(response.Body, make([]byte, 10_000))
		cancel()
		_ = response.Body.Close()
	case !errors.Is(err, context.Canceled):
		t.Errorf("%s: %v %v", url, response, err)
	}
}

// TestTimeoutOnKept: an answer that comes too late is nobody's: not of the next request
// by the connection of the client, nor of one by that to the endpoint. A request that
// was waited for is not sent again, as one is whose kept connection had ended.
func TestTimeoutOnKept(t *testing.T) {
	var slow atomic.Int32
	late := make(chan struct{})
	up := script(t, func(n int, conn net.Conn) {
		for in := bufio.NewReader(conn); ; {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			text := fmt.Sprint("connection ", n)
			if r.URL.Path == "/slow" {
				slow.Add(1)
				<-late
				text = "late"
			}
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		}
	})
	_, tcp, udp, _ := start3(t, Settings{}, securedBy(t, one(&Route{Timeouts: Timeouts{Response: 300 * time.Millisecond}}, up)))
	defer close(late)
	for who, client := range clientsOf(t, tcp, udp) {
		version, at, _ := strings.Cut(who, " ")
		t.Run(version, func(t *testing.T) {
			slow.Store(0)
			first := ""
			for i, path := range []string{"/", "/", "/slow", "/", "/"} {
				response, body, err := ask3(t, client, at, path, "a")
				switch {
				case err != nil:
					t.Fatal(err)
				case path == "/slow":
					if response.StatusCode != 504 || slow.Load() != 1 {
						t.Errorf("%d, of a request that was sent %d times", response.StatusCode, slow.Load())
					}
					late <- struct{}{}
				case i == 0:
					first = body
				case body != first && i < 2, body == first && i > 2, !strings.HasPrefix(body, "connection "):
					t.Errorf("request %d is answered with %q, the first with %q", i, body, first)
				}
			}
		})
	}
}

// TestRateWhileChanging: answers that are slowed down are whole, and what is cancelled
// leaves nothing behind, while tables change.
func TestRateWhileChanging(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 4<<10) // 64 KiB
	up := backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, large) })
	slowed := func() *Table {
		return securedBy(t, one(&Route{Rate: Rate{PerSecond: 256 << 10, After: 16 << 10}}, up))
	}
	server, tcp, udp, _ := start3(t, Settings{}, slowed())
	ctx, cancel := context.WithCancel(t.Context())
	var changing, asking sync.WaitGroup
	certified := slowed().Certificate
	changing.Go(func() {
		for ctx.Err() == nil {
			server.Serve(&Table{Router: hosts{"a": {&Route{Rate: Rate{PerSecond: 256 << 10, After: 16 << 10}}, &Backend{Endpoints: []netip.AddrPort{up}}}}, Certificate: certified})
			time.Sleep(5 * time.Millisecond) // as changes come
		}
	})
	for who, client := range clientsOf(t, tcp, udp) {
		version, at, _ := strings.Cut(who, " ")
		for i := range 6 {
			asking.Go(func() {
				began := time.Now()
				if i%2 == 0 {
					if _, body, err := ask3(t, client, at, "/", "a"); err != nil || body != large || time.Since(began) < 150*time.Millisecond {
						t.Errorf("%s: %d bytes of %d in %v: %v", version, len(body), len(large), time.Since(began), err)
					}
					return
				}
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at+"/", http.NoBody)
				r.Host = "a"
				if response, err := client.Do(r); err == nil {
					_, _ = io.ReadFull(response.Body, make([]byte, 20<<10))
					cancel()
					_ = response.Body.Close()
				}
			})
		}
	}
	asking.Wait()
	cancel()
	changing.Wait()
	until(t, "nothing is in use", func() bool { return busyFor(server) == 0 })
}
