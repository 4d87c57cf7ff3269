package plan

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/route"
)

// Packet is what Verdict is asked about.
type Packet struct {
	Source, Destination netip.Addr
}

// Hop is what becomes of a packet on one node.
type Hop struct {
	Reachable  bool       // false: the node refuses it, and the rest is zero
	Device     string     // it leaves through; empty: the plan says nothing, the node's other routes decide
	Via        netip.Addr // next hop; invalid if the destination is on the link
	MTU        int        // bytes that fit; 0: the device's
	Remote     netip.Addr // the node that the tunnel leads to; invalid without a tunnel
	Masquerade bool       // it leaves with the node's address
}

// Verdict is the oracle: what the plan of a node makes of a packet that comes
// from a pod of this node or from the node itself. It is slow and readable;
// data planes must agree with it.
func Verdict(node *Node, packet Packet) Hop {
	hop := Hop{Reachable: true}
	if found, ok := lookup(node.Route, packet.Destination); ok {
		if found.Unreachable {
			return Hop{}
		}
		hop.Device, hop.Via, hop.MTU = found.Device, found.Via, found.MTU
		hop.Remote = remote(node.Route, found, packet.Destination)
	}
	hop.Masquerade = node.Masquerade != nil &&
		contains(node.Masquerade.Pods, packet.Source) &&
		!contains(node.Masquerade.Cluster, packet.Destination) &&
		!packet.Destination.IsMulticast() && !packet.Destination.IsLinkLocalUnicast()
	return hop
}

// remote is the node that a route's tunnel leads to.
func remote(routes *route.Plan, found route.Route, destination netip.Addr) (addr netip.Addr) {
	if _, ok := routes.IPIPs.Get(found.Device); ok {
		return found.Via
	}
	if _, ok := routes.UDPs.Get(found.Device); ok {
		addr, _ = longest(routes.UDPPeers, destination)
		return addr
	}
	mac, _ := routes.Neighbors.Get(route.Neighbor{Device: found.Device, Address: found.Via})
	addr, _ = routes.FDB.Get(route.Station{Device: found.Device, MAC: mac})
	return addr
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
