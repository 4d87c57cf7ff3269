package route

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// direct tells whether a peer's pods are reached by a plain route.
func (in *input) direct(peer *model.Node, family model.Family) bool {
	return (in.network.DirectRouting || in.network.Backend == model.BackendHostGW) && in.onLink(peer, family)
}

// onLink tells whether the peer has an address on the network of this node's
// own address.
func (in *input) onLink(peer *model.Node, family model.Family) bool {
	addr, uplink := peer.Address(family), in.uplinks[family]
	if uplink == nil || !addr.IsValid() {
		return false
	}
	for _, prefix := range uplink.Addresses {
		// Networks of other addresses on the link are not meant: they may be
		// tunnels of others, or reach only some of the nodes.
		if prefix.Addr() == in.self.Address(family) && prefix.Contains(addr) {
			return true
		}
	}
	return false
}

func (in *input) directRoute(peer *model.Node, prefix netip.Prefix) Route {
	family := model.FamilyOf(prefix.Addr())
	route := Route{
		Device: in.uplinks[family].Name,
		Via:    peer.Address(family),
		Source: in.self.Address(family),
	}
	if mtu := in.mtu(family); mtu < in.uplinks[family].MTU {
		route.MTU = mtu
	}
	return route
}
