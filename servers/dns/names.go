package dns

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/plan/dns"
)

// NameCount is how often a name was asked for, at least; of many queries in a
// second, about.
type NameCount struct {
	Name  dns.Name
	Type  string
	Count uint64
}

// WatchNames counts names that are asked for from now on, until stop is called,
// which returns those that were asked for most, in no order. It costs as much
// whatever is asked: of many queries in a second only a part is looked at, and as
// many names are kept as are worth telling. If others watch already, it may count
// nothing.
func (s *Server) WatchNames() (stop func() []NameCount) {
	n := &names{counts: map[nameKey]*nameCount{}}
	if !s.watched.add(n) {
		return func() []NameCount { return nil }
	}
	return func() (all []NameCount) {
		s.watched.remove(n)
		n.mu.Lock()
		defer n.mu.Unlock()
		for key, c := range n.counts {
			if c.inherited <= c.count/2 { // else it is a name like many
				all = append(all, NameCount{key.name, typeText(key.kind), c.count - c.inherited})
			}
		}
		return all
	}
}

// Bounds of what is counted.
const (
	maxWatching = 4
	maxNames    = 256
	wholeEach   = 1000 // queries in a second of which all are counted
	partAfter   = 16   // after those, one in so many is
)

// names are those that were asked for most (Space-Saving: Metwally, Agrawal and El
// Abbadi, 2005). A name that is not among them takes the place of the one with the
// lowest count, and goes on from that, so that what is asked for often is among
// them in the end.
type names struct {
	mu     sync.Mutex
	second int64
	seen   int // in this second
	counts map[nameKey]*nameCount
}

type nameKey struct {
	name dns.Name
	kind uint16
}

// nameCount is changed in place: to assign to the map would replace the key as
// well, by one that does not last.
type nameCount struct{ count, inherited uint64 }

func (n *names) add(name dns.Name, kind uint16, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if second := now.Unix(); second != n.second {
		n.second, n.seen = second, 0
	}
	n.seen++
	weight := uint64(1)
	if n.seen > wholeEach {
		if n.seen%partAfter != 0 {
			return
		}
		weight = partAfter
	}
	key := nameKey{name, kind}
	if c := n.counts[key]; c != nil {
		c.count += weight
		return
	}
	key.name = cloneName(name)
	if len(n.counts) < maxNames {
		n.counts[key] = &nameCount{count: weight}
		return
	}
	var least nameKey
	var c *nameCount
	for k, other := range n.counts {
		if c == nil || other.count < c.count {
			least, c = k, other
		}
	}
	delete(n.counts, least)
	c.inherited = c.count
	c.count += weight
	n.counts[key] = c
}

// watched are who counts names now: mostly nobody, which costs a load.
type watched struct {
	mu  sync.Mutex
	all atomic.Pointer[[]*names]
}

func (w *watched) add(n *names) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	var now []*names
	if before := w.all.Load(); before != nil {
		now = slices.Clone(*before)
	}
	if len(now) >= maxWatching {
		return false
	}
	now = append(now, n)
	w.all.Store(&now)
	return true
}

func (w *watched) remove(n *names) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := slices.DeleteFunc(slices.Clone(*w.all.Load()), func(other *names) bool { return other == n })
	if len(now) == 0 {
		w.all.Store(nil)
		return
	}
	w.all.Store(&now)
}

// see counts the name of the query that was answered last.
func (w *watched) see(a *answering, now time.Time) {
	all := w.all.Load()
	if all == nil || a.q.length == 0 {
		return
	}
	for _, n := range *all {
		n.add(a.q.name(), a.q.kind, now)
	}
}
