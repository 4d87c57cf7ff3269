package main

import (
	"slices"
	"sync"
	"time"
)

// effect is what a fault may cost, and what a check stands on.
type effect uint8

const (
	links    effect = 1 << iota // whatever passes the node's link, or its pods
	tunnels                     // what passes a tunnel of the node
	services                    // requests to Services from or through the node
	agents                      // the agent of the node, and what waits for it
	api                         // the API server, and what stands on it
	statuses                    // what the API server has of pods on the node
)

// window is a time in which a fault may cost something. Outside of all windows
// nothing may be lost.
type window struct {
	what    string
	nodes   []string // nil: all
	effects effect
	from    time.Time
	until   time.Time // zero: it is open
}

// windows are all that were announced. They may be used concurrently.
type windows struct {
	mu  sync.Mutex // guards all
	all []*window
}

// open announces that something may break from now on. The caller closes it.
func (w *windows) open(now time.Time, what string, effects effect, nodes ...string) *window {
	w.mu.Lock()
	defer w.mu.Unlock()
	opened := &window{what: what, nodes: nodes, effects: effects, from: now}
	w.all = append(w.all, opened)
	return opened
}

// close ends a window at a time, which may be to come: until then is mended what
// was broken.
func (w *windows) close(closed *window, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	closed.until = at
}

// excuse returns what may be the reason that something which needs these effects
// on these nodes (nil: on all) failed between two times; "" if nothing is.
func (w *windows) excuse(needs effect, nodes []string, from, until time.Time) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range slices.Backward(w.all) {
		if one.effects&needs == 0 || one.from.After(until) || (!one.until.IsZero() && one.until.Before(from)) {
			continue
		}
		if one.nodes == nil || nodes == nil || slices.ContainsFunc(nodes, func(n string) bool { return slices.Contains(one.nodes, n) }) {
			return one.what
		}
	}
	return ""
}

// busy remembers when this machine could not do its work: its packet queues were
// full, or this program was kept from running. Nobody is blamed for what was lost
// then. It may be used concurrently.
type busy struct {
	mu    sync.Mutex // guards times
	times []time.Time
}

// busyMargin is how far a loss may be from such a time.
const busyMargin = 2 * time.Second

func (b *busy) note(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.times = append(b.times, at)
}

func (b *busy) around(from, until time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.times, func(at time.Time) bool {
		return at.After(from.Add(-busyMargin)) && at.Before(until.Add(busyMargin))
	})
}

func (b *busy) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.times)
}

// complaint is something that should not be so, as it is now.
type complaint struct {
	key   string // of the same complaint later
	text  string
	after time.Duration // how long it may be so, outside of windows
	needs effect        // it is excused while one of these is
	nodes []string
}

// complaints remembers how long something has been so, windows not counted. It is
// for one caller.
type complaints struct {
	last   time.Time // of the look before
	lasted map[string]time.Duration
	told   map[string]bool
}

func newComplaints() *complaints {
	return &complaints{lasted: map[string]time.Duration{}, told: map[string]bool{}}
}

// judge takes all complaints of one look, and returns those that have lasted for
// too long, each once. The time in which one is excused does not count.
func (c *complaints) judge(now time.Time, found []complaint, excused func(complaint) bool) (broken []complaint) {
	seen := map[string]bool{}
	for _, one := range found {
		lasted, known := c.lasted[one.key]
		if seen[one.key] {
			continue // told in two ways
		}
		seen[one.key] = true
		if known && !excused(one) {
			lasted += now.Sub(c.last)
		}
		c.lasted[one.key] = lasted
		if lasted >= one.after && !c.told[one.key] && !excused(one) {
			c.told[one.key] = true
			broken = append(broken, one)
		}
	}
	for key := range c.lasted {
		if !seen[key] {
			delete(c.lasted, key)
			delete(c.told, key)
		}
	}
	c.last = now
	return broken
}
