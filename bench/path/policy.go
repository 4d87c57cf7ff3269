package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// The cluster whose policies are measured: 500 namespaces of 100 pods, of ten
// apps each. 200 pods in 40 of them are of the node.
const (
	policedNamespaces = 500
	podsOfNamespace   = 100
	apps              = 10
	busyNamespaces    = 40
	localOfNamespace  = 5
	policiesPerSpace  = 20
)

// The pods that are measured are two of the first namespace, of these apps.
var appOf = [2]int{2, 1}

// policed restricts both pods, by the first of so many NetworkPolicies.
func policed(policies int) recipe {
	return restricted(func(node int) *model.Snapshot { return policedCluster(policies, node) })
}

// ranged lets both pods reach each other by one of so many ranges of addresses of one
// policy, and by nothing else.
func ranged(ranges int) recipe {
	return restricted(func(node int) *model.Snapshot { return rangedCluster(ranges, node) })
}

func rangedCluster(ranges, node int) *model.Snapshot {
	s := policedCluster(0, node)
	rule := model.PolicyRule{AnyPort: true}
	for i := range appOf {
		rule.Peers = append(rule.Peers, model.Peer{Block: model.HostPrefix(podAddress(i))})
	}
	for i := len(appOf); i < ranges; i++ {
		// None touches the next one.
		block := netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 11), byte(i >> 3), byte(i << 5)}), 28)
		rule.Peers = append(rule.Peers, model.Peer{Block: block})
	}
	p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "n0", Name: "ranges"}, Isolates: [2]bool{true, true}}
	for d := range p.Rules {
		p.Rules[d] = []model.PolicyRule{rule}
	}
	s.Policies = s.Policies.With(p.PolicyKey, p)
	return s
}

// restricted carries out the policies of a cluster.
func restricted(cluster func(node int) *model.Snapshot) recipe {
	return func(ctx context.Context, _ *world, node int) error {
		desired := plan.Compute(nil, snapshot(model.BackendVXLAN, true, node), nodeName(node))
		// Of that cluster's other pods, policies alone are carried out: they have
		// no devices.
		desired.Policy, _ = policy.Compute(nil, cluster(node), nodeName(node))
		at := policy.Subject{Direction: [2]model.Direction{model.Egress, model.Ingress}[node], Address: podAddress(node)}
		for peer, accepted := range map[netip.Addr]bool{podAddress(1 - node): true, nodeAddress(1 - node): false} {
			if desired.Policy.Decide(at, peer, model.TCP, port).Accept != accepted {
				return fmt.Errorf("what is measured is not what a policy allows: %s with %s", at.Address, peer)
			}
		}
		return program(ctx, desired)
	}
}

func policedCluster(policies, node int) *model.Snapshot {
	s := &model.Snapshot{Revision: 1, Network: model.DefaultNetwork(), PoliciesKnown: true}
	add := func(namespace string, pod, app int, local bool, addr netip.Addr) {
		p := &model.Pod{
			PodKey: model.PodKey{Namespace: namespace, Name: fmt.Sprint("pod", pod)}, Node: nodeName(1 - node),
			Labels: label("app", app), Addresses: []netip.Addr{addr},
		}
		if local {
			p.Node = nodeName(node)
			key := model.AttachmentKey{ContainerID: p.PodKey.String(), Interface: "eth0"}
			s.Attachments = s.Attachments.With(key, &model.Attachment{AttachmentKey: key, Pod: p.PodKey, Addresses: p.Addresses})
		}
		s.Pods = s.Pods.With(p.PodKey, p)
	}
	for n := range policedNamespaces {
		name := fmt.Sprint("n", n)
		s.Namespaces = s.Namespaces.With(name, &model.Namespace{
			Name: name, Labels: model.LabelsOf(map[string]string{"team": fmt.Sprint(n % 50), nameLabel: name}),
		})
		for i := range podsOfNamespace {
			addr := netip.AddrFrom4([4]byte{10, 100 + byte(n>>8), byte(n), byte(i)})
			add(name, i, i%apps, n < busyNamespaces && i < localOfNamespace, addr)
		}
	}
	for i, app := range appOf {
		add("n0", podsOfNamespace+i, app, i == node, podAddress(i))
	}
	for n := range policies {
		p := allowing(fmt.Sprint("n", n/policiesPerSpace), n%policiesPerSpace)
		s.Policies = s.Policies.With(p.PolicyKey, p)
	}
	return s
}

const nameLabel = "kubernetes.io/metadata.name"

func label(key string, value int) model.Labels {
	return model.LabelsOf(map[string]string{key: fmt.Sprint(value)})
}

// allowing is policy i of a namespace: each app may be called by the next one,
// by one of another team, and from some addresses, and may call the previous one
// and ask for names.
func allowing(namespace string, i int) *model.Policy {
	only := func(key, value string) *model.Selector {
		return &model.Selector{Requirements: []model.Requirement{{Key: key, Operator: model.In, Values: []string{value}}}}
	}
	app := func(n int) *model.Selector { return only("app", fmt.Sprint(n%apps)) }
	own := only(nameLabel, namespace)
	p := &model.Policy{
		PolicyKey: model.PolicyKey{Namespace: namespace, Name: fmt.Sprint("policy", i)}, Pods: *app(i), Isolates: [2]bool{true, true},
	}
	number := func(protocol model.Protocol, port uint16) model.PolicyPort {
		return model.PolicyPort{Protocol: protocol, From: port, To: port}
	}
	p.Rules[model.Ingress] = []model.PolicyRule{
		{Ports: []model.PolicyPort{number(model.TCP, port), number(model.TCP, uint16(1000+i))}, Peers: []model.Peer{
			{Namespaces: own, Pods: app(i + 1)}, {Namespaces: only("team", fmt.Sprint(i)), Pods: app(i)},
		}},
		{Ports: []model.PolicyPort{number(model.TCP, 8080)}, Peers: []model.Peer{{
			Block: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i)}), 16), Except: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i), 7}), 24)},
		}}},
	}
	p.Rules[model.Egress] = []model.PolicyRule{
		{Ports: []model.PolicyPort{number(model.UDP, 53), number(model.TCP, 53)}, Peers: []model.Peer{{Namespaces: only(nameLabel, "n1"), Pods: app(1)}}},
		{AnyPort: true, Peers: []model.Peer{{Namespaces: own, Pods: app(i + apps - 1)}}},
	}
	return p
}
