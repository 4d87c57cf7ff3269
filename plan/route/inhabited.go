package route

import (
	"net/netip"
	"slices"
)

// inhabited tells whether a node has its address in a range of pods. It looks at all of
// them, so it is asked only of a range that is in a network of this node: elsewhere, a
// node in it may be one that runs as a pod, as simulated ones and virtual kubelets do.
func (p *Plan) inhabited(prefix netip.Prefix) bool {
	if slices.ContainsFunc(p.input.self.Addresses, prefix.Contains) {
		return true
	}
	for addr := range p.addresses.names.All() {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// replanAround plans the ranges again, in networks of this node, that an address of
// another node is in, which came or went.
func (p *Plan) replanAround(addr netip.Addr) {
	for prefix := range p.collisions.All() {
		if prefix.Contains(addr) {
			p.replanRange(prefix)
		}
	}
	for _, prefix := range p.input.self.PodCIDRs {
		if prefix.Contains(addr) {
			p.planOwnRange(prefix)
		}
	}
}
