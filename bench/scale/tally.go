package main

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// tally counts by kind and second. The zero value is ready.
type tally struct {
	mu     sync.Mutex
	counts map[string]map[int64]int // by Unix second
}

func (t *tally) count(kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]map[int64]int{}
	}
	if t.counts[kind] == nil {
		t.counts[kind] = map[int64]int{}
	}
	t.counts[kind][time.Now().Unix()]++
}

// rate is how often something happened.
type rate struct {
	Total int
	Peak  int // the most in one second
}

// reset forgets what was counted.
func (t *tally) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts = nil
}

// of is the rate of all kinds together that begin so.
func (t *tally) of(prefixes ...string) (r rate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sums := map[int64]int{}
	for kind, seconds := range t.counts {
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(kind, prefix) }) {
			for second, n := range seconds {
				sums[second] += n
				r.Total += n
			}
		}
	}
	for _, n := range sums {
		r.Peak = max(r.Peak, n)
	}
	return r
}
