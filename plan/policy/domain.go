package policy

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// domains finds the peers that are names. It is immutable.
type domains struct {
	peers map[string][]*peers // by what model.SuffixesOf finds
}

func newDomains(all []*peers) *domains {
	d := &domains{peers: map[string][]*peers{}}
	for _, p := range all {
		if key := p.domain; key != "" {
			if key[0] == '*' {
				key = key[1:]
			}
			d.peers[key] = append(d.peers[key], p)
		}
	}
	return d
}

// of are the peers that one of some names is, with repetitions.
func (d *domains) of(resolved *model.Resolved) (all []*peers) {
	if resolved == nil || len(d.peers) == 0 {
		return nil
	}
	for _, name := range resolved.Names {
		for text := range model.SuffixesOf(name) {
			all = append(all, d.peers[text]...)
		}
	}
	return all
}

// findResolved looks again at the addresses whose names changed.
func (c *computation) findResolved() {
	for change := range model.Diff(c.before.from.Resolved, c.snapshot.Resolved) {
		c.touched[change.Key] = struct{}{}
	}
}

// planDomains looks again at the addresses that have one of some names, which
// came or went as peers.
func (c *computation) planDomains(changed []*peers) {
	c.domains = newDomains(c.allPeers())
	by := newDomains(changed)
	for addr, resolved := range c.snapshot.Resolved.All() {
		if len(by.of(resolved)) > 0 {
			c.touched[addr] = struct{}{}
		}
	}
}

// namedMembers are what an address is a member of that is no pod's, sorted by name;
// nil if no name leads to it that is asked for: then it is as its range.
func namedMembers(b *blocks, d *domains, resolved *model.Resolved, addr netip.Addr) []member {
	named := d.of(resolved)
	if len(named) == 0 {
		return nil
	}
	return bareMembers(sorted(append(named, b.of(addr)...)))
}

// unownedMembers are what an address is a member of that is no pod's.
func unownedMembers(b *blocks, d *domains, resolved *model.Resolved, addr netip.Addr) []member {
	if named := namedMembers(b, d, resolved, addr); named != nil {
		return named
	}
	return bareMembers(b.of(addr))
}
