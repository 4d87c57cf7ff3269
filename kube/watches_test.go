package kube

import (
	"fmt"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// TestWatches: who looks at the watches sees that they are up, that something
// came, and requests that failed.
func TestWatches(t *testing.T) {
	api := newStub(t)
	source := api.client(Options{}).NodeSource()
	feed := &model.Feed{}
	done := make(chan error, 1)
	go func() { done <- source.Run(t.Context(), feed) }()
	<-source.Synced()
	state := func() WatchState {
		for _, state := range source.Watches() {
			if state.Kind == "Node" {
				return state
			}
		}
		return WatchState{}
	}
	before := state()
	if !before.Up || before.Failures != 0 || time.Since(before.Last) > time.Minute {
		t.Errorf("once it is synced: %+v", before)
	}
	api.put(nodesPath, stubNode("a", `"spec": {}`))
	until(t, feed, "the node", func(s *model.Snapshot) bool { return s.Nodes.Len() == 1 })
	seen := func(what string, is func(WatchState) bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !is(state()); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s is not seen: %+v", what, state())
			}
		}
	}
	seen("the event", func(s WatchState) bool { return s.Events > before.Events && s.Last.After(before.Last) })
	api.mu.Lock()
	api.missing[nodesPath] = true
	api.mu.Unlock()
	api.server.CloseClientConnections()
	seen("the failure", func(s WatchState) bool { return !s.Up && s.Failures > 0 })
}

// TestReports: what agents say of their nodes arrives, at the start and later.
func TestReports(t *testing.T) {
	api := newStub(t)
	object := func(name string, pods int) string {
		return fmt.Sprintf(`{"kind": "NodeNetwork", "apiVersion": "fairlead.io/v1alpha1", "metadata": {"name": %q}, "status": {"pods": %d}}`, name, pods)
	}
	api.put(nodeNetworksPath, object("a", 1))
	reports := api.client(Options{}).Reports()
	go func() { _ = reports.Run(t.Context()) }()
	<-reports.Synced()
	all, changed := reports.Latest()
	if a, ok := all.Get("a"); !ok || a.Status.Pods != 1 {
		t.Fatalf("at the start: %+v", a)
	}
	api.put(nodeNetworksPath, object("a", 2))
	<-changed
	all, _ = reports.Latest()
	if a, _ := all.Get("a"); a.Status.Pods != 2 {
		t.Errorf("later: %+v", a)
	}
	if states := reports.Watches(); len(states) != 1 || states[0].Kind != "NodeNetwork" || !states[0].Up {
		t.Errorf("watches: %+v", states)
	}
}
