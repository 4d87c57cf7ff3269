package agent

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what the agent counts, for Prometheus.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "fairlead_cni_duration_seconds",
			Help:    "Time that the agent took for a request of the CNI plugin, by command and whether it was met.",
			Buckets: []float64{.0005, .001, .002, .003, .004, .006, .008, .012, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30},
		}, []string{"command", "result"}),
	}
	m.registry.MustRegister(m.requests, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// answered counts a request. A command that is none of CNI's counts as unknown:
// each label costs memory for ever.
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

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
