package conformance_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// The tests of this file are of what others got wrong.

// TestManyNamespaces: of a policy that names three hundred namespaces, the last
// counts as the first does (weave#3289: a set of sets was full with the ninth).
func TestManyNamespaces(t *testing.T) {
	const spaces = 300
	n := newPolicyNode(t, 1)
	s := &model.Snapshot{PoliciesKnown: true, Network: model.DefaultNetwork()}
	only := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "default", Name: "many"}}
	only.Isolates[model.Ingress] = true
	for i := range spaces + 1 {
		name := fmt.Sprint("space", i)
		s.Namespaces = s.Namespaces.With(name, &model.Namespace{Name: name, Labels: model.LabelsOf(map[string]string{"number": fmt.Sprint(i)})})
		caller := &model.Pod{PodKey: model.PodKey{Namespace: name, Name: "caller"}, Node: "other"}
		for _, family := range model.Families {
			caller.Addresses = append(caller.Addresses, callerIn(i, family))
		}
		s.Pods = s.Pods.With(caller.PodKey, caller)
		if i == spaces {
			break // nobody names the last
		}
		only.Rules[model.Ingress] = append(only.Rules[model.Ingress], model.PolicyRule{AnyPort: true, Peers: []model.Peer{{
			Namespaces: &model.Selector{Requirements: []model.Requirement{{Key: "number", Operator: model.In, Values: []string{fmt.Sprint(i)}}}},
			Pods:       &model.Selector{},
		}}})
	}
	s.Namespaces = s.Namespaces.With("default", &model.Namespace{Name: "default"})
	s.Policies = s.Policies.With(only.PolicyKey, only)
	called := &model.Attachment{
		AttachmentKey: model.AttachmentKey{ContainerID: "c", Interface: "eth0"}, Pod: model.PodKey{Namespace: "default", Name: "called"}, Addresses: n.pods["pod1"],
	}
	s.Attachments = s.Attachments.With(called.AttachmentKey, called)
	s.Pods = s.Pods.With(called.Pod, &model.Pod{PodKey: called.Pod, Node: "self"})
	planned, problems := policy.Compute(nil, s, "self")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	n.apply(planned)
	var packets []wired
	for i := range spaces + 1 {
		for _, family := range model.Families {
			packets = append(packets, wired{
				device: wiresUplink, source: callerIn(i, family), destination: n.pods["pod1"][family], protocol: model.TCP, port: 80,
			})
		}
	}
	n.expect("each namespace", packets, func(p wired) bool {
		return p.source != callerIn(spaces, model.FamilyOf(p.source))
	})
}

func callerIn(space int, family model.Family) netip.Addr {
	if family == model.IPv4 {
		return netip.AddrFrom4([4]byte{10, 201, byte(space >> 8), byte(space)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:201::%x", space+1))
}

// TestExceptOfOwnNode: addresses of a pod's own node that a block leaves out are
// left out, as those of any other node are (weave#3924).
func TestExceptOfOwnNode(t *testing.T) {
	n := newPolicyNet(t)
	one, two := n.machines[0], n.machines[1]
	calls := func(but ...*machine) {
		p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "default", Name: "outside"}, Pods: ofNode("node1")}
		p.Isolates[model.Egress] = true
		rule := model.PolicyRule{AnyPort: true}
		for _, family := range model.Families {
			peer := model.Peer{Block: netip.PrefixFrom([]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[family], 0)}
			for _, m := range but {
				peer.Except = append(peer.Except, model.HostPrefix(m.node.Address(family)))
			}
			rule.Peers = append(rule.Peers, peer)
		}
		p.Rules[model.Egress] = []model.PolicyRule{rule}
		n.snapshot.Policies = n.snapshot.Policies.With(p.PolicyKey, p)
		n.applyAll()
		n.forgetFlows()
	}
	at := func(m *machine) func(model.Family) netip.AddrPort {
		return func(family model.Family) netip.AddrPort { return netip.AddrPortFrom(m.node.Address(family), 9000) }
	}
	calls()
	n.asks("its own node", one.pod, at(one), allows)
	n.asks("another node", one.pod, at(two), allows)
	calls(one)
	n.asks("its own node, which is left out", one.pod, at(one), denies)
	n.asks("another node", one.pod, at(two), allows)
	calls(two)
	n.asks("its own node", one.pod, at(one), allows)
	n.asks("another node, which is left out", one.pod, at(two), denies)
}
