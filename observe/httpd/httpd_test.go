package httpd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func server() *Server {
	text := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
	}
	return &Server{
		Health: func() error { return nil }, Ready: func() (string, bool) { return "ok  a\nok  b\n", true },
		Metrics: text("metrics"), Debug: map[string]http.HandlerFunc{"snapshot": text("snapshot")},
		Log: slog.New(slog.DiscardHandler),
	}
}

func get(s *Server, path, from string) (int, string) {
	request := httptest.NewRequest(http.MethodGet, path, nil)
	request.RemoteAddr = from
	answer := httptest.NewRecorder()
	s.Mux().ServeHTTP(answer, request)
	return answer.Code, answer.Body.String()
}

func TestServer(t *testing.T) {
	const here, there = "127.0.0.1:5", "192.0.2.1:5"
	well, ill := server(), server()
	ill.Health = func() error { return errors.New("hangs") }
	ill.Ready = func() (string, bool) { return "waiting  a\n", false }
	for _, test := range []struct {
		s          *Server
		path, from string
		code       int
		text       string
	}{
		{well, "/healthz", there, 200, "ok\n"},
		{well, "/readyz", there, 200, "ok\n"},
		{well, "/readyz?verbose", there, 200, "ok  a\nok  b\n"},
		{ill, "/healthz", there, 503, "hangs\n"},
		{ill, "/readyz", there, 503, "waiting  a\n"},
		{well, "/metrics", there, 200, "metrics"},
		{well, "/debug/snapshot", here, 200, "snapshot"},
		{well, "/debug/snapshot", "[::1]:5", 200, "snapshot"},
		{well, "/debug/snapshot", "[::ffff:127.0.0.1]:5", 200, "snapshot"},
		{well, "/debug/snapshot", there, 403, "only from this machine"},
		{well, "/debug/pprof/heap?debug=1", there, 403, "only from this machine"},
		{well, "/debug/pprof/heap?debug=1", here, 200, "heap profile"},
		{well, "/debug/pprof/cmdline", there, 403, ""},
	} {
		if code, text := get(test.s, test.path, test.from); code != test.code || !strings.Contains(text, test.text) {
			t.Errorf("%s from %s: %d %.100s, want %d %s", test.path, test.from, code, text, test.code, test.text)
		}
	}
}

// TestListens: it waits for a port that another process has, serves only the
// metrics where others may ask, and ends with its context.
func TestListens(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	s := server()
	s.retry = time.Millisecond
	s.Address, s.MetricsAddress = taken.Addr().String(), free.Addr().String()
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { ended <- s.Run(ctx) }()
	until := time.Now().Add(10 * time.Second)
	ask := func(address, path string, want int) {
		for {
			answer, err := http.Get("http://" + address + path)
			if err == nil {
				answer.Body.Close()
				if answer.StatusCode != want {
					t.Errorf("%s: %s, want %d", path, answer.Status, want)
				}
				break
			}
			if time.Now().After(until) {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
	}
	ask(s.MetricsAddress, "/metrics", http.StatusOK)
	ask(s.MetricsAddress, "/healthz", http.StatusNotFound)
	ask(s.MetricsAddress, "/debug/snapshot", http.StatusNotFound)
	taken.Close()
	ask(s.Address, "/healthz", http.StatusOK)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
