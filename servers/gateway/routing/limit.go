package routing

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// limitKey names a limit: it lasts from table to table, so that nobody gets a new
// share because a route has changed.
type limitKey struct {
	of    model.IngressKey
	every time.Duration // between two requests of one client
	burst int
}

// limit is a rate of requests of each client (the generic cell rate algorithm,
// ITU-T I.371): it may be exceeded by burst at once.
type limit struct {
	every  time.Duration
	ahead  time.Duration // how far a client may be
	seed   maphash.Seed
	shards [16]shard
}

type shard struct {
	mu sync.Mutex
	// next is when a client would be allowed one more, were there no burst.
	next map[netip.Addr]time.Time
}

// mostClients of a shard are remembered. Then those that are within their rate are
// forgotten, and if that does not do, any.
const mostClients = 1 << 13

func newLimit(key limitKey) *limit {
	return &limit{every: key.every, ahead: time.Duration(key.burst) * key.every, seed: maphash.MakeSeed()}
}

// allows counts a request of a client, unless it is one too many.
func (l *limit) allows(client netip.Addr, now time.Time) bool {
	s := &l.shards[maphash.Comparable(l.seed, client)%uint64(len(l.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = map[netip.Addr]time.Time{}
	}
	next, ok := s.next[client]
	if !ok && len(s.next) >= mostClients {
		s.forget(now)
	}
	if next.Before(now) {
		next = now
	}
	if next.Sub(now) > l.ahead {
		return false
	}
	s.next[client] = next.Add(l.every)
	return true
}

func (s *shard) forget(now time.Time) {
	for client, next := range s.next {
		if next.Before(now) {
			delete(s.next, client)
		}
	}
	for client := range s.next {
		if len(s.next) < mostClients/2 {
			return
		}
		delete(s.next, client)
	}
}

// limitsOf are those of a policy, by name.
func limitsOf(of model.IngressKey, l plan.Limits) (all []limitKey) {
	if l.PerSecond > 0 {
		all = append(all, limitKey{of, time.Second / time.Duration(l.PerSecond), l.PerSecond * l.Burst})
	}
	if l.PerMinute > 0 {
		all = append(all, limitKey{of, time.Minute / time.Duration(l.PerMinute), l.PerMinute * l.Burst})
	}
	return all
}

// within tells whether a request is within all limits of its route.
func (r *route) within(ask *gateway.Request) bool {
	if len(r.limits) == 0 && r.crowd == nil || slices.ContainsFunc(r.Policy.Limits.Exempt, func(p netip.Prefix) bool { return p.Contains(ask.Client) }) {
		return true
	}
	if r.crowd != nil {
		client := ask.Client
		if !r.crowd.enter(client, r.Policy.Limits.Connections) {
			return false
		}
		ask.Ended = func() { r.crowd.leave(client) }
	}
	now := time.Now()
	for _, limit := range r.limits {
		if !limit.allows(ask.Client, now) {
			return false
		}
	}
	return true
}
