package conformance_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// TestPolicyDomains: a pod may call the addresses that a name leads to, from when
// that is applied, and others may not be called; it is so for addresses of the
// outside, and of nodes; pods are themselves, whatever leads to them.
func TestPolicyDomains(t *testing.T) {
	n := newPolicyNet(t)
	one, two := n.machines[0], n.machines[1]
	outside := func(family model.Family) netip.AddrPort {
		return netip.AddrPortFrom(two.node.Address(family), 9000)
	}
	policy := &model.ClusterPolicy{Name: "names", Namespaces: &model.Selector{}, Pods: &model.Selector{}}
	chosen := ofNode("node1")
	policy.Pods = &chosen
	policy.Rules[model.Egress] = []model.ClusterRule{
		{Action: model.Accept, PolicyRule: model.PolicyRule{AnyPort: true, Peers: []model.Peer{{Domain: "*.example.org"}}}},
		{Action: model.Deny, PolicyRule: model.PolicyRule{AnyPort: true, Peers: []model.Peer{
			{Block: netip.MustParsePrefix("0.0.0.0/0")}, {Block: netip.MustParsePrefix("::/0")},
		}}},
	}
	n.snapshot.ClusterPolicies = n.snapshot.ClusterPolicies.With(policy.Name, policy)
	n.applyAll()
	n.forgetFlows()
	n.asks("a name that nobody has asked for", one.pod, outside, denies)

	leads := func(name string, to ...netip.Addr) {
		n.snapshot.Resolved = model.Map[netip.Addr, *model.Resolved]{}
		for _, addr := range to {
			n.snapshot.Resolved = n.snapshot.Resolved.With(addr, &model.Resolved{Names: []string{name}})
		}
		n.applyAll()
		n.forgetFlows()
	}
	both := two.node.Addresses
	leads("www.example.org", both...)
	n.asks("a name that leads there", one.pod, outside, allows)
	n.asks("a pod that is no such name", one.pod, n.podAt(2), denies)
	leads("www.example.com", both...)
	n.asks("another name that leads there", one.pod, outside, denies)
	leads("www.example.org", n.podOf(n.machines[2], model.IPv4), n.podOf(n.machines[2], model.IPv6))
	n.asks("a pod that a name leads to", one.pod, n.podAt(2), denies)
	leads("www.example.org", both[0])
	n.asks("an address of one family", one.pod, func(model.Family) netip.AddrPort { return outside(model.FamilyOf(both[0])) }, allows)
	leads("www.example.org")
	n.asks("a name that leads nowhere any more", one.pod, outside, denies)
}

// TestPolicyDomainsCut: where connections end that policies forbid, those go on that
// were made while a name led to their other end, until no policy has the name.
func TestPolicyDomainsCut(t *testing.T) {
	n := newCutNet(t, true)
	one, two := n.machines[0], n.machines[1]
	policy := &model.ClusterPolicy{Name: "names", Namespaces: &model.Selector{}, Pods: &model.Selector{}}
	everything := model.PolicyRule{AnyPort: true, Peers: []model.Peer{{Block: netip.MustParsePrefix("0.0.0.0/0")}, {Block: netip.MustParsePrefix("::/0")}}}
	chosen := ofNode("node1")
	policy.Pods = &chosen
	policy.Rules[model.Egress] = []model.ClusterRule{
		{Action: model.Accept, PolicyRule: model.PolicyRule{AnyPort: true, Peers: []model.Peer{{Domain: "www.example.org"}}}},
		{Action: model.Deny, PolicyRule: everything},
	}
	n.snapshot.ClusterPolicies = n.snapshot.ClusterPolicies.With(policy.Name, policy)
	addr := two.node.Address(model.IPv4)
	n.snapshot.Resolved = n.snapshot.Resolved.With(addr, &model.Resolved{Names: []string{"www.example.org"}})
	n.applyAll()
	at := netip.AddrPortFrom(addr, portKept)
	client, server := n.keepTCP(one.pod, two.space, at, at)
	if !says(client, server) {
		t.Fatal("a name does not lead there")
	}
	n.snapshot.Resolved = n.snapshot.Resolved.With(addr, &model.Resolved{Lapsed: []string{"www.example.org"}})
	n.applyAll()
	n.asks("a name that has led there", one.pod, func(model.Family) netip.AddrPort { return netip.AddrPortFrom(addr, 9000) }, denies)
	if !says(client, server) || !says(server, client) {
		t.Error("a connection ends with the time of the name")
	}
	none := *policy
	none.Rules[model.Egress] = []model.ClusterRule{{Action: model.Deny, PolicyRule: everything}}
	n.snapshot.ClusterPolicies = n.snapshot.ClusterPolicies.With(none.Name, &none)
	n.applyAll()
	for deadline := time.Now().Add(10 * time.Second); says(client, server); {
		if time.Now().After(deadline) {
			t.Fatal("a connection goes on that no policy allows any more")
		}
	}
}
