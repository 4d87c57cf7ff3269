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
		mac, _ := node.Route.Neighbors.Get(route.Neighbor{Device: found.Device, Address: found.Via})
		hop.Remote, _ = node.Route.FDB.Get(route.Station{Device: found.Device, MAC: mac})
	}
	hop.Masquerade = node.Masquerade != nil &&
		contains(node.Masquerade.Pods, packet.Source) &&
		!contains(node.Masquerade.Cluster, packet.Destination) &&
		!packet.Destination.IsMulticast() && !packet.Destination.IsLinkLocalUnicast()
	return hop
}

// lookup finds the route with the longest prefix.
func lookup(routes *route.Plan, addr netip.Addr) (route.Route, bool) {
	if routes == nil {
		return route.Route{}, false
	}
	for bits := addr.BitLen(); bits >= 0; bits-- {
		prefix, _ := addr.Prefix(bits)
		if found, ok := routes.Routes.Get(prefix); ok {
			return found, true
		}
	}
	return route.Route{}, false
}

func contains(prefixes model.Map[netip.Prefix, struct{}], addr netip.Addr) bool {
	for prefix := range prefixes.All() {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}
