package agent

import "github.com/fairlead-net/fairlead/model"

// uplink is the interface that has the node's address, of IPv4 if it has one;
// nil if none has.
func uplink(s *model.Snapshot, name string) *model.Link {
	node, ok := s.Nodes.Get(name)
	if !ok {
		return nil
	}
	for _, family := range model.Families {
		var found *model.Link
		for _, link := range s.Links.All() {
			for _, prefix := range link.Addresses {
				if prefix.Addr() == node.Address(family) && (found == nil || link.Name < found.Name) {
					found = link
				}
			}
		}
		if found != nil {
			return found
		}
	}
	return nil
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
