package agent

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-net/fairlead/model"
)

// serviceMetrics are what kube-proxy has, under its names, as far as they mean
// the same here: what watches it goes on. Unlike there, one apply is of both
// families, so there is no label ip_family.
type serviceMetrics struct {
	began time.Time // of the agent

	changes         prometheus.Histogram // all that the agent follows, not Services alone
	syncs           prometheus.Histogram
	lastSync        prometheus.Gauge
	programming     prometheus.Histogram
	serviceChanges  prometheus.Counter
	endpointChanges prometheus.Counter
	healthz, livez  *prometheus.CounterVec
}

func newServiceMetrics() *serviceMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	codes := func(name, help string) *prometheus.CounterVec {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"code"})
		for _, code := range []string{"200", "503"} {
			vec.WithLabelValues(code)
		}
		return vec
	}
	return &serviceMetrics{
		began: time.Now(),
		changes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "fairlead_change_duration_seconds",
			Help:    "Time from when the agent heard of a change until the kernel had it; of changes that are applied together, of the first.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 60},
		}),
		syncs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kubeproxy_sync_proxy_rules_duration_seconds",
			Help:    "Time of making the kernel as planned, for both families together.",
			Buckets: prometheus.ExponentialBuckets(.001, 2, 15),
		}),
		lastSync: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
			Help: "When the plan was last applied without an error, as Unix time; 0: not yet.",
		}),
		programming: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubeproxy_network_programming_duration_seconds",
			Help: "Time from when a pod or a Service changed, by the clock of the controller of EndpointSlices, until the kernel had it.",
			Buckets: slices.Concat([]float64{.25, .5}, prometheus.LinearBuckets(1, 1, 59),
				prometheus.LinearBuckets(60, 5, 12), prometheus.LinearBuckets(120, 30, 7)),
		}),
		serviceChanges:  counter("kubeproxy_sync_proxy_rules_service_changes_total", "Services that came, changed or went, counted once for each apply."),
		endpointChanges: counter("kubeproxy_sync_proxy_rules_endpoint_changes_total", "EndpointSlices that came, changed or went, counted once for each apply."),
		healthz:         codes("kubeproxy_proxy_healthz_total", "Answers to /healthz of the service health address, by their code."),
		livez:           codes("kubeproxy_proxy_livez_total", "Answers to /livez of the service health address, by their code."),
	}
}

func (m *serviceMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.changes, m.syncs, m.lastSync, m.programming, m.serviceChanges, m.endpointChanges, m.healthz, m.livez,
	}
}

// turned counts a turn of the loop, which has ended now.
func (m *serviceMetrics) turned(of turn) {
	m.syncs.Observe(of.took.Seconds())
	if of.err != nil {
		return
	}
	m.lastSync.SetToCurrentTime()
	before := of.before
	if before == nil {
		before = &model.Snapshot{}
	} else if of.waited > 0 { // else it is the agent's start that was waited for
		m.changes.Observe(of.waited.Seconds())
	}
	for range model.Diff(before.Services, of.snapshot.Services) {
		m.serviceChanges.Inc()
	}
	now := time.Now()
	for change := range model.Diff(before.Slices, of.snapshot.Slices) {
		m.endpointChanges.Inc()
		// A slice that goes has the time of its last change, not of its end; what is
		// older than the agent did not wait for it.
		if !change.Has || change.New.Triggered < m.began.UnixNano() {
			continue
		}
		m.programming.Observe(max(0, now.Sub(time.Unix(0, change.New.Triggered)).Seconds()))
	}
}
