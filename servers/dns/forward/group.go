package forward

import (
	"slices"
	"sync/atomic"
	"time"
)

// group is who is asked about a domain.
type group struct {
	zone      string // on the wire, in lower case
	upstreams []*upstream
	ordered   bool
	asked     atomic.Uint32 // how often
}

// exploreEach is how many queries there are for each that also asks an upstream
// that has not been asked for longest, to know how fast it is.
const exploreEach = 32

// order returns the upstreams in the order in which to ask them: those that are
// well before those that are not, and none that leads back here. Besides, if it
// is time, it returns one to ask at the same time as the first, which costs no
// client anything.
func (g *group) order() (list []*upstream, explore *upstream) {
	type ranked struct {
		*upstream
		is standing
	}
	all := make([]ranked, 0, len(g.upstreams))
	for _, u := range g.upstreams {
		if s := u.standing(); !s.looping {
			all = append(all, ranked{u, s})
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		switch {
		case a.is.down && !b.is.down:
			return 1
		case b.is.down && !a.is.down:
			return -1
		case g.ordered || a.is.rtt.mean == 0 || b.is.rtt.mean == 0:
			return 0
		}
		return int(a.is.rtt.mean - b.is.rtt.mean)
	})
	var longest time.Time
	due := g.asked.Add(1)%exploreEach == 0
	for i, u := range all {
		list = append(list, u.upstream)
		if i == 0 || u.is.down || g.ordered || !due && !u.is.measured.IsZero() {
			continue
		}
		if explore == nil || u.is.measured.Before(longest) {
			explore, longest = u.upstream, u.is.measured
		}
	}
	return list, explore
}

// routes say who is asked about what. They are immutable.
type routes struct {
	upstreams []*upstream       // of all groups, sorted by where they are
	groups    map[string]*group // by zone
}

// match returns who is asked about a name on the wire, in lower case: the group
// of the longest domain that holds it. nil: nobody.
func (r *routes) match(name string) *group {
	for {
		if g := r.groups[name]; g != nil {
			return g
		}
		if name == "" || name == rootName {
			return nil
		}
		name = name[1+int(name[0]):]
	}
}

// rootName is the root of all names, on the wire.
const rootName = "\x00"
