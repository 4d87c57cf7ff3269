// Package httpd serves what probes, Prometheus and people ask a process of
// Fairlead: whether it lives and is ready, its metrics, and what it is made of.
// It measures nothing itself. A Server is run once; what it is given has to be
// safe for concurrent use.
package httpd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"sync"
	"time"
)

// Server answers by HTTP. At Address it serves
//
//	/healthz  200, or 503 and why the process should be started again
//	/readyz   200, or 503 and what is missing; with ?verbose each check has a line
//	/metrics  in the formats of Prometheus
//	/debug/   what Debug has, and Go's pprof; to this machine alone
//
// and at MetricsAddress only the metrics. The process does not depend on it:
// where it cannot listen, it tries again until its context ends.
type Server struct {
	Address        string // host:port; empty: not at all
	MetricsAddress string // host:port; empty: not at all
	Health         func() error
	Ready          func() (text string, ready bool) // a line for each check
	Metrics        http.Handler
	Debug          map[string]http.HandlerFunc // by path below /debug/
	Log            *slog.Logger

	retry time.Duration // pause before it listens again; 0: retryTime
}

const retryTime = time.Second

// Run serves until the context ends, and then returns nil.
func (s *Server) Run(ctx context.Context) error {
	metrics := http.NewServeMux()
	metrics.Handle("GET /metrics", s.Metrics)
	var serving sync.WaitGroup
	for address, mux := range map[string]http.Handler{s.Address: s.Mux(), s.MetricsAddress: metrics} {
		if address != "" {
			serving.Go(func() { s.keep(ctx, address, mux) })
		}
	}
	serving.Wait()
	return nil
}

func (s *Server) keep(ctx context.Context, address string, mux http.Handler) {
	Keep(ctx, address, mux, cmp.Or(s.retry, retryTime), func(err error) {
		s.Log.Error("probes and metrics are not answered, trying again (--health-address, --metrics-address)", "error", err)
	})
}

// Keep serves at an address until the context ends. Where it cannot, it calls
// failed, once for each reason, and tries again after a pause.
func Keep(ctx context.Context, address string, handler http.Handler, pause time.Duration, failed func(error)) {
	said := ""
	for {
		err := serve(ctx, address, handler)
		if ctx.Err() != nil {
			return
		}
		if err.Error() != said {
			said = err.Error()
			failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func serve(ctx context.Context, address string, mux http.Handler) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	server := &http.Server{
		Handler: mux, ReadTimeout: 10 * time.Second, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // of clients that are at fault
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	return fmt.Errorf("serve on %s: %w", address, server.Serve(listener))
}

// Mux returns what is served at Address.
func (s *Server) Mux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Health(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", s.Metrics)
	debug := http.NewServeMux()
	for path, handle := range s.Debug {
		debug.HandleFunc("GET /debug/"+path, handle)
	}
	debug.HandleFunc("GET /debug/pprof/", pprof.Index)
	debug.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	debug.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	debug.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("GET /debug/", local(debug))
	return mux
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	text, ready := s.Ready()
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	} else if !r.URL.Query().Has("verbose") {
		text = "ok\n"
	}
	_, _ = io.WriteString(w, text)
}

// local answers this machine alone, whatever address is listened on: a profile
// has what is in the memory of a process.
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := isLocal(r); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLocal(r *http.Request) error {
	client, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !client.Addr().Unmap().IsLoopback() {
		return errors.New("only from this machine, at a loopback address")
	}
	return nil
}
