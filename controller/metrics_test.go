package controller

import (
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

func get(s *state, path string) (int, string) {
	request := httptest.NewRequest(http.MethodGet, path, nil)
	answer := httptest.NewRecorder()
	s.server(&Options{Log: slog.New(slog.DiscardHandler)}).Mux().ServeHTTP(answer, request)
	return answer.Code, answer.Body.String()
}

// TestState: a controller says what it does, and of the cluster only while it
// leads.
func TestState(t *testing.T) {
	s := newState("test")
	if code, text := get(s, "/readyz?verbose"); code != http.StatusOK || !strings.Contains(text, "another controller leads") {
		t.Errorf("while it waits: %d %s", code, text)
	}
	s.lead(func() []kube.WatchState { return []kube.WatchState{{Kind: "Node", Up: true}} })
	if code, text := get(s, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "have not been read yet") {
		t.Errorf("before it has seen the cluster: %d %s", code, text)
	}
	s.look(time.Now())
	s.published(summary{total: 5, ready: 2, without: 2, problems: []model.Problem{{Reason: "A"}, {Reason: "B"}, {Reason: "B"}}}, nil, time.Millisecond)
	if code, text := get(s, "/readyz"); code != http.StatusOK {
		t.Errorf("at work: %d %s", code, text)
	}
	_, text := get(s, "/metrics")
	of := []string{
		`fairlead_cluster_nodes{state="ready"} 2`, `fairlead_cluster_nodes{state="notready"} 1`, `fairlead_cluster_nodes{state="noagent"} 2`,
		`fairlead_cluster_problems{reason="B"} 2`, `fairlead_watch_up{kind="Node"} 1`,
	}
	for _, series := range append(of, "fairlead_controller_leading 1", `fairlead_summary_duration_seconds_count{result="succeeded"} 1`) {
		if !strings.Contains(text, "\n"+series+"\n") {
			t.Errorf("%s is not in the metrics", series)
		}
	}
	s.published(summary{total: 3, ready: 3}, errors.New("refused"), time.Millisecond)
	if _, text := get(s, "/metrics"); strings.Contains(text, "reason=") || !strings.Contains(text, `_count{result="failed"} 1`) {
		t.Error("a problem that is gone has a series, or a failure was not counted")
	}
	s.look(time.Now().Add(-stuckAfter - time.Second))
	if code, text := get(s, "/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "hangs") {
		t.Errorf("when it hangs: %d %s", code, text)
	}
	s.lead(nil)
	if code, _ := get(s, "/healthz"); code != http.StatusOK {
		t.Errorf("who does not lead does not hang: %d", code)
	}
	_, text = get(s, "/metrics")
	for _, series := range of {
		name, _, _ := strings.Cut(series, "{")
		if strings.Contains(text, "\n"+name) {
			t.Errorf("%s is there although it leads no more", name)
		}
	}
}

// TestMetricsAreDocumented is like the agent's.
func TestMetricsAreDocumented(t *testing.T) {
	have := map[string]string{}
	descs := make(chan *prometheus.Desc, 1000)
	newState("test").registry.Describe(descs)
	close(descs)
	pattern := regexp.MustCompile(`fqName: "(fairlead_\w+)".*variableLabels: \{([^}]*)\}`)
	for desc := range descs {
		if match := pattern.FindStringSubmatch(desc.String()); match != nil {
			have[match[1]] = match[2]
		}
	}
	text, err := os.ReadFile("../docs/observe.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `(fairlead_\\w+)` \\| (\\w+) \\| ([^|]*) \\| (controller|both) \\|")
	for _, match := range row.FindAllStringSubmatch(string(text), -1) {
		documented[match[1]] = strings.NewReplacer("`", "", " ", "", "–", "").Replace(match[3])
	}
	if !maps.Equal(have, documented) {
		t.Errorf("the controller has %v,\ndocs/observe.md %v", slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(documented)))
	}
}
