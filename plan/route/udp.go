package route

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// UDPDevice is the name of the device of backend udp.
const UDPDevice = TunnelPrefix + "udp"

// udpHeaders in bytes: UDP 8 and the tunnel's own 4. The outer IP header comes
// on top.
const udpHeaders = 8 + 4

func (p *Plan) planUDP() {
	in := &p.input
	device := UDP{Name: UDPDevice, Port: in.network.UDPPort, MTU: in.tunnelMTU(ViaUDP, in.preferred())}
	if former := in.former.UDPPort; in.former.Backend == model.BackendUDP && former != device.Port {
		if in.network.Backend == model.BackendUDP {
			device.FormerPort = former
		} else {
			device.Port = former
		}
	}
	for _, family := range model.Families {
		if in.has(family) {
			device.Locals[family] = in.self.Address(family)
		}
	}
	p.UDPs = p.UDPs.With(UDPDevice, device)
	p.planDevice(UDPDevice)
}

// planUDPPeer lets the tunnel know a range of a peer, or an address of its own.
func (p *Plan) planUDPPeer(prefix netip.Prefix, peer *model.Node) {
	if outer, ok := p.input.outer(peer); ok && p.input.uses(model.BackendUDP) {
		p.UDPPeers = p.UDPPeers.With(prefix, peer.Address(outer))
	}
}
