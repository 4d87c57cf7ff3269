package routing

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// acts count how often each request came to a backend, over all of its endpoints,
// and has it do what X-Try says for that time.
type acts struct {
	mu   sync.Mutex
	seen map[string]int
}

// play does what is wanted, and tells whether that was all.
func (a *acts) play(w http.ResponseWriter, r *http.Request) (done bool) {
	wanted := strings.Fields(r.Header.Get("X-Try"))
	if len(wanted) == 0 {
		return false
	}
	a.mu.Lock()
	if a.seen == nil {
		a.seen = map[string]int{}
	}
	key := r.Host + r.RequestURI
	n := a.seen[key]
	a.seen[key]++
	a.mu.Unlock()
	w.Header().Set("Seen-Try", strconv.Itoa(n+1))
	switch act := wanted[min(n, len(wanted)-1)]; act {
	case "close", "junk":
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil && act == "junk" {
			_, err = conn.Write([]byte("HELO example.org\r\n\r\n"))
		}
		if err == nil {
			_ = conn.Close()
		}
		return true
	case "silent":
		<-r.Context().Done()
		return true
	default:
		status, _ := strconv.Atoi(act)
		w.WriteHeader(status)
		return false
	}
}

// closedPort is an address of loopback that nobody listens at.
func closedPort() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:1"
	}
	defer listener.Close()
	return listener.Addr().String()
}

// mirror is who is sent copies, and tells of them.
func mirror(t *testing.T) (copies chan string, at string) {
	copies = make(chan string, 16)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		host := r.Host
		if host == r.Context().Value(http.LocalAddrContextKey).(net.Addr).String() {
			host = "MIRROR"
		}
		copies <- strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", r.Method, host, r.RequestURI, r.Header.Get("X-Mine"), body))
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(server.Close)
	return copies, server.Listener.Addr().String()
}
