package route

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// TunnelPrefix begins the name of each of our tunnel devices.
const TunnelPrefix = "fairlead-"

// Overhead of a tunnel's packets in bytes, with their outer IP header.
func Overhead(way Way, outer model.Family) int {
	headers := 20
	if outer == model.IPv6 {
		headers = 40
	}
	switch way {
	case ViaVXLAN:
		headers += vxlanHeaders
	case ViaUDP:
		headers += udpHeaders
	}
	return headers
}

// tunnelMTU is what is left for the packets inside a tunnel, in bytes.
func (in *input) tunnelMTU(way Way, outer model.Family) int {
	return in.mtu(outer) - Overhead(way, outer)
}

// planTunnels plans the devices that are there whatever peers there are: the
// backend's, and those of the former and of the coming one, through which peers
// send that have not heard yet, or have heard first. Nothing is sent through
// those from here.
func (p *Plan) planTunnels() {
	in := &p.input
	if in.carriesVXLAN(&in.network) {
		p.planVXLAN(&in.network, in.preferred())
	}
	for i := range in.beside {
		for _, outer := range model.Families {
			// What is in use wins if the names are the same.
			used := vxlanDevice(&in.beside[i], outer) == vxlanDevice(&in.network, outer) && in.carriesVXLAN(&in.network)
			if in.carriesVXLAN(&in.beside[i]) && in.has(outer) && !(used && !in.sameVXLAN(&in.beside[i])) {
				p.planVXLAN(&in.beside[i], outer)
			}
		}
	}
	if in.uses(model.BackendIPIP) && in.has(model.IPv4) {
		p.planIPIP()
	}
	if in.uses(model.BackendUDP) {
		p.planUDP()
	}
}

// uses tells whether this is the backend, or was or will be in a moment.
func (in *input) uses(backend model.Backend) bool {
	return in.network.Backend == backend || in.beside[0].Backend == backend || in.beside[1].Backend == backend
}

// has tells whether the node has an address of the family on an interface, so
// that it can be the outer one of a tunnel.
func (in *input) has(family model.Family) bool { return in.uplinks[family] != nil }

// planDevice plans what each tunnel device needs.
func (p *Plan) planDevice(device string) {
	in := &p.input
	if in.self.PodCIDR(model.IPv4).IsValid() {
		p.Sysctls = p.Sysctls.With(looseFilter(device), "2")
	}
	if in.self.PodCIDR(model.IPv6).IsValid() {
		p.Sysctls = p.Sysctls.With(disableIPv6(device), "0")
	}
	for _, address := range in.ends(device) {
		p.Addresses = p.Addresses.With(address, struct{}{})
	}
}

// disableIPv6 is the setting that some distributions turn on for new devices.
func disableIPv6(device string) string { return "net/ipv6/conf/" + device + "/disable_ipv6" }

// ends are this node's addresses on a tunnel: it speaks to pods behind it from
// an address that leads back through it. It is its range's first, which no pod
// gets.
func (in *input) ends(device string) (ends []Address) {
	for _, family := range model.Families {
		if prefix := in.self.PodCIDR(family); prefix.IsValid() {
			ends = append(ends, Address{device, model.HostPrefix(prefix.Addr())})
		}
	}
	return ends
}

// tunnelRoute is a route through a tunnel without its next hop.
func (in *input) tunnelRoute(device string, way Way, outer model.Family, to netip.Prefix) Route {
	route := Route{Device: device, MTU: in.tunnelMTU(way, outer)}
	if own := in.self.PodCIDR(model.FamilyOf(to.Addr())); own.IsValid() {
		route.Source = own.Addr()
	}
	return route
}

// outer is the family of the outer packets to a peer: IPv4 if both have it.
func (in *input) outer(peer *model.Node) (model.Family, bool) {
	for _, family := range model.Families {
		if in.has(family) && peer.Address(family).IsValid() {
			return family, true
		}
	}
	return 0, false
}
