package ipam

import (
	"math"
	"net/netip"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// Usage is how much of a family's ranges is taken. The counts are of addresses.
type Usage struct {
	Family  model.Family
	Ranges  []netip.Prefix
	Total   float64 // that pods can have; those of IPv6 are too many for an integer
	InUse   int     // held by pods, or reserved because others use them
	Cooling int     // freed less than Cooldown ago
}

// Usage returns that of each family that there are ranges of.
func (a *Allocator) Usage(now time.Time) (all []Usage) {
	for _, family := range model.Families {
		u := Usage{Family: family}
		for _, p := range a.pools {
			if model.FamilyOf(p.prefix.Addr()) != family {
				continue
			}
			u.Ranges = append(u.Ranges, p.prefix)
			u.Total += p.size()
			for _, r := range p.freed {
				if now.Before(r.at.Add(Cooldown)) {
					u.Cooling++
				}
			}
		}
		if len(u.Ranges) == 0 {
			continue
		}
		for addr := range a.holders {
			if p := a.poolOf(addr); p != nil && model.FamilyOf(addr) == family {
				u.InUse++
			}
		}
		all = append(all, u)
	}
	return all
}

// size is the number of addresses that are usable.
func (p *pool) size() float64 {
	size := math.Exp2(float64(p.prefix.Addr().BitLen()-p.prefix.Bits())) - 1
	if p.prefix.Addr().Is4() {
		size--
	}
	if p.kept.IsValid() {
		size--
	}
	return max(size, 0)
}
