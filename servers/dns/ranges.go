package dns

import (
	"net/netip"
	"slices"
)

// Ranges are ranges of addresses. However many there are, asking whether one of
// them holds an address costs a lookup for each length of prefix that occurs. It is
// immutable; nil holds none.
type Ranges struct {
	all     map[netip.Prefix]struct{}
	lengths [2][]int // of prefixes, of IPv4 and IPv6
}

// NewRanges makes them of prefixes.
func NewRanges(prefixes []netip.Prefix) *Ranges {
	r := &Ranges{all: make(map[netip.Prefix]struct{}, len(prefixes))}
	for _, p := range prefixes {
		p = p.Masked()
		if !p.IsValid() {
			continue
		}
		r.all[p] = struct{}{}
		if lengths := &r.lengths[familyOf(p.Addr())]; !slices.Contains(*lengths, p.Bits()) {
			*lengths = append(*lengths, p.Bits())
		}
	}
	return r
}

// Contains tells whether one of them holds an address.
func (r *Ranges) Contains(addr netip.Addr) bool {
	if r == nil {
		return false
	}
	for _, bits := range r.lengths[familyOf(addr)] {
		if p, err := addr.Prefix(bits); err == nil {
			if _, ok := r.all[p]; ok {
				return true
			}
		}
	}
	return false
}

func familyOf(addr netip.Addr) int {
	if addr.Is4() {
		return 0
	}
	return 1
}
