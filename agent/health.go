package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// health answers the kubelet's probes, and whoever debugs the agent.
type health struct {
	address string // host:port; empty: none
	checks  checks
	loop    *loop
	feed    *model.Feed
	metrics *metrics
	log     *slog.Logger
}

// stuckAfter is when a single apply is taken to hang; the longest that was
// seen, with 250,000 elements, takes seconds.
const stuckAfter = 2 * time.Minute

// Run listens again and again if it cannot, because another process has the
// port, perhaps: the network does not depend on it.
func (h *health) Run(ctx context.Context) error {
	if h.address == "" {
		return nil
	}
	again := backoff{first: time.Second, most: time.Minute}
	for {
		err := h.serve(ctx)
		if ctx.Err() != nil {
			return nil
		}
		h.log.Error("health checks are not answered, trying again (--health-address)", "error", err)
		if !pause(ctx, again.next()) {
			return nil
		}
	}
}

func (h *health) serve(ctx context.Context) error {
	listener, err := net.Listen("tcp", h.address)
	if err != nil {
		return fmt.Errorf("listen for health checks: %w", err)
	}
	server := &http.Server{Handler: h.mux(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	return fmt.Errorf("serve health checks: %w", server.Serve(listener))
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
	mux.Handle("GET /metrics", h.metrics.handler())
	mux.HandleFunc("GET /debug/snapshot", h.snapshot)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// snapshot is what fairlead plan --snapshot reads.
func (h *health) snapshot(w http.ResponseWriter, _ *http.Request) {
	latest, _ := h.feed.Latest()
	w.Header().Set("Content-Type", "application/yaml")
	if err := kube.WriteSnapshot(w, latest); err != nil {
		h.log.Warn("the snapshot was not sent whole", "error", err)
	}
}
