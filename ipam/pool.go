package ipam

import (
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// pool is one range. Its addresses are first handed out in order, each once;
// then those that were freed, the longest ago first. So a freed address rests
// for as long as the range allows, a taken one costs nothing to skip, and an
// IPv6 range costs no more memory than what is used of it, and what was freed in
// an hour.
type pool struct {
	prefix netip.Prefix
	kept   netip.Addr              // that no pod gets; invalid: none
	next   netip.Addr              // not handed out yet, nor is what follows; outside of the range at its end
	freed  []rest                  // oldest first
	early  map[netip.Addr]struct{} // freed ones that next has still before it
}

// rest is a freed address.
type rest struct {
	addr netip.Addr
	at   time.Time
}

// newPool leaves out the first address: it names the node's end of a tunnel,
// and is the subnet-router anycast address of IPv6 (RFC 4291 section 2.6.1).
func newPool(prefix netip.Prefix) *pool {
	return &pool{prefix: prefix, next: prefix.Addr().Next()}
}

// many is how many freed addresses are kept at least, as long as there are others that
// were never used: those of a /20 of IPv4.
const many = 1 << 12

// plenty tells whether freed addresses are handed out again although there are others.
// Of a range that never ends they would become ever more.
func (p *pool) plenty(now time.Time) bool {
	return len(p.freed) > many && !now.Before(p.freed[0].at.Add(Remembered))
}

// ready tells whether take has an address to return.
func (p *pool) ready(holders map[netip.Addr]model.AttachmentKey, now time.Time) bool {
	if p.plenty(now) {
		return true
	}
	for p.inside(p.next) {
		_, taken := holders[p.next]
		_, resting := p.early[p.next]
		if !taken && !resting && p.next != p.kept {
			return true
		}
		delete(p.early, p.next)
		p.next = p.next.Next()
	}
	return len(p.freed) > 0 && !now.Before(p.freed[0].at.Add(Cooldown))
}

// usable tells whether a pod may have the address.
func (p *pool) usable(addr netip.Addr) bool { return addr != p.kept && p.inside(addr) }

// inside tells whether a pod could have the address, if it were not kept. The
// last one of an IPv4 range looks like a broadcast address to some.
func (p *pool) inside(addr netip.Addr) bool {
	if !addr.IsValid() || !p.prefix.Contains(addr) || addr == p.prefix.Addr() {
		return false
	}
	return addr.Is6() || p.prefix.Contains(addr.Next())
}

// take returns the address that ready has found at that time.
func (p *pool) take(now time.Time) netip.Addr {
	if p.usable(p.next) && !p.plenty(now) {
		addr := p.next
		p.next = addr.Next()
		return addr
	}
	addr := p.freed[0].addr
	p.freed = p.freed[1:]
	delete(p.early, addr)
	return addr
}

// release notes a freed address that is usable. One from an earlier life may be
// ahead of next.
func (p *pool) release(addr netip.Addr, now time.Time) {
	if p.inside(p.next) && !addr.Less(p.next) {
		if p.early == nil {
			p.early = map[netip.Addr]struct{}{}
		}
		p.early[addr] = struct{}{}
	}
	at := len(p.freed)
	for at > 0 && p.freed[at-1].at.After(now) { // of an earlier life, or the clock was set
		at--
	}
	p.freed = slices.Insert(p.freed, at, rest{addr, now})
}

// known tells whether a usable address that nobody holds was handed out or freed.
func (p *pool) known(addr netip.Addr) bool {
	_, early := p.early[addr]
	return early || !p.inside(p.next) || addr.Less(p.next)
}

// forget takes an address out of those that were freed.
func (p *pool) forget(addr netip.Addr) {
	delete(p.early, addr)
	p.freed = slices.DeleteFunc(p.freed, func(r rest) bool { return r.addr == addr })
}
