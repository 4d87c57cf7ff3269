package plan

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

// Choices are the targets that a packet to an address of a Service may be sent
// on to, each as likely as the others; nil if there is none, or the address is
// no Service's.
func Choices(node *Node, packet Packet) []netip.AddrPort {
	frontend, answer := Served(node, packet)
	return targets(node, frontend, answer)
}

func targets(node *Node, frontend *service.Frontend, answer service.Answer) []netip.AddrPort {
	if answer.Do != service.Forward {
		return nil
	}
	backends, ok := node.Service.Backends.Get(frontend.Pool(answer))
	if !ok {
		return nil
	}
	return backends.Targets
}

// Served is what Services make of a packet; zero if it is none of their
// business. A frontend is nil if the address is that of Services, and the port
// is not.
func Served(node *Node, packet Packet) (*service.Frontend, service.Answer) {
	services := node.Service
	if services == nil || here(node.DNS, packet) {
		return nil, service.Answer{}
	}
	frontend, ok := services.Frontends.Get(service.VIP{
		Protocol: packet.Protocol, At: netip.AddrPortFrom(packet.Destination, packet.Port),
	})
	_, clusterIP := services.ClusterIPs.Get(packet.Destination)
	switch {
	case packet.Destination.IsLoopback() && !fromHere(node, packet):
		return nil, service.Answer{Do: service.Drop}
	case ok && !frontend.Allows(packet.Source):
		return frontend, service.Answer{Do: service.Drop}
	case ok && (fromHere(node, packet) || isPod(node, packet.Source)):
		return frontend, frontend.Inside
	case ok:
		return frontend, frontend.Outside
	case clusterIP:
		return nil, service.Answer{Do: service.Reject}
	case contains(services.CIDRs, packet.Destination):
		return nil, service.Answer{Do: service.Drop}
	}
	return nil, service.Answer{}
}

func fromHere(node *Node, packet Packet) bool {
	return isHere(node, packet.Source) || packet.Source.IsLoopback()
}

// isHere tells whether an address is one of the node's own.
func isHere(node *Node, addr netip.Addr) bool {
	_, here := node.Service.Here.Get(addr)
	return here
}

// chosen is the target that a packet goes on to.
func chosen(from []netip.AddrPort, packet Packet) netip.AddrPort {
	if slices.Contains(from, packet.Backend) {
		return packet.Backend
	}
	return from[0]
}

// masqueraded tells whether a packet that a Service sends on takes an address
// of the node, and which.
func masqueraded(node *Node, frontend *service.Frontend, packet Packet, to netip.Addr) (is bool, as netip.Addr) {
	services := node.Service
	switch frontend.Masquerade {
	case service.FromAll:
		is = true
	case service.FromOutside:
		is = !isPod(node, packet.Source)
	case service.FromNode:
		is = fromHere(node, packet)
	}
	if isHere(node, to) {
		if is && fromHere(node, packet) {
			return true, node.HostPort.Own[model.FamilyOf(to)]
		}
		return false, as // from elsewhere, it leaves through no interface
	}
	_, ownPod := services.Hairpins.Get(to)
	if ownPod && (is || to == packet.Source) {
		return true, node.HostPort.Own[model.FamilyOf(to)]
	}
	return is, as
}

// isPod tells whether an address is in the range of pods of a node.
func isPod(node *Node, addr netip.Addr) bool {
	return node.Masquerade != nil && contains(node.Masquerade.Cluster, addr)
}
