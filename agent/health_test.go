package agent

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// ask asks a health for a path, from this machine.
func ask(h *health, path string) (int, string) {
	request := httptest.NewRequest(http.MethodGet, path, nil)
	request.RemoteAddr = "127.0.0.1:1"
	recorder := httptest.NewRecorder()
	h.server().Mux().ServeHTTP(recorder, request)
	return recorder.Code, recorder.Body.String()
}

// idle is the state of an agent that does nothing.
func idle(feed *model.Feed, checks ...check) *state {
	loop := newLoop(&Config{}, feed)
	return &state{
		node: testNode, version: "test", feed: feed, loop: loop, source: newCluster(), notices: &notices{},
		attacher: &attacher{node: testNode, feed: feed}, checks: checks, metrics: newMetrics(), traffic: &traffic{list: func() ([]link, error) { return nil, nil }},
		drops: newDrops(&Config{Node: testNode}, loop),
	}
}

func TestHealth(t *testing.T) {
	done, waiting := make(chan struct{}), make(chan struct{})
	close(done)
	feed := &model.Feed{}
	change(feed, "a")
	state := idle(feed,
		check{"apiserver", done, nil},
		check{"kernel", waiting, func() string { return "the plan has not been applied yet" }})
	h := &health{state: state, log: slog.New(slog.DiscardHandler)}
	code, text := ask(h, "/readyz")
	if code != http.StatusServiceUnavailable || text != "ok       apiserver\nwaiting  kernel: the plan has not been applied yet\n" {
		t.Errorf("%d %q", code, text)
	}
	_, text = ask(h, "/debug/snapshot")
	if snapshot, err := kube.ReadSnapshot(strings.NewReader(text)); err != nil || snapshot.Nodes.Len() != 1 {
		t.Errorf("%v of %q", err, text)
	}
	_, text = ask(h, "/debug/status")
	var details Details
	if err := json.Unmarshal([]byte(text), &details); err != nil || details.Ready || details.Message != "kernel: the plan has not been applied yet" || len(details.Checks) != 2 {
		t.Errorf("%v of %s", err, text)
	}
	close(waiting)
	if code, text := ask(h, "/readyz"); code != http.StatusOK || text != "ok\n" {
		t.Errorf("%d %q", code, text)
	}
	if code, text := ask(h, "/readyz?verbose"); code != http.StatusOK || text != "ok       apiserver\nok       kernel\n" {
		t.Errorf("%d %q", code, text)
	}
	state.loop.outcome.set(outcome{err: errors.New("broken")})
	if code, text := ask(h, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "broken") {
		t.Errorf("%d %q", code, text)
	}
	if code, text := ask(h, "/healthz"); code != http.StatusOK {
		t.Errorf("%d %q", code, text)
	}
	state.loop.progress.busy = time.Now().Add(-time.Hour)
	if code, text := ask(h, "/healthz"); code != http.StatusServiceUnavailable {
		t.Errorf("%d %q", code, text)
	}
}
