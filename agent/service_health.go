package agent

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/httpd"
	"github.com/fairlead-net/fairlead/servers/servicehealth"
)

// serviceHealth answers what load balancers and monitoring ask a kube-proxy:
// whether this node is one to send clients of Services to, and metrics. The
// network does not depend on it.
type serviceHealth struct {
	address, metricsAddress string // host:port; empty: none
	state                   *state
	checks                  *servicehealth.Server
	log                     *slog.Logger
}

const (
	// lateAfter is for how long a change may wait for the kernel before the node is
	// no place to send new clients to: kube-proxy's healthTimeout.
	lateAfter = time.Minute
	// portRetry is the pause before a port is tried again that a kube-proxy has.
	portRetry = 2 * time.Second
)

func newServiceHealth(c *Config, state *state) *serviceHealth {
	h := &serviceHealth{address: c.ServiceHealthAddress, metricsAddress: c.ServiceMetricsAddress, state: state, log: c.Log}
	h.checks = servicehealth.New(h.current, func(problems ...model.Problem) { state.notices.set("service health", problems...) }, c.Log)
	return h
}

// Run serves until the context ends. Before the first plan is applied it answers
// nobody: a load balancer takes that for a node that does not work yet.
func (h *serviceHealth) Run(ctx context.Context) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	keep := func(address string, handler http.Handler) {
		if address == "" {
			return
		}
		httpd.Keep(ctx, address, handler, portRetry, func(err error) {
			h.log.Info("what kube-proxy serves is not served here, trying again (--service-health-address, --service-metrics-address); a kube-proxy has the port perhaps", "error", err)
		})
	}
	serving.Go(func() { keep(h.metricsAddress, h.metricsMux()) })
	select {
	case <-ctx.Done():
		return nil
	case <-h.state.loop.serving:
	}
	serving.Go(func() { keep(h.address, h.mux()) })
	serving.Go(func() { h.follow(ctx) })
	return h.checks.Run(ctx)
}

// follow tells load balancers of endpoints when the kernel has them.
func (h *serviceHealth) follow(ctx context.Context) {
	for {
		result, changed := h.state.loop.outcome.get()
		if result.unserved == nil && result.plan != nil && result.plan.Service != nil {
			h.checks.Follow(servicehealth.Wanted{Checks: result.plan.Service.HealthChecks, Addresses: result.plan.Service.HealthAddresses})
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// current tells whether the kernel has what the node has heard of Services, or is
// about to: what else cannot be carried out, such as a tunnel, does not count. One
// that lacks what Services are made of has none of them.
func (h *serviceHealth) current() bool {
	result, _ := h.state.loop.outcome.get()
	lacking := func(p model.Problem) bool { return p.Reason == "KernelUnsupported" && p.Field == "nftables" }
	return h.state.loop.served.behind() <= lateAfter && !slices.ContainsFunc(result.refused, lacking)
}

// eligible tells whether the node is to stay. One whose object is gone is not.
func (h *serviceHealth) eligible() bool {
	snapshot, _ := h.state.feed.Latest()
	node, ok := snapshot.Nodes.Get(h.state.node)
	return ok && !node.Leaving
}

func (h *serviceHealth) mux() *http.ServeMux {
	mux := http.NewServeMux()
	counts := h.state.metrics.services
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		eligible := h.eligible()
		h.answer(w, eligible, &eligible, counts.healthz)
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { h.answer(w, true, nil, counts.livez) })
	return mux
}

// proxyHealth is in kube-proxy's words. While all is well, LastUpdated is now.
type proxyHealth struct {
	LastUpdated  time.Time `json:"lastUpdated"`
	CurrentTime  time.Time `json:"currentTime"`
	NodeEligible *bool     `json:"nodeEligible,omitempty"`
	Healthy      bool      `json:"healthy"` // the node apart
}

func (h *serviceHealth) answer(w http.ResponseWriter, eligible bool, said *bool, count *prometheus.CounterVec) {
	health := proxyHealth{LastUpdated: h.state.loop.served.last(), CurrentTime: time.Now(), NodeEligible: said, Healthy: h.current()}
	code := http.StatusServiceUnavailable
	if health.Healthy && eligible {
		code, health.LastUpdated = http.StatusOK, health.CurrentTime
	}
	body, err := json.Marshal(health)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	count.WithLabelValues(strconv.Itoa(code)).Inc()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(body)
}

// metricsMux is what kube-proxy has beside its metrics, as far as others ask for
// it: Kubernetes' own tests do for /proxyMode.
func (h *serviceHealth) metricsMux() *http.ServeMux {
	text := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h.state.metrics.handler())
	mux.HandleFunc("GET /proxyMode", text("nftables"))
	mux.HandleFunc("GET /healthz", text("ok"))
	return mux
}
