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

// podMTU is that of the pods' links, in bytes. There is an uplink.
func podMTU(s *model.Snapshot, name string) int { return route.PodMTU(s.Network, uplink(s, name)) }
