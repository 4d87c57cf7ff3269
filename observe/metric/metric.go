// Package metric makes metrics of what can be read: nothing is remembered
// between two scrapes, so the series of what is gone disappear with it. It holds
// what the agent and the controller have in common, and decides nothing. What it
// returns may be used concurrently, if what it reads may.
package metric

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-net/fairlead/kube"
)

// Reading describes a metric. Its name says the unit, as Prometheus has it.
type Reading struct {
	Name, Help string
	Labels     []string
	Counter    bool // else a gauge
}

// Emit gives the value of one series of a reading, with the values of its
// labels in their order. Each series may be given once.
type Emit func(name string, value float64, labels ...string)

// readings is a prometheus.Collector.
type readings struct {
	descs map[string]*prometheus.Desc
	kinds map[string]prometheus.ValueType
	read  func(Emit) error
}

// Read returns a collector that calls read at each scrape. What read has emitted
// counts although it fails then; its error is Prometheus' to tell of
// (promhttp_metric_handler_errors_total).
func Read(all []Reading, read func(Emit) error) prometheus.Collector {
	r := &readings{descs: map[string]*prometheus.Desc{}, kinds: map[string]prometheus.ValueType{}, read: read}
	for _, reading := range all {
		r.descs[reading.Name] = prometheus.NewDesc(reading.Name, reading.Help, reading.Labels, nil)
		r.kinds[reading.Name] = prometheus.GaugeValue
		if reading.Counter {
			r.kinds[reading.Name] = prometheus.CounterValue
		}
	}
	return r
}

// Describe implements prometheus.Collector.
func (r *readings) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range r.descs {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (r *readings) Collect(to chan<- prometheus.Metric) {
	err := r.read(func(name string, value float64, labels ...string) {
		metric, err := prometheus.NewConstMetric(r.descs[name], r.kinds[name], value, labels...)
		if err != nil {
			metric = prometheus.NewInvalidMetric(r.descs[name], err)
		}
		to <- metric
	})
	if err != nil {
		to <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
	}
}

// Build returns the metric that tells which version runs.
func Build(version string) prometheus.Collector {
	return Read([]Reading{{
		Name: "fairlead_build_info", Help: "1, with the version of the program.", Labels: []string{"version", "go_version"},
	}}, func(emit Emit) error {
		emit("fairlead_build_info", 1, version, runtime.Version())
		return nil
	})
}

// Watches returns the metrics of watches of the API server.
func Watches(states func() []kube.WatchState) prometheus.Collector {
	kind := []string{"kind"}
	return Read([]Reading{
		{"fairlead_watch_up", "1 if the last request to watch objects of a kind was met, else 0.", kind, false},
		{"fairlead_watch_failures_total", "Requests to list or watch objects of a kind that failed.", kind, true},
		{"fairlead_watch_events_total", "Events and bookmarks that a watch has brought, and lists.", kind, true},
		{"fairlead_watch_last_event_timestamp_seconds", "When a watch last brought something, as Unix time; API servers send a bookmark about each minute. 0: not yet.", kind, false},
	}, func(emit Emit) error {
		for _, state := range states() {
			emit("fairlead_watch_up", Bool(state.Up), state.Kind)
			emit("fairlead_watch_failures_total", float64(state.Failures), state.Kind)
			emit("fairlead_watch_events_total", float64(state.Events), state.Kind)
			last := 0.0
			if !state.Last.IsZero() {
				last = float64(state.Last.UnixMilli()) / 1000
			}
			emit("fairlead_watch_last_event_timestamp_seconds", last, state.Kind)
		}
		return nil
	})
}

// Bool is 1 for true and 0 for false.
func Bool(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
