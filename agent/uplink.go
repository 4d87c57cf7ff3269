package agent

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/whole"
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

// uplinkless says why there is none, and what to do. The snapshot has nothing of lo:
// the interface that has the node's address is the one that carries tunnels.
func uplinkless(node *model.Node) string {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		addrs, _ := whole.List(func() ([]netlink.Addr, error) { return netlink.AddrList(lo, netlink.FAMILY_ALL) })
		for _, held := range addrs {
			if addr := prefixOf(*held.IPNet).Addr(); slices.Contains(node.Addresses, addr) {
				return fmt.Sprintf("only lo has the address %s of node %s, and the interface by which other nodes are reached needs it; give it to that one, too, such as ip address add %s dev eth0 (docs/install.md)",
					addr, node.Name, model.HostPrefix(addr))
			}
		}
	}
	return fmt.Sprintf("no interface that is up has an address of node %s; compare kubectl get node -o wide with ip addr, and give the kubelet the right --node-ip", node.Name)
}

// podMTU is that of the pods' links, in bytes. There is an uplink.
func podMTU(s *model.Snapshot, name string) int { return route.PodMTU(s.Network, uplink(s, name)) }
