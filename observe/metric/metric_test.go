package metric

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fairlead-net/fairlead/kube"
)

// scrape returns the series, sorted.
func scrape(t *testing.T, collectors ...prometheus.Collector) (series []string) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collectors...)
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).
		ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(answer.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			series = append(series, strings.TrimSpace(line))
		}
	}
	slices.Sort(series)
	return series
}

// TestGone: a series is there for as long as what it is of.
func TestGone(t *testing.T) {
	devices := map[string]float64{"eth0": 1, "eth1": 2}
	collector := Read([]Reading{{"bytes_total", "Bytes.", []string{"device"}, true}}, func(emit Emit) error {
		for name, value := range devices {
			emit("bytes_total", value, name)
		}
		return nil
	})
	if got := scrape(t, collector); !slices.Equal(got, []string{`bytes_total{device="eth0"} 1`, `bytes_total{device="eth1"} 2`}) {
		t.Errorf("got %q", got)
	}
	delete(devices, "eth0")
	if got := scrape(t, collector); !slices.Equal(got, []string{`bytes_total{device="eth1"} 2`}) {
		t.Errorf("without eth0: %q", got)
	}
}

// TestPart: what could be read is there, and the error is told.
func TestPart(t *testing.T) {
	collector := Read([]Reading{{Name: "a", Help: "A."}}, func(emit Emit) error {
		emit("a", 1)
		return errors.New("no b")
	})
	if got := scrape(t, collector); !slices.Equal(got, []string{"a 1"}) {
		t.Errorf("got %q", got)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector)
	if _, err := registry.Gather(); err == nil || !strings.Contains(err.Error(), "no b") {
		t.Errorf("error %v", err)
	}
}

func TestWatches(t *testing.T) {
	got := scrape(t, Watches(func() []kube.WatchState {
		return []kube.WatchState{{Kind: "Node", Up: true, Failures: 2, Events: 3, Last: time.Unix(1000, 5e8)}, {Kind: "Pod"}}
	}))
	want := []string{
		`fairlead_watch_events_total{kind="Node"} 3`, `fairlead_watch_events_total{kind="Pod"} 0`,
		`fairlead_watch_failures_total{kind="Node"} 2`, `fairlead_watch_failures_total{kind="Pod"} 0`,
		`fairlead_watch_last_event_timestamp_seconds{kind="Node"} 1000.5`, `fairlead_watch_last_event_timestamp_seconds{kind="Pod"} 0`,
		`fairlead_watch_up{kind="Node"} 1`, `fairlead_watch_up{kind="Pod"} 0`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := scrape(t, Build("v1")); len(got) != 1 || !strings.Contains(got[0], `version="v1"`) {
		t.Errorf("build: %q", got)
	}
}
