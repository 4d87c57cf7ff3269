package agent

import (
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/route"
)

// uplink is the interface that carries traffic to other nodes; nil if there is
// none, or no such node.
func uplink(s *model.Snapshot, name string) *model.Link {
	node, ok := s.Nodes.Get(name)
	if !ok {
		return nil
	}
	return route.Uplink(s.Links, node)
}

// podMTU is that of the pods' links, in bytes: the uplink's, which there is.
// What is less on the way to some peers is on the routes to them.
func podMTU(s *model.Snapshot, name string) int {
	mtu := uplink(s, name).MTU
	if s.Network.MTU != 0 {
		return min(s.Network.MTU, mtu)
	}
	return mtu
}
