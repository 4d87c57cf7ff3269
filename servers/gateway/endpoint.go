package gateway

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unique"
)

// Bounds of the passive health of endpoints.
const (
	firstPause = time.Second // after a connection that failed; each further one doubles it
	lastPause  = 30 * time.Second
)

// endpoint is an address that requests are sent to. All backends that have it share
// it, and all tables.
type endpoint struct {
	where
	address  string // in words
	active   atomic.Int64
	failures atomic.Int32
	born     atomic.Int64 // when it came, or came back after it had failed
	rests    atomic.Int64 // until then nothing is sent, if there is another one
	used     atomic.Int64 // when a request was sent, last
	// forgotten: nobody has used it for long, and there may be another one of the
	// address by now. A backend that has it binds anew.
	forgotten atomic.Bool
	pools     []pool   // one for each core
	bridge    *bridge  // of HTTP/2; else nil
	checkup   *checkup // nil: none
	refuses   func(ctx context.Context, network, address string, conn syscall.RawConn) error
}

// where is an endpoint, and how it is spoken to: connections to it are for whoever
// wants the same.
type where struct {
	at    netip.AddrPort
	name  string // and port, instead of at
	tls   *tls.Config
	http2 bool
	check unique.Handle[Check] // the zero one: none
}

// authority is whom connections are made to.
func (w *where) authority() string {
	if w.name != "" {
		return w.name
	}
	return w.at.String()
}

// pool are the connections of an endpoint that wait for a request.
type pool struct {
	mu   sync.Mutex
	idle []*upstream // the one that was used last is used next
	_    [64]byte    // so that no two cores write to the same line of memory
}

// endpoints are all that there are.
type endpoints struct {
	mu    sync.Mutex
	known map[where]*endpoint
	// refuses looks at an address that a name leads to.
	refuses func(ctx context.Context, network, address string, conn syscall.RawConn) error
	cores   int
	slow    time.Duration // see Settings.SlowStart
}

// bind returns the endpoints of a backend.
func (e *endpoints) bind(b *Backend, now int64) []*endpoint {
	if bound := b.bound.Load(); bound != nil {
		return *bound
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*endpoint, 0, len(b.Endpoints)+1)
	for _, at := range b.Endpoints {
		all = append(all, e.find(where{at: at, tls: b.TLS, http2: b.HTTP2, check: b.Check}, now))
	}
	if b.Name != "" {
		all = append(all, e.find(where{name: b.Name, tls: b.TLS, http2: b.HTTP2, check: b.Check}, now))
	}
	b.bound.Store(&all)
	return all
}

// find returns the endpoint, and makes it if need be.
func (e *endpoints) find(at where, now int64) *endpoint {
	p := e.known[at]
	if p == nil {
		p = &endpoint{where: at, address: at.authority(), refuses: e.refuses, pools: make([]pool, e.cores)}
		if at.http2 {
			p.bridge = newBridge(p)
		}
		if at.check != (unique.Handle[Check]{}) {
			p.checkup = newCheckup(p, now)
		}
		p.born.Store(now)
		e.known[at] = p
	}
	return p
}

// pick binds a backend, and chooses one of its endpoints, or nil: see
// Request.Prefer.
func (e *endpoints) pick(b *Backend, prefer int, tried []*endpoint, now int64) *endpoint {
	for {
		p := b.choose(e.bind(b, now), prefer, tried, now, int64(e.slow))
		if p == nil {
			return nil
		}
		p.used.Store(now)
		if !p.forgotten.Load() {
			return p
		}
		b.bound.Store(nil)
	}
}

// failed takes note of a connection that could not be made.
func (p *endpoint) failed(now int64) {
	n := p.failures.Add(1)
	p.rests.Store(now + int64(min(firstPause<<min(n-1, 10), lastPause)))
}

// works takes note of an answer.
func (p *endpoint) works(now int64) {
	if p.failures.Load() != 0 {
		p.born.Store(now)
		p.failures.Store(0)
		p.rests.Store(0)
	}
}

// leastShare is what a new endpoint has at first, of what it will have.
const leastShare = 0.1

// passed tells whether a request passes an endpoint by that is new, so that it has few
// at first and more by and by.
func (p *endpoint) passed(now, slow int64) bool {
	age := now - p.born.Load()
	return age < slow && rand.Float64() > max(float64(age)/float64(slow), leastShare)
}

// choose returns an endpoint that was not tried yet, or nil: one that is new now and
// then (see Settings.SlowStart), and one that rests or is sick only if all do, or are.
func (b *Backend) choose(all []*endpoint, prefer int, tried []*endpoint, now, slow int64) *endpoint {
	if len(all) == 0 {
		return nil
	}
	start := prefer - 1
	if prefer == 0 {
		start = int(b.next.Add(1) - 1)
	}
	start %= len(all)
	var best, fresh, resting *endpoint
	for i := range all {
		p := all[(start+i)%len(all)]
		if len(tried) > 0 && wasTried(tried, p) {
			continue
		}
		if p.rests.Load() > now || p.checkup != nil && p.checkup.sick.Load() {
			if resting == nil || p.rests.Load() < resting.rests.Load() {
				resting = p
			}
			continue
		}
		if slow > 0 && prefer == 0 && p.passed(now, slow) {
			if fresh == nil {
				fresh = p
			}
			continue
		}
		if b.Balance == RoundRobin || prefer > 0 {
			return p
		}
		if best == nil || p.active.Load() < best.active.Load() {
			best = p
		}
	}
	switch {
	case best != nil:
		return best
	case fresh != nil:
		return fresh
	}
	return resting
}

func wasTried(tried []*endpoint, p *endpoint) bool {
	for _, t := range tried {
		if t == p {
			return true
		}
	}
	return false
}
