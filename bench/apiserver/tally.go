package apiserver

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Tally counts by kind and second. The zero value is ready.
type Tally struct {
	mu     sync.Mutex
	counts map[string]map[int64]int // by Unix second
}

func (t *Tally) count(kind string) {
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

// Rate is how often something happened.
type Rate struct {
	Total int
	Peak  int // the most in one second
}

func (r Rate) String() string { return fmt.Sprintf("%d, %d/s", r.Total, r.Peak) }

// Reset forgets what was counted.
func (t *Tally) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts = nil
}

// Of is the rate of all kinds together that begin so.
func (t *Tally) Of(prefixes ...string) (r Rate) {
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
