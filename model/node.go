package model

import (
	"net/netip"
	"slices"
)

// Node is a machine of the cluster.
type Node struct {
	Name      string
	UID       string
	Addresses []netip.Addr   // its InternalIPs; the first of a family is the one that peers send to
	External  []netip.Addr   // its ExternalIPs; no plan of a node sees them
	PodCIDRs  []netip.Prefix // masked; the first of a family is the range of its pods
	Zone      string         // topology.kubernetes.io/zone, may be empty
	Labels    Labels         // that policies choose nodes by, and that keep agents away
	Leaving   bool           // it is being deleted, or its autoscaler is about to: load balancers are to leave it out
	Flannel   string         // flannel's backend, such as vxlan, if it runs there or did until lately: its ways are there still
}

// Address returns the node's address of a family; invalid if it has none.
func (n *Node) Address(family Family) netip.Addr {
	for _, addr := range n.Addresses {
		if FamilyOf(addr) == family {
			return addr
		}
	}
	return netip.Addr{}
}

// WithoutAgent returns the label that keeps the agents' DaemonSet away from the node
// (deploy/base.yaml), such as fairlead.io/agent=none; empty if it is to have an agent.
// A node whose system is not said is: the kubelet says it, so something has gone wrong.
func (n *Node) WithoutAgent() string {
	const agent, system = "fairlead.io/agent", "kubernetes.io/os"
	if value, _ := n.Labels.Get(agent); value == "none" {
		return agent + "=none"
	}
	if value, said := n.Labels.Get(system); said && value != "linux" {
		return system + "=" + value
	}
	return ""
}

// PodCIDR returns the range of the node's pods in a family; invalid if it has
// none.
func (n *Node) PodCIDR(family Family) netip.Prefix {
	for _, prefix := range n.PodCIDRs {
		if FamilyOf(prefix.Addr()) == family {
			return prefix
		}
	}
	return netip.Prefix{}
}

// Equal tells whether nothing differs.
func (n *Node) Equal(other *Node) bool {
	return n.Name == other.Name && n.UID == other.UID && n.Zone == other.Zone && n.Labels == other.Labels && n.Leaving == other.Leaving && n.Flannel == other.Flannel &&
		slices.Equal(n.Addresses, other.Addresses) && slices.Equal(n.External, other.External) && slices.Equal(n.PodCIDRs, other.PodCIDRs)
}
