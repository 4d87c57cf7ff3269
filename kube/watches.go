package kube

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// WatchState is how the watch of one kind of object does.
type WatchState struct {
	Kind     string    // such as Node
	Up       bool      // the last request was met
	Failures uint64    // requests that were not
	Events   uint64    // objects and bookmarks that came
	Last     time.Time // when the last one did; API servers send a bookmark about each minute. Zero: none
}

// watchStates are those of a source. The zero value is ready, and safe for
// concurrent use.
type watchStates struct {
	mu     sync.Mutex
	states map[string]*WatchState
}

// change makes a change of the state of a kind.
func (w *watchStates) change(kind string, change func(*WatchState)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.states == nil {
		w.states = map[string]*WatchState{}
	}
	if w.states[kind] == nil {
		w.states[kind] = &WatchState{Kind: kind}
	}
	change(w.states[kind])
}

// asked notes the outcome of a request.
func (w *watchStates) asked(kind string, err error) {
	w.change(kind, func(s *WatchState) {
		if s.Up = err == nil; !s.Up {
			s.Failures++
		}
	})
}

// all returns them, sorted.
func (w *watchStates) all() []WatchState {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]WatchState, 0, len(w.states))
	for _, state := range w.states {
		all = append(all, *state)
	}
	slices.SortFunc(all, func(a, b WatchState) int { return cmp.Compare(a.Kind, b.Kind) })
	return all
}

// UpdateResourceVersion implements cache.ResourceVersionUpdater: the reflector
// calls it for each object and each bookmark that a watch brings.
func (s *store[K, V]) UpdateResourceVersion(string) {
	s.problems.watches.change(s.kind, func(state *WatchState) {
		state.Events++
		state.Last = time.Now()
	})
}

// Watches returns how the watches of the source do, sorted.
func (s *Source) Watches() []WatchState { return s.problems.watches.all() }

// Watches is like Source's.
func (r *Reports) Watches() []WatchState { return r.problems.watches.all() }
