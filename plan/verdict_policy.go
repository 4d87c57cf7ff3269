package plan

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// Denial is of a connection that policies forbid. The zero value is none.
type Denial struct {
	Pod       netip.Addr // whose policies do, a pod of this node; invalid: none
	Direction model.Direction
	By        policy.Rule
}

// isQuery tells whether a packet asks for a name at the address of the Service of
// DNS: egress is judged by that, and not by who answers.
func isQuery(node *Node, packet Packet) bool {
	if node.Policy == nil {
		return false
	}
	_, is := node.Policy.Queries.Get(policy.Query{Protocol: packet.Protocol, At: netip.AddrPortFrom(packet.Destination, packet.Port)})
	return is
}

// denied asks the policies of the pods of this node at the ends of a connection
// that have one of the directions; a packet that
// a Service or a port of the node sends on is asked about as it goes on. What
// the node itself sends to its pods is not judged: probes get through.
func denied(node *Node, packet Packet, directions ...model.Direction) Denial {
	if node.Policy == nil || packet.Established || !packet.Source.IsValid() {
		return Denial{}
	}
	ends := [...]struct {
		at   policy.Subject
		peer netip.Addr
	}{
		{policy.Subject{Direction: model.Egress, Address: packet.Source}, packet.Destination},
		{policy.Subject{Direction: model.Ingress, Address: packet.Destination}, packet.Source},
	}
	for _, end := range ends {
		if !slices.Contains(directions, end.at.Direction) {
			continue
		}
		if end.at.Direction == model.Ingress && node.Service != nil && fromHere(node, packet) {
			continue
		}
		decision := node.Policy.Decide(end.at, end.peer, packet.Protocol, packet.Port)
		if !decision.Accept {
			return Denial{end.at.Address, end.at.Direction, decision.By}
		}
	}
	return Denial{}
}
