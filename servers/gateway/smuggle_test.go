package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// FuzzSmuggling: the bytes of a connection are the same requests to this server as
// to nginx or to net/http. What it reads and neither of the two does, somebody
// before or behind it may take for something else.
//
//	go test ./servers/gateway -run '^$' -fuzz FuzzSmuggling -parallel 1
//
// All three run in this process or below it, on loopback, with a backend each that
// says which requests have reached it whole. Where this server stops earlier than the
// others, it is stricter, which is well.
func FuzzSmuggling(f *testing.F) {
	program, err := exec.LookPath("nginx")
	if err != nil {
		f.Skip("nginx is missing: apt-get install nginx-light")
	}
	for _, text := range smuggled {
		f.Add([]byte(text))
	}
	ours, nginx, std := newGateway(f), newNginx(f, program), newStandard(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, word := range []string{"CONNECT", "TRACE", "PRI", " * "} { // which are not for backends
			if bytes.Contains(text, []byte(word)) {
				return
			}
		}
		if len(text) > 16<<10 {
			return
		}
		var read []string
		var others [][]string
		for range 3 { // a request of the connection before may have come late
			if read = ours.read(text); len(read) == 0 {
				return
			}
			others = [][]string{std.read(text), nginx.read(text)}
			for _, other := range others {
				if other == nil || len(other) >= len(read) && slices.Equal(other[:len(read)], read) {
					return
				}
			}
		}
		t.Fatalf("%q:\nthis server reads %q\nnet/http         %q\nnginx            %q", text, read, others[0], others[1])
	})
}

// smuggled are what has led others astray.
var smuggled = []string{
	get, get + get, usual,
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\nContent-Length: 37\r\n\r\n" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;\nhello\r\n0\r\n\r\n" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 3\r\nHost: b\r\n\r\n" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n" + get,
	"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + get,
	"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get,
	"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx" + get,
	"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + get,
	"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n" + get,
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + get,
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close , y\r\n\r\n" + get,
	"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + get,
	"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello" + get,
	"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c: d\r\n\r\n" + get,
	"GET / HTTP/1.1\r\nHost: a\r\nA\x00: b\r\n\r\n" + get,
	"GET / HTTP/1.1\r\nHost: a\r\nA: b\rC: d\r\n\r\n" + get,
	"GET / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n" + get,
	"GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n" + get,
	"\r\n\r\n" + get, "get / HTTP/1.1\r\nHost: a\r\n\r\n" + get, "GET /\r\n\r\n" + get,
	"OPTIONS /a?b#c HTTP/1.1\r\nHost: A:80\r\n\r\n\r\n" + get,
}

// reader is a server of which can be told which requests it reads.
type reader struct {
	dial func() (net.Conn, error)

	mu   sync.Mutex
	turn int // which connection it is
	seen []string
}

// read returns the requests in some bytes: the method and the body of each. It is
// nil if that took too long to tell.
func (r *reader) read(text []byte) []string {
	conn, err := r.dial()
	if err != nil {
		return nil
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = conn.Write(text) // of which not all may be read
	_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	if _, err := io.Copy(io.Discard, conn); os.IsTimeout(err) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	r.turn, r.seen = r.turn+1, nil
	return append([]string{}, seen...)
}

// ServeHTTP takes note of a request that has come whole.
func (r *reader) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	turn := r.turn
	r.mu.Unlock()
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	what := string(body)
	if len(what) > 100 {
		what = fmt.Sprintf("%d bytes %x", len(body), sha256.Sum256(body))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.turn == turn {
		r.seen = append(r.seen, request.Method+" "+what)
	}
}

// serves has requests to a listener end at the reader.
func (r *reader) serves(f *testing.F, listener net.Listener) {
	server := &http.Server{Handler: r, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(listener) }()
	f.Cleanup(func() { _ = server.Close() })
}

// socket is the path of one in a folder of its own, and who listens there.
func socket(f *testing.F) (string, net.Listener) {
	path := filepath.Join(f.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		f.Fatal(err)
	}
	return path, listener
}

// newStandard is net/http.
func newStandard(f *testing.F) *reader {
	path, listener := socket(f)
	r := &reader{dial: func() (net.Conn, error) { return net.Dial("unix", path) }}
	r.serves(f, listener)
	return r
}

// all is a Router of one route.
type all struct {
	route   Route
	backend Backend
}

func (a *all) Route(*Request) (*Route, *Backend) { return &a.route, &a.backend }

// newGateway is this server. Each connection comes from another address, so that
// ports do not run out.
func newGateway(f *testing.F) *reader {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	s := New(Settings{Drain: time.Second, DrainIdle: time.Millisecond}, slog.New(slog.DiscardHandler))
	s.Serve(&Table{Router: &all{backend: Backend{Endpoints: []netip.AddrPort{netip.MustParseAddrPort(listener.Addr().String())}}}})
	s.Listen([]Listener{{At: netip.MustParseAddrPort("127.0.0.1:0")}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		<-ended
	})
	r := &reader{dial: func() (net.Conn, error) {
		from := &net.TCPAddr{IP: net.IPv4(127, byte(rand.IntN(255)), byte(rand.IntN(255)), byte(1+rand.IntN(250)))}
		return (&net.Dialer{LocalAddr: from}).Dial("tcp", s.Listening()[0].At.String())
	}}
	r.serves(f, listener)
	for len(s.Listening()) == 0 {
		time.Sleep(time.Millisecond)
	}
	return r
}

// newNginx is nginx, as a child.
func newNginx(f *testing.F, program string) *reader {
	backend, listener := socket(f)
	dir := f.TempDir()
	at := filepath.Join(dir, "socket")
	config := fmt.Sprintf(`daemon off; master_process off; error_log stderr crit; pid %[1]s/pid;
events { worker_connections 1024; }
http {
  access_log off; client_max_body_size 0; client_header_timeout 4s; client_body_timeout 4s; lingering_timeout 1s;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  large_client_header_buffers 4 32k; underscores_in_headers on; proxy_ignore_client_abort on;
  server { listen unix:%[2]s; location / { proxy_pass http://unix:%[3]s:; } }
}`, dir, at, backend)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		f.Fatal(err)
	}
	command := exec.Command(program, "-c", file, "-p", dir, "-e", "stderr")
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	r := &reader{dial: func() (net.Conn, error) { return net.Dial("unix", at) }}
	r.serves(f, listener)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := r.dial()
		if err == nil {
			_ = conn.Close()
			return r
		}
		if time.Now().After(deadline) {
			f.Fatalf("nginx does not listen: %v", err)
		}
	}
}
