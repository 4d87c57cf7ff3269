package dns

import (
	"net/netip"
	"sync"
)

// Bounds of the queries that somebody else is asked for, at one time.
const (
	maxPending = 2048
	// Of one client. When half of all are under way, only as many as leave room for
	// the others.
	clientPending = 256
	crowdedClient = 32
)

// pending counts what is asked elsewhere, by client. One that asks without end,
// or for names whose servers are slow, has its share, and no more.
type pending struct {
	mu  sync.Mutex
	all int
	by  map[netip.Addr]int
}

// enter tells whether a client may have one more under way. If so, leave has to
// follow.
func (p *pending) enter(client netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := clientPending
	if p.all >= maxPending/2 {
		limit = crowdedClient
	}
	if p.all >= maxPending || p.by[client] >= limit {
		return false
	}
	if p.by == nil {
		p.by = map[netip.Addr]int{}
	}
	p.all++
	p.by[client]++
	return true
}

func (p *pending) leave(client netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all--
	if p.by[client]--; p.by[client] == 0 {
		delete(p.by, client)
	}
}
