package dns

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// ranges are those whose reverse names nobody else knows.
type ranges struct {
	all     map[netip.Prefix]struct{}  // never changed
	lengths [len(model.Families)][]int // of prefixes that occur, ascending
}

// holds returns the bits of the largest range that holds all of a prefix; -1: none
// does.
func (r *ranges) holds(p netip.Prefix) int {
	if !p.IsValid() {
		return -1
	}
	for _, bits := range r.lengths[model.FamilyOf(p.Addr())] {
		if bits > p.Bits() {
			return -1
		}
		if outer, err := p.Addr().Prefix(bits); err == nil {
			if _, ok := r.all[outer]; ok {
				return bits
			}
		}
	}
	return -1
}

// ownRanges are those of ClusterIPs, which are nowhere but in the cluster, and of
// pods as long as nobody outside sees their addresses: else they are part of a
// larger network, whose names somebody else may know.
func ownRanges(snapshot *model.Snapshot) (r ranges) {
	r.all = map[netip.Prefix]struct{}{}
	add := func(prefix netip.Prefix) {
		lengths := &r.lengths[model.FamilyOf(prefix.Addr())]
		if at, ok := slices.BinarySearch(*lengths, prefix.Bits()); !ok {
			*lengths = slices.Insert(*lengths, at, prefix.Bits())
		}
		r.all[prefix] = struct{}{}
	}
	for _, cidr := range snapshot.ServiceCIDRs.All() {
		for _, prefix := range cidr.Prefixes {
			add(prefix)
		}
	}
	hidden := hiddenFamilies(&snapshot.Network.Masquerade)
	for _, node := range snapshot.Nodes.All() {
		for _, prefix := range node.PodCIDRs {
			if hidden[model.FamilyOf(prefix.Addr())] {
				add(prefix.Masked())
			}
		}
	}
	return r
}

// hiddenFamilies are those of which pods' addresses do not leave the cluster.
func hiddenFamilies(m *model.Masquerade) (hidden [len(model.Families)]bool) {
	hidden = m.On
	for _, prefix := range m.Exclude {
		hidden[model.FamilyOf(prefix.Addr())] = false
	}
	return hidden
}
