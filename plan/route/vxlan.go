package route

import (
	"crypto/sha256"
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// VXLANPrefix begins the name of each of our tunnel devices.
const VXLANPrefix = "fairlead-vx"

// vxlanDevice is the name of the device whose outer packets are of a family.
func vxlanDevice(outer model.Family) string {
	if outer == model.IPv4 {
		return VXLANPrefix + "4"
	}
	return VXLANPrefix + "6"
}

// tunnelMTU is what is left of mtu bytes: the outer IP header, UDP 8, VXLAN 8
// (RFC 7348 section 5) and the inner Ethernet header 14.
func tunnelMTU(mtu int, outer model.Family) int {
	const headers = 8 + 8 + 14
	if outer == model.IPv4 {
		return mtu - headers - 20
	}
	return mtu - headers - 40
}

// vxlanMAC is derived from the node's name, so that peers know it without
// being told. It is a locally administered unicast address.
func vxlanMAC(node string) model.MAC {
	sum := sha256.Sum256([]byte("fairlead vxlan " + node))
	mac := model.MAC(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// planVXLAN plans the device whose outer packets are of a family.
func (p *Plan) planVXLAN(outer model.Family) {
	in, device := &p.input, vxlanDevice(outer)
	p.VXLANs = p.VXLANs.With(device, VXLAN{
		Name:   device,
		VNI:    in.network.VXLANVNI,
		Port:   in.network.VXLANPort,
		Device: in.uplinks[outer].Name,
		Local:  in.self.Address(outer),
		MTU:    tunnelMTU(in.mtu(outer), outer),
		MAC:    vxlanMAC(in.self.Name),
	})
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

func (p *Plan) removeVXLAN(outer model.Family) {
	device := vxlanDevice(outer)
	p.VXLANs = p.VXLANs.Without(device)
	p.Sysctls = p.Sysctls.Without(looseFilter(device)).Without(disableIPv6(device))
	for _, address := range p.input.ends(device) {
		p.Addresses = p.Addresses.Without(address)
	}
}

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

// outer is the family of the outer packets to a peer: IPv4 if both have it.
func (in *input) outer(peer *model.Node) (model.Family, bool) {
	for _, family := range model.Families {
		if in.uplinks[family] != nil && peer.Address(family).IsValid() {
			return family, true
		}
	}
	return 0, false
}

// linkLocal is the address that RFC 4291 appendix A makes of a MAC.
func linkLocal(mac model.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: mac[0] ^ 0x02, 9: mac[1], 10: mac[2], 11: 0xff,
		12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
	})
}

// planGateway plans the way through the tunnel to one range. What stands for
// the peer's end of the tunnel is, for IPv6, its link-local address; IPv4 has
// none, and takes the range's first.
func (p *Plan) planGateway(prefix netip.Prefix, peer *model.Node) {
	in := &p.input
	outer, _ := in.outer(peer)
	route := Route{
		Device: vxlanDevice(outer),
		Via:    linkLocal(vxlanMAC(peer.Name)),
		MTU:    tunnelMTU(in.mtu(outer), outer),
	}
	if prefix.Addr().Is4() {
		route.Via, route.OnLink = prefix.Addr(), true
		p.Neighbors = p.Neighbors.With(Neighbor{route.Device, route.Via}, vxlanMAC(peer.Name))
	}
	if own := in.self.PodCIDR(model.FamilyOf(prefix.Addr())); own.IsValid() {
		route.Source = own.Addr()
	}
	p.Routes = p.Routes.With(prefix, route)
}

func (p *Plan) removeGateway(prefix netip.Prefix) {
	for _, outer := range model.Families {
		p.Neighbors = p.Neighbors.Without(Neighbor{vxlanDevice(outer), prefix.Addr()})
	}
}

// planStation plans where a peer's end of the tunnel is, and the device if
// this is the first peer that is reached over the family.
func (p *Plan) planStation(peer *model.Node) {
	outer, _ := p.input.outer(peer)
	device := vxlanDevice(outer)
	if _, ok := p.VXLANs.Get(device); !ok {
		p.planVXLAN(outer)
	}
	station := Station{device, vxlanMAC(peer.Name)}
	if _, ok := p.FDB.Get(station); !ok {
		p.stations[outer]++
	}
	p.FDB = p.FDB.With(station, peer.Address(outer))
	if p.input.self.PodCIDR(model.IPv6).IsValid() {
		p.Neighbors = p.Neighbors.With(Neighbor{device, linkLocal(station.MAC)}, station.MAC)
	}
}

func (p *Plan) removeStation(peer *model.Node) {
	for _, outer := range model.Families {
		station := Station{vxlanDevice(outer), vxlanMAC(peer.Name)}
		if _, ok := p.FDB.Get(station); !ok {
			continue
		}
		p.FDB = p.FDB.Without(station)
		p.Neighbors = p.Neighbors.Without(Neighbor{station.Device, linkLocal(station.MAC)})
		p.stations[outer]--
		if p.stations[outer] == 0 && outer != p.input.preferred() {
			p.removeVXLAN(outer)
		}
	}
}
