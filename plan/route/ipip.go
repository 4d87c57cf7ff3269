package route

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// IPIPDevice is the name of the device of backend ipip.
const IPIPDevice = TunnelPrefix + "ipip"

// planIPIP plans the device. It carries IPv4 only: pods' IPv6 goes through
// VXLAN.
func (p *Plan) planIPIP() {
	in := &p.input
	p.IPIPs = p.IPIPs.With(IPIPDevice, IPIP{
		Name:   IPIPDevice,
		Device: in.uplinks[model.IPv4].Name,
		Local:  in.self.Address(model.IPv4),
		MTU:    in.tunnelMTU(ViaIPIP, model.IPv4),
		Pods:   in.self.PodCIDR(model.IPv4),
	})
	if in.self.PodCIDR(model.IPv4).IsValid() {
		p.Sysctls = p.Sysctls.With(looseFilter(IPIPDevice), "2")
	}
	if prefix := in.self.PodCIDR(model.IPv4); prefix.IsValid() {
		p.Addresses = p.Addresses.With(Address{IPIPDevice, model.HostPrefix(prefix.Addr())}, struct{}{})
	}
}

// ipip tells whether a family's pods at a peer are reached by IPIP.
func (in *input) ipip(peer *model.Node, family model.Family) bool {
	return in.network.Backend == model.BackendIPIP && family == model.IPv4 &&
		in.has(model.IPv4) && peer.Address(model.IPv4).IsValid()
}

// ipipRoute names the outer destination as the next hop: that is how the
// kernel's device is told.
func (in *input) ipipRoute(peer *model.Node, prefix netip.Prefix) Route {
	route := in.tunnelRoute(IPIPDevice, ViaIPIP, model.IPv4, prefix)
	route.Via, route.OnLink = peer.Address(model.IPv4), true
	return route
}

// planIPIPPeer plans the neighbour that a peer is on the device.
func (p *Plan) planIPIPPeer(addr netip.Addr) {
	if p.input.network.Backend == model.BackendIPIP && p.input.has(model.IPv4) && addr.Is4() {
		p.Neighbors = p.Neighbors.With(Neighbor{IPIPDevice, addr}, IPIPNeighbor(addr))
	}
}

// IPIPNeighbor is the MAC that stands for a peer where the device is not the
// kernel's but an Ethernet device with a program: it holds the peer's address,
// and is locally administered.
func IPIPNeighbor(peer netip.Addr) model.MAC {
	a := peer.As4()
	return model.MAC{0x02, 0xfa, a[0], a[1], a[2], a[3]}
}
