package agent

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/observe/httpd"
)

// health answers the kubelet's probes, Prometheus, and whoever debugs the agent.
// The network does not depend on it.
type health struct {
	address, metricsAddress string // host:port; empty: none
	state                   *state
	log                     *slog.Logger
}

// stuckAfter is when a single apply is taken to hang; the longest that was
// seen, with 250,000 elements, takes seconds.
const stuckAfter = 2 * time.Minute

func (h *health) server() *httpd.Server {
	return &httpd.Server{
		Address: h.address, MetricsAddress: h.metricsAddress,
		Health: h.alive, Ready: h.ready, Metrics: h.state.metrics.handler(),
		Debug: map[string]http.HandlerFunc{"snapshot": h.snapshot, "status": h.status, "drops": h.state.drops.serve},
		Log:   h.log,
	}
}

func (h *health) alive() error {
	if stuck := h.state.loop.stuck(); stuck > stuckAfter {
		return fmt.Errorf("an apply hangs since %v", stuck.Round(time.Second))
	}
	return nil
}

func (h *health) ready() (text string, ready bool) {
	text, ready = h.state.checks.report()
	if result, _ := h.state.loop.outcome.get(); result.err != nil {
		text, ready = text+"failing  kernel: "+result.err.Error()+"\n", false
	}
	return text, ready
}

// snapshot is what fairlead plan --snapshot reads. With ?services= it leaves out
// those that are not asked for, as Snapshot.OfServices has it.
func (h *health) snapshot(w http.ResponseWriter, r *http.Request) {
	latest, _ := h.state.feed.Latest()
	if query := r.URL.Query(); query.Has("services") {
		latest = latest.OfServices(query.Get("services"))
	}
	w.Header().Set("Content-Type", "application/yaml")
	if err := kube.WriteSnapshot(w, latest); err != nil {
		h.log.Warn("the snapshot was not sent whole", "error", err)
	}
}

// status is what fairlead status NODE shows.
func (h *health) status(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(h.state.details(time.Now())); err != nil {
		h.log.Warn("the status was not sent whole", "error", err)
	}
}
