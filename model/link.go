package model

import (
	"net/netip"
	"slices"
)

// PodGroup is the interface group (ip link set group) of the host sides of all
// pods' links: packets that come through one of it come from a pod.
const PodGroup = 175

// Link is a network interface of this node that carries addresses of its own:
// where peers may be on-link. The node's pod links and tunnels are not listed.
type Link struct {
	Name      string
	MTU       int            // bytes
	Addresses []netip.Prefix // with the length of the network that is on-link
	AcceptsRA bool           // it follows IPv6 router advertisements (sysctl accept_ra is not 0)
}

// Equal tells whether nothing that a plan could see differs.
func (l *Link) Equal(other *Link) bool {
	return l.Name == other.Name && l.MTU == other.MTU && l.AcceptsRA == other.AcceptsRA &&
		slices.Equal(l.Addresses, other.Addresses)
}

// Has tells whether the link has this address.
func (l *Link) Has(addr netip.Addr) bool {
	return slices.ContainsFunc(l.Addresses, func(prefix netip.Prefix) bool { return prefix.Addr() == addr })
}
