package dns

import (
	"context"
	"net/netip"
	"strings"
	"unsafe"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/dns"
)

// Gate lets answers go whose addresses policies allow: once the kernel lets packets
// to them pass. It may be called from many goroutines at once.
type Gate interface {
	// Passed tells whether packets to an address pass, because a name leads to it,
	// and go on to for as long as an answer of that TTL, in seconds, holds. It does
	// not block, and keeps no argument.
	Passed(name dns.Name, addr netip.Addr, ttl uint32) bool
	// Install makes them pass, and returns when they do, or when that takes too long.
	Install(ctx context.Context, found []model.Resolution)
}

// Domains are the names that policies allow connections to. They are immutable; nil:
// there are none.
type Domains struct {
	exact, below map[dns.Name]struct{} // what is in below is of *. and the name
}

// NewDomains reads patterns; see model.Domains. What is none is left out.
func NewDomains(patterns []string) *Domains {
	if len(patterns) == 0 {
		return nil
	}
	d := &Domains{map[dns.Name]struct{}{}, map[dns.Name]struct{}{}}
	for _, pattern := range patterns {
		to := d.exact
		name, wild := strings.CutPrefix(pattern, "*.")
		if wild {
			to = d.below
		}
		if parsed, err := dns.ParseName(name); err == nil {
			to[parsed] = struct{}{}
		}
	}
	return d
}

// fits tells whether a name is one of them. It does not allocate.
func (d *Domains) fits(name dns.Name) bool {
	if _, ok := d.exact[name]; ok {
		return true
	}
	for above := name; len(above) > 1; {
		above = parent(above)
		if _, ok := d.below[above]; ok {
			return true
		}
	}
	return false
}

// held tells whether an answer from outside has to wait until packets to its
// addresses pass. Who may wait, does so here, and is let go.
//
// All addresses are those of each name that leads to them: the one that was asked
// for, and those that it stands for.
func (a *answering) held() bool {
	if !a.abroad || a.gate == nil || a.served.Domains == nil || a.q.kind != typeA && a.q.kind != typeAAAA {
		return false
	}
	var found []model.Resolution
	later := a.untold(a.q.name(), &found)
	at := headerSize + len(a.q.question())
	for range a.r.counts[inAnswer] {
		record, ok := recordAt(a.r.b, at)
		if !ok || later && a.wait == nil {
			break
		}
		at = record.next
		if record.kind != typeCNAME {
			continue
		}
		if name, _, ok := nameAt(a.r.b, record.data, a.room[:0]); ok {
			later = a.untold(dns.Name(unsafe.String(&name[0], len(name))), &found) || later
		}
	}
	if !later || a.wait == nil {
		return later
	}
	a.gate.Install(a.wait, found)
	return false
}

// untold tells whether a name is one of a policy and an address of the answer is not
// in the kernel yet. Who may wait gets what is to be told.
func (a *answering) untold(name dns.Name, found *[]model.Resolution) (later bool) {
	if !a.served.Domains.fits(name) {
		return false
	}
	var resolution model.Resolution
	at := headerSize + len(a.q.question())
	for range a.r.counts[inAnswer] {
		record, ok := recordAt(a.r.b, at)
		if !ok {
			break
		}
		at = record.next
		if record.kind != a.q.kind {
			continue
		}
		addr, ok := netip.AddrFromSlice(a.r.b[record.data:record.next])
		if !ok {
			continue
		}
		later = later || !a.gate.Passed(name, addr, record.ttl)
		if a.wait != nil {
			resolution.Addresses = append(resolution.Addresses, addr)
			resolution.TTL = max(resolution.TTL, record.ttl)
		} else if later {
			return true
		}
	}
	if later && a.wait != nil {
		resolution.Name = strings.TrimSuffix(name.String(), ".")
		*found = append(*found, resolution)
	}
	return later
}
