package plan

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/antispoof"
	"github.com/fairlead-net/fairlead/plan/dns"
	"github.com/fairlead-net/fairlead/plan/hostport"
	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/plan/service"
)

// Packet is what Verdict is asked about: the first one of a connection.
type Packet struct {
	Device              string    // of the pod that it comes from; empty: nobody looks where it comes from
	MAC                 model.MAC // of its sender, if it comes from a pod
	Source, Destination netip.Addr
	Protocol            model.Protocol
	Port                uint16 // of the destination
	Local               bool   // the destination is one of the node's own addresses
	Established         bool   // it is a later one, or a reply: policies have let the connection in
	// Backend is which of its Choices a Service takes; invalid: the first one.
	Backend netip.AddrPort
}

// Hop is what becomes of a packet on one node.
type Hop struct {
	Spoofed    bool           // the pod may not send it: it is dropped, and the rest is zero
	Denied     Denial         // a policy forbids it: it is dropped, and the rest is zero
	Dropped    bool           // the node drops it without a word, and the rest is zero
	Reachable  bool           // false: the node refuses it, and the rest is zero
	Here       bool           // the DNS server of the node answers it, untranslated and untracked, and the rest is zero
	Pod        netip.AddrPort // the node's port or the Service leads here, where the packet goes on to; invalid: nowhere else
	Device     string         // it leaves through; empty: the plan says nothing, the node's other routes decide
	Via        netip.Addr     // next hop; invalid if the destination is on the link
	MTU        int            // bytes that fit; 0: the device's
	Remote     netip.Addr     // the node that the tunnel leads to; invalid without a tunnel
	Masquerade bool           // it leaves with an address of the node
	As         netip.Addr     // that address; invalid: one of the interface it leaves by
}

// Verdict is the oracle: what the plan of a node makes of a packet that comes
// from a pod of this node or from the node itself, or to one of its ports. It is
// slow and readable; data planes must agree with it.
func Verdict(node *Node, packet Packet) Hop {
	if spoofed(node.AntiSpoof, packet) {
		return Hop{Spoofed: true}
	}
	directions := model.Directions[:]
	if isQuery(node, packet) {
		if denial := denied(node, packet, model.Egress); denial.Pod.IsValid() {
			return Hop{Denied: denial}
		}
		directions = []model.Direction{model.Ingress}
	}
	if here(node.DNS, packet) {
		if denial := denied(node, packet, directions...); denial.Pod.IsValid() {
			return Hop{Denied: denial}
		}
		return Hop{Reachable: true, Here: true}
	}
	hop := Hop{Reachable: true}
	frontend, answer := Served(node, packet)
	switch backends := targets(node, frontend, answer); {
	case answer.Do == service.Reject:
		return Hop{}
	case answer.Do == service.Drop:
		return Hop{Dropped: true}
	case len(backends) > 0:
		hop.Pod = chosen(backends, packet)
		hop.Masquerade, hop.As = masqueraded(node, frontend, packet, hop.Pod.Addr())
	default:
		hop.Pod = translated(node.HostPort, packet)
	}
	if hop.Pod.IsValid() {
		packet.Destination, packet.Port = hop.Pod.Addr(), hop.Pod.Port()
	}
	found, routed := lookup(node.Route, packet.Destination)
	if routed && found.Unreachable {
		return Hop{}
	}
	if denial := denied(node, packet, directions...); denial.Pod.IsValid() {
		return Hop{Denied: denial}
	}
	if routed {
		hop.Device, hop.Via, hop.MTU = found.Device, found.Via, found.MTU
		mac, _ := node.Route.Neighbors.Get(route.Neighbor{Device: found.Device, Address: found.Via})
		hop.Remote, _ = node.Route.FDB.Get(route.Station{Device: found.Device, MAC: mac})
	}
	family := model.FamilyOf(packet.Destination)
	switch m := node.Masquerade; {
	case hop.Masquerade, frontend != nil && (isPod(node, packet.Destination) || isHere(node, packet.Destination)):
	case hop.Pod.IsValid() && (packet.Source == hop.Pod.Addr() || packet.Source.IsLoopback()):
		hop.Masquerade, hop.As = true, node.HostPort.Own[family]
	case m != nil && contains(m.Pods, packet.Source) && !contains(m.Cluster, packet.Destination) && !contains(m.Excluded, packet.Destination):
		hop.Masquerade, hop.As = true, m.Sources[family]
	}
	return hop
}

// spoofed tells whether a pod is not to send a packet. Neighbour discovery,
// which goes no further than this node, is not asked about.
func spoofed(sources *antispoof.Plan, packet Packet) bool {
	if sources == nil || packet.Device == "" {
		return false
	}
	_, own := sources.Sources.Get(antispoof.Source{Device: packet.Device, MAC: packet.MAC, Address: packet.Source})
	return !own || packet.Destination.IsLoopback()
}

// here tells whether the DNS server of the node is asked, which is known to be
// well.
func here(listen *dns.Listen, packet Packet) bool {
	if listen == nil {
		return false
	}
	_, is := listen.Own.Get(dns.Port{Protocol: packet.Protocol, At: netip.AddrPortFrom(packet.Destination, packet.Port)})
	return is
}

// translated is the pod's port that a port of the node leads to; invalid if it
// leads to none. A port of one address goes before one of all.
func translated(ports *hostport.Plan, packet Packet) netip.AddrPort {
	if ports == nil || !packet.Local || packet.Destination == netip.IPv6Loopback() {
		return netip.AddrPort{}
	}
	all := netip.IPv4Unspecified()
	if packet.Destination.Is6() {
		all = netip.IPv6Unspecified()
	}
	for _, addr := range []netip.Addr{packet.Destination, all} {
		if pod, ok := ports.Ports.Get(hostport.Port{Protocol: packet.Protocol, At: netip.AddrPortFrom(addr, packet.Port)}); ok {
			return pod
		}
	}
	return netip.AddrPort{}
}

// lookup finds the route with the longest prefix.
func lookup(routes *route.Plan, addr netip.Addr) (route.Route, bool) {
	if routes == nil {
		return route.Route{}, false
	}
	return longest(routes.Routes, addr)
}

// longest finds the value of the longest prefix that an address is in.
func longest[V comparable](values model.Map[netip.Prefix, V], addr netip.Addr) (value V, ok bool) {
	for bits := addr.BitLen(); bits >= 0 && !ok; bits-- {
		prefix, _ := addr.Prefix(bits)
		value, ok = values.Get(prefix)
	}
	return value, ok
}

func contains(prefixes model.Map[netip.Prefix, struct{}], addr netip.Addr) bool {
	for prefix := range prefixes.All() {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}
