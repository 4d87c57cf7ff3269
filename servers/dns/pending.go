package dns

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of the queries that somebody else is asked for, at one time.
const (
	maxPending = 2048
	// Of one client. When half of all are under way, only as many as leave room for
	// the others.
	clientPending = 256
	crowdedClient = 32
	// Of one client in a second, in the long run, and at once after a rest: what an
	// upstream is asked costs some 50 µs of CPU, ten times what a name of the
	// cluster does, and those who ask for these must not wait for it.
	clientRate  = 2000
	clientBurst = 2000
	// More shares than these are looked through for those that nobody needs.
	manyShares = 4096
)

// pending counts what is asked elsewhere, by client. One that asks without end,
// or for names whose servers are slow, has its share, and no more.
type pending struct {
	mu  sync.Mutex
	all int
	by  map[netip.Addr]*share
}

// share is what a client has of it.
type share struct {
	under int
	// next is when the client would have used up no more than its rate (the generic
	// cell rate algorithm of ITU-T I.371).
	next time.Time
}

// enter tells whether a client may have one more under way. If so, leave has to
// follow.
func (p *pending) enter(client netip.Addr, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := clientPending
	if p.all >= maxPending/2 {
		limit = crowdedClient
	}
	of := p.by[client]
	if of == nil {
		of = p.add(client, now)
	}
	if of.next.Before(now) {
		of.next = now
	}
	if p.all >= maxPending || of.under >= limit || of.next.Sub(now) >= clientBurst*time.Second/clientRate {
		return false
	}
	of.next = of.next.Add(time.Second / clientRate)
	p.all++
	of.under++
	return true
}

// add makes a client's share, and takes away those that are as new.
func (p *pending) add(client netip.Addr, now time.Time) *share {
	if p.by == nil {
		p.by = map[netip.Addr]*share{}
	}
	if len(p.by) >= manyShares {
		for addr, of := range p.by {
			if of.under == 0 && !of.next.After(now) {
				delete(p.by, addr)
			}
		}
	}
	of := &share{}
	p.by[client] = of
	return of
}

func (p *pending) leave(client netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all--
	p.by[client].under--
}

// turnDown writes the answer to a message for which somebody would have to be
// asked, of a client that may not have one more under way. It costs no memory.
func (a *answering) turnDown(served *Served, message []byte, from asker, into []byte) []byte {
	outside := a.outside
	a.outside = nobody{}
	defer func() { a.outside = outside }()
	reply := a.message(served, message, from, into)
	a.client.Refused.Add(1)
	a.turned = true
	return reply
}

// nobody is asked.
type nobody struct{}

func (nobody) find(_ Question, into []byte) ([]byte, found) { return into, failed }
