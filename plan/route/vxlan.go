package route

import (
	"crypto/sha256"
	"fmt"
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// VXLANPrefix begins the name of each of our VXLAN devices.
const VXLANPrefix = TunnelPrefix + "vx"

// vxlanDevice is the name of the device whose outer packets are of a family.
// Unless the settings are the default ones they show in it, in 15 bytes at
// most, so that the devices of former and of new settings can be there at once.
func vxlanDevice(network *model.Routing, outer model.Family) string {
	name := VXLANPrefix + "4"
	if outer == model.IPv6 {
		name = VXLANPrefix + "6"
	}
	usual := model.DefaultNetwork()
	if network.VXLANVNI == usual.VXLANVNI && network.VXLANPort == usual.VXLANPort {
		return name
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d", network.VXLANVNI, network.VXLANPort))
	return fmt.Sprintf("%s%03x", name, (int(sum[0])<<8|int(sum[1]))&0xfff)
}

// vxlanHeaders in bytes: UDP 8, VXLAN 8 (RFC 7348 section 5) and the inner
// Ethernet header 14. The outer IP header comes on top.
const vxlanHeaders = 8 + 8 + 14

// vxlanMAC is derived from the node's name, so that peers know it without
// being told. It is a locally administered unicast address.
func vxlanMAC(node string) model.MAC {
	sum := sha256.Sum256([]byte("fairlead vxlan " + node))
	mac := model.MAC(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// planVXLAN plans the device of these settings whose outer packets are of a
// family.
func (p *Plan) planVXLAN(network *model.Routing, outer model.Family) {
	in, device := &p.input, vxlanDevice(network, outer)
	p.VXLANs = p.VXLANs.With(device, VXLAN{
		Name:   device,
		VNI:    network.VXLANVNI,
		Port:   network.VXLANPort,
		Device: in.uplinks[outer].Name,
		Local:  in.self.Address(outer),
		MTU:    in.tunnelMTU(ViaVXLAN, outer),
		MAC:    vxlanMAC(in.self.Name),
	})
	p.planDevice(device)
}

func (p *Plan) removeVXLAN(outer model.Family) {
	device := vxlanDevice(&p.input.network, outer)
	p.VXLANs = p.VXLANs.Without(device)
	p.Sysctls = p.Sysctls.Without(looseFilter(device)).Without(disableIPv6(device))
	for _, address := range p.input.ends(device) {
		p.Addresses = p.Addresses.Without(address)
	}
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
	outer, _ := p.input.outer(peer)
	route := p.input.tunnelRoute(vxlanDevice(&p.input.network, outer), ViaVXLAN, outer, prefix)
	route.Via = linkLocal(vxlanMAC(peer.Name))
	if prefix.Addr().Is4() {
		route.Via, route.OnLink = prefix.Addr(), true
		p.Neighbors = p.Neighbors.With(Neighbor{route.Device, route.Via}, vxlanMAC(peer.Name))
	}
	p.Routes = p.Routes.With(prefix, route)
}

func (p *Plan) removeGateway(prefix netip.Prefix) {
	for _, outer := range model.Families {
		p.Neighbors = p.Neighbors.Without(Neighbor{vxlanDevice(&p.input.network, outer), prefix.Addr()})
	}
}

// planStation plans where a peer's end of the tunnel is, and the device if
// this is the first peer that is reached over the family.
func (p *Plan) planStation(peer *model.Node) {
	outer, _ := p.input.outer(peer)
	device := vxlanDevice(&p.input.network, outer)
	if _, ok := p.VXLANs.Get(device); !ok {
		p.planVXLAN(&p.input.network, outer)
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
		station := Station{vxlanDevice(&p.input.network, outer), vxlanMAC(peer.Name)}
		if _, ok := p.FDB.Get(station); !ok {
			continue
		}
		p.FDB = p.FDB.Without(station)
		p.Neighbors = p.Neighbors.Without(Neighbor{station.Device, linkLocal(station.MAC)})
		p.stations[outer]--
		if p.stations[outer] == 0 && !p.input.keepsVXLAN(outer) {
			p.removeVXLAN(outer)
		}
	}
}

// keepsVXLAN tells whether the device is there even if this node sends nothing
// through it: peers that see things otherwise may.
func (in *input) keepsVXLAN(outer model.Family) bool {
	for i := range in.beside {
		if other := &in.beside[i]; in.carriesVXLAN(other) && vxlanDevice(other, outer) == vxlanDevice(&in.network, outer) {
			return true
		}
	}
	return outer == in.preferred() && in.carriesVXLAN(&in.network)
}

// sameVXLAN tells whether other settings make the same device.
func (in *input) sameVXLAN(other *model.Routing) bool {
	return in.network.VXLANVNI == other.VXLANVNI && in.network.VXLANPort == other.VXLANPort
}

// carriesVXLAN tells whether the backend uses VXLAN on this node.
func (in *input) carriesVXLAN(network *model.Routing) bool {
	return network.Backend == model.BackendVXLAN ||
		network.Backend == model.BackendIPIP && (in.self.PodCIDR(model.IPv6).IsValid() || !in.has(model.IPv4))
}
