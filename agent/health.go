package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// health answers the kubelet's probes, and whoever debugs the agent.
type health struct {
	address string // host:port; empty: none
	checks  checks
	loop    *loop
}

// stuckAfter is when a single apply is taken to hang; the longest that was
// seen, with 250,000 elements, takes seconds.
const stuckAfter = 2 * time.Minute

func (h *health) Run(ctx context.Context) error {
	if h.address == "" {
		return nil
	}
	listener, err := net.Listen("tcp", h.address)
	if err != nil {
		return fmt.Errorf("listen for health checks (--health-address): %w", err)
	}
	server := &http.Server{Handler: h.mux(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health checks: %w", err)
	}
	return nil
}

func (h *health) mux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if stuck := h.loop.stuck(); stuck > stuckAfter {
			http.Error(w, fmt.Sprintf("an apply hangs since %v", stuck.Round(time.Second)), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		text, ready := h.checks.report()
		if result, _ := h.loop.outcome.get(); result.err != nil {
			text, ready = text+"failing  kernel: "+result.err.Error()+"\n", false
		}
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprint(w, text)
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
