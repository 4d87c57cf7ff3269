package policy

import (
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestNodes: nodes are peers by their labels, at all their addresses, while they
// have both; a pod that has an address to itself is no node.
func TestNodes(t *testing.T) {
	c := newCluster(t)
	node := func(name, with string, addresses ...string) {
		n := &model.Node{Name: name, Labels: labels(with), Addresses: []netip.Addr{netip.MustParseAddr(addresses[0])}}
		for _, external := range addresses[1:] {
			n.External = append(n.External, netip.MustParseAddr(external))
		}
		c.Nodes = c.Nodes.With(name, n)
	}
	node("m", "role=master", "192.0.2.1", "203.0.113.1")
	node("w", "role=worker", "192.0.2.2")
	var p *Plan
	front := netip.MustParseAddr("10.0.1.1")
	check := func(denied map[string]bool) {
		t.Helper()
		p, _ = Compute(p, &c.Snapshot, "a")
		for peer, denied := range denied {
			at := Subject{model.Egress, front}
			if got := p.Decide(at, netip.MustParseAddr(peer), model.TCP, 6443).Accept; got == denied {
				t.Errorf("%s: accepted %t", peer, got)
			}
			if why := p.Explain(at, netip.MustParseAddr(peer), model.TCP, 6443); why.Accept == denied {
				t.Errorf("%s: %s", peer, why)
			}
		}
	}
	none := map[string]bool{"192.0.2.1": false, "203.0.113.1": false, "192.0.2.2": false}
	check(none)
	masters := model.PolicyRule{AnyPort: true, Peers: []model.Peer{{Nodes: selectorOf("role=master")}}}
	c.judge("x", model.AdminTier, 1, model.Egress, act(model.Deny, masters))
	check(map[string]bool{"192.0.2.1": true, "203.0.113.1": true, "192.0.2.2": false, "192.0.2.3": false})
	node("w", "role=master", "192.0.2.2")
	check(map[string]bool{"192.0.2.1": true, "192.0.2.2": true})
	node("w", "role=master", "192.0.2.3")
	node("m", "role=worker", "192.0.2.2")
	check(map[string]bool{"192.0.2.1": false, "203.0.113.1": false, "192.0.2.2": false, "192.0.2.3": true})
	c.remote("web/far", "app=x", "192.0.2.3")
	check(map[string]bool{"192.0.2.3": false})
	c.ClusterPolicies = c.ClusterPolicies.Without("x")
	node("w", "role=master", "192.0.2.4")
	check(map[string]bool{"192.0.2.3": false, "192.0.2.4": false})
	if p.hosts.Len() != 0 {
		t.Errorf("%d addresses of nodes are kept, and no policy names nodes", p.hosts.Len())
	}
}
