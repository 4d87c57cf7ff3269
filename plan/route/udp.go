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
	device := UDP{Name: UDPDevice, MTU: in.tunnelMTU(ViaUDP, in.preferred())}
	for _, routing := range []model.Routing{in.network, in.beside[1], in.beside[0]} {
		switch port := routing.UDPPort; {
		case routing.Backend != model.BackendUDP:
		case device.Port == 0:
			device.Port = port
		case device.OtherPort == 0 && port != device.Port:
			device.OtherPort = port
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
