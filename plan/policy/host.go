package policy

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// host is the nodes that have an address: one, but for the moment that another
// takes its place. It is immutable.
type host struct{ nodes []*model.Node }

// nodesText is for people, and unlike the name of any other peers.
func nodesText(s *model.Selector) string {
	if len(s.Requirements) == 0 {
		return "all nodes"
	}
	return "nodes " + s.String()
}

// planHosts follows the addresses of nodes while some peers choose nodes; else
// nobody asks for them. changed says that such peers came or went.
func (c *computation) planHosts(changed bool) {
	if changed {
		c.nodePeers = slices.DeleteFunc(c.allPeers(), func(p *peers) bool { return p.nodes == nil })
	}
	var before, now model.Map[string, *model.Node]
	if len(c.before.nodePeers) > 0 {
		before = c.before.from.Nodes
	}
	if len(c.nodePeers) > 0 {
		now = c.snapshot.Nodes
	}
	for change := range model.Diff(before, now) {
		if change.Had {
			c.house(change.Old, false)
		}
		if change.Has {
			c.house(change.New, true)
		}
	}
	if changed {
		for _, node := range now.All() {
			for _, addr := range hostAddresses(node) {
				c.touched[addr] = struct{}{}
			}
		}
	}
}

func hostAddresses(node *model.Node) []netip.Addr {
	return slices.Concat(node.Addresses, node.External)
}

// house notes or forgets that a node has its addresses.
func (c *computation) house(node *model.Node, on bool) {
	for _, addr := range hostAddresses(node) {
		c.touched[addr] = struct{}{}
		next := &host{}
		if known, ok := c.hosts.get(addr); ok {
			next.nodes = slices.DeleteFunc(slices.Clone(known.nodes), func(other *model.Node) bool { return other == node })
		}
		if on {
			next.nodes = append(next.nodes, node)
		}
		if len(next.nodes) == 0 {
			c.hosts.remove(addr)
		} else {
			c.hosts.put(addr, next)
		}
	}
}

// unowned tells what addresses are members of that are no pods': by their ranges,
// by the names that lead to them, and by their nodes.
type unowned struct {
	blocks  *blocks
	domains *domains
	nodes   []*peers
}

// own are sorted by name; nil of an address of which nothing but its range is asked
// for.
func (u unowned) own(names []string, at *host, addr netip.Addr) []member {
	chosen := u.domains.of(names)
	if at != nil {
		for _, p := range u.nodes {
			if slices.ContainsFunc(at.nodes, func(n *model.Node) bool { return p.nodes.Matches(n.Labels) }) {
				chosen = append(chosen, p)
			}
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	return bareMembers(sorted(append(chosen, u.blocks.of(addr)...)))
}

// members are those of an address in any case.
func (u unowned) members(resolved *model.Resolved, at *host, addr netip.Addr) []member {
	var names []string
	if resolved != nil {
		names = resolved.Names
	}
	if own := u.own(names, at, addr); own != nil {
		return own
	}
	return bareMembers(u.blocks.of(addr))
}

func (c *computation) unowned() unowned { return unowned{c.blocks, c.domains, c.nodePeers} }

func (p *Plan) unowned() unowned { return unowned{p.blocks, p.domains, p.nodePeers} }
