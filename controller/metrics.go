package controller

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/observe/httpd"
	"github.com/fairlead-net/fairlead/observe/metric"
)

// state is what the controller does, for those who look on. Its methods may be
// called concurrently. docs/observe.md has a table of its metrics.
type state struct {
	registry      *prometheus.Registry
	summaries     *prometheus.HistogramVec
	events        *prometheus.CounterVec
	lastPublished prometheus.Gauge

	mu      sync.Mutex // guards what is below
	leading bool
	looked  time.Time // when the loop last began to look at the cluster; zero while it does not lead
	known   bool      // all that it sums up has been read
	latest  summary
	watches func() []kube.WatchState // nil while it does not lead
}

// The values of the label result.
const (
	succeeded = "succeeded"
	failed    = "failed"
)

func newState(version string) *state {
	s := &state{
		registry: prometheus.NewRegistry(),
		summaries: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "fairlead_summary_duration_seconds",
			Help:    "Time of summing up the cluster and publishing the status of the Network.",
			Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30},
		}, []string{"result"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fairlead_events_total", Help: "Events that the controller wrote, or could not write.",
		}, []string{"result"}),
		lastPublished: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fairlead_summary_last_success_timestamp_seconds",
			Help: "When the status of the Network was last as the cluster is, as Unix time; 0: not yet by this process.",
		}),
	}
	for _, result := range []string{succeeded, failed} {
		s.summaries.WithLabelValues(result)
		s.events.WithLabelValues(result)
	}
	s.registry.MustRegister(s.summaries, s.events, s.lastPublished, metric.Build(version),
		metric.Read([]metric.Reading{
			{Name: "fairlead_controller_leading", Help: "1 if this controller is the leader, else 0. The others have no metrics of the cluster."},
			{Name: "fairlead_cluster_nodes", Help: "Nodes of the cluster, by whether their network is ready, or they have no agent, as their labels say.", Labels: []string{"state"}},
			{Name: "fairlead_cluster_problems", Help: "Problems of the cluster and of all its nodes, each once, by their reason.", Labels: []string{"reason"}},
		}, s.read),
		metric.Watches(s.watchStates),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return s
}

func (s *state) read(emit metric.Emit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	emit("fairlead_controller_leading", metric.Bool(s.leading))
	if !s.leading || !s.known {
		return nil
	}
	emit("fairlead_cluster_nodes", float64(s.latest.ready), "ready")
	emit("fairlead_cluster_nodes", float64(s.latest.total-s.latest.without-s.latest.ready), "notready")
	emit("fairlead_cluster_nodes", float64(s.latest.without), "noagent")
	reasons := map[string]int{}
	for _, problem := range s.latest.problems {
		reasons[problem.Reason]++
	}
	for reason, count := range reasons {
		emit("fairlead_cluster_problems", float64(count), reason)
	}
	return nil
}

func (s *state) watchStates() []kube.WatchState {
	s.mu.Lock()
	watches := s.watches
	s.mu.Unlock()
	if watches == nil {
		return nil
	}
	return watches()
}

// lead notes that this controller leads from now on, or no more.
func (s *state) lead(watches func() []kube.WatchState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leading, s.watches, s.looked, s.known = watches != nil, watches, time.Time{}, false
}

// look notes that the loop goes on.
func (s *state) look(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = now
}

// published notes a summary and what came of publishing it.
func (s *state) published(latest summary, err error, took time.Duration) {
	s.mu.Lock()
	s.latest, s.known = latest, true
	s.mu.Unlock()
	if err != nil {
		s.summaries.WithLabelValues(failed).Observe(took.Seconds())
		return
	}
	s.summaries.WithLabelValues(succeeded).Observe(took.Seconds())
	s.lastPublished.SetToCurrentTime()
}

// stuckAfter is when the loop, which looks at the cluster twice a minute, is
// taken to hang.
const stuckAfter = 5 * time.Minute

func (s *state) alive(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stuck := now.Sub(s.looked); s.leading && !s.looked.IsZero() && stuck > stuckAfter {
		return fmt.Errorf("the loop hangs since %v", stuck.Round(time.Second))
	}
	return nil
}

// ready has a line for each check. A controller that waits to lead is ready.
func (s *state) ready() (text string, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.leading:
		return "ok       leadership: another controller leads, or none yet\n", true
	case !s.known:
		return "ok       leadership\nwaiting  apiserver: the nodes, the Network and what the agents report have not been read yet\n", false
	}
	return "ok       leadership\nok       apiserver\n", true
}

func (s *state) server(o *Options) *httpd.Server {
	return &httpd.Server{
		Address: o.HealthAddress, MetricsAddress: o.MetricsAddress,
		Health: func() error { return s.alive(time.Now()) }, Ready: s.ready,
		Metrics: http.Handler(promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, Registry: s.registry})),
		Log:     o.Log,
	}
}
