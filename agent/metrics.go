package agent

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what the agent counts as it happens, for Prometheus. What can be
// read when somebody asks is not counted here: see state. docs/observe.md has a
// table of all of them. No label has a value that a user chooses freely, but for
// names of interfaces of the node: each value costs memory for ever.
//
// A nil metrics counts nothing.
type metrics struct {
	registry    *prometheus.Registry
	requests    *prometheus.HistogramVec
	applies     *prometheus.HistogramVec
	lastApply   prometheus.Gauge
	repairs     prometheus.Counter
	published   *prometheus.CounterVec
	lastPublish prometheus.Gauge
	messages    *prometheus.CounterVec
	services    *serviceMetrics

	applied atomic.Uint64 // the revision that was applied last without an error
}

// outcomes are the values of the label result.
const (
	succeeded = "succeeded"
	failed    = "failed"
)

func result(err error) string {
	if err != nil {
		return failed
	}
	return succeeded
}

func newMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counters := func(name, help, label string, values ...string) *prometheus.CounterVec {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range values {
			vec.WithLabelValues(value) // so that a rate sees the first one
		}
		return vec
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "fairlead_cni_duration_seconds",
			Help:    "Time that the agent took for a request of the CNI plugin, by command and whether it was met.",
			Buckets: []float64{.0005, .001, .002, .003, .004, .006, .008, .012, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30},
		}, []string{"command", "result"}),
		applies: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "fairlead_apply_duration_seconds",
			Help:    "Time of making the kernel as planned. Changes that come close together are one apply.",
			Buckets: []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10, 30},
		}, []string{"result"}),
		lastApply: gauge("fairlead_apply_last_success_timestamp_seconds", "When the plan was last applied without an error, as Unix time; 0: not yet."),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fairlead_repairs_total", Help: "Applies because somebody else had changed what was applied.",
		}),
		published:   counters("fairlead_status_publications_total", "Attempts to publish the status of the node, which the API server may not have needed.", "result", succeeded, failed),
		lastPublish: gauge("fairlead_status_last_success_timestamp_seconds", "When the API server last had the status of the node as it was, as Unix time; 0: not yet."),
		messages:    counters("fairlead_log_messages_total", "Messages that the agent logged, by level.", "level", "info", "warn", "error"),
		services:    newServiceMetrics(),
	}
	for _, r := range []string{succeeded, failed} {
		m.applies.WithLabelValues(r)
	}
	m.registry.MustRegister(m.requests, m.applies, m.lastApply, m.repairs, m.published, m.lastPublish, m.messages,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(m.services.all()...)
	return m
}

// answered counts a request. A command that is none of CNI's counts as unknown.
func (m *metrics) answered(command string, err error, took time.Duration) {
	switch command {
	case "ADD", "DEL", "CHECK", "GC", "STATUS":
	default:
		command = "unknown"
	}
	result := "met"
	if err != nil {
		result = "refused"
	}
	m.requests.WithLabelValues(command, result).Observe(took.Seconds())
}

// turned counts a turn of the loop, which has ended now.
func (m *metrics) turned(of turn) {
	if m == nil {
		return
	}
	m.applies.WithLabelValues(result(of.err)).Observe(of.took.Seconds())
	if of.err == nil {
		m.applied.Store(of.snapshot.Revision)
		m.lastApply.SetToCurrentTime()
	}
	m.services.turned(of)
}

// disturbed counts a turn that mends what somebody else did.
func (m *metrics) disturbed() {
	if m != nil {
		m.repairs.Inc()
	}
}

// told counts an attempt to publish the status.
func (m *metrics) told(err error) {
	if m == nil {
		return
	}
	m.published.WithLabelValues(result(err)).Inc()
	if err == nil {
		m.lastPublish.SetToCurrentTime()
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		// What can be read is given, although some of it cannot.
		ErrorHandling: promhttp.ContinueOnError, Registry: m.registry,
	})
}
