package conformance_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/model"
)

// names is the Service of DNS. Its pods have another port than it.
func names() *model.Service {
	return &model.Service{
		ServiceKey: model.DefaultDNS().Service, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd96::a")},
		Ports: []model.ServicePort{{Name: "tcp", Protocol: model.TCP, Port: 53}, {Name: "udp", Protocol: model.UDP, Port: 53}},
		Serves: &model.Selected{
			Labels: model.LabelsOf(map[string]string{"k8s-app": "kube-dns"}),
			Ports:  []model.ContainerPort{{Protocol: model.TCP, Port: 9000}, {Protocol: model.UDP, Port: 9000}},
		},
	}
}

func namesAt(family model.Family) netip.AddrPort {
	return netip.AddrPortFrom(names().ClusterIPs[family], 53)
}

// queryRules are what the pod of node1 is told, and whether it may ask for names
// then.
func queryRules() map[string]struct {
	rules []model.PolicyRule
	want  bool
} {
	type told = struct {
		rules []model.PolicyRule
		want  bool
	}
	at := func(port uint16, peers ...model.Peer) []model.PolicyRule {
		return []model.PolicyRule{{
			Anyone: peers == nil, Peers: peers,
			Ports: []model.PolicyPort{{Protocol: model.TCP, From: port, To: port}, {Protocol: model.UDP, From: port, To: port}},
		}}
	}
	dns := model.Peer{
		Namespaces: &model.Selector{Requirements: []model.Requirement{{Key: "kubernetes.io/metadata.name", Values: []string{"kube-system"}}}},
		Pods:       &model.Selector{Requirements: []model.Requirement{{Key: "k8s-app", Values: []string{"kube-dns"}}}},
	}
	nodes := []model.Peer{{Namespaces: &model.Selector{}, Pods: &model.Selector{Requirements: []model.Requirement{{Key: "pod", Operator: model.Exists}}}}}
	return map[string]told{
		"the usual rule":           {at(9000, dns), allows},
		"at another port":          {at(53, dns), denies},
		"nothing":                  {nil, denies},
		"other pods":               {at(9000, nodes...), denies},
		"addresses of Services":    {at(9000, model.Peer{Block: netip.MustParsePrefix("10.96.0.0/16")}, model.Peer{Block: netip.MustParsePrefix("fd96::/64")}), allows},
		"addresses of who answers": {at(9000, model.Peer{Block: netip.MustParsePrefix("10.244.0.0/16")}, model.Peer{Block: netip.MustParsePrefix("192.0.2.0/24")}), denies},
	}
}

func (n *serviceNet) tellQueries(rules []model.PolicyRule) {
	p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "default", Name: "queries"}, Pods: ofNode("node1"), Isolates: [2]bool{model.Egress: true}}
	p.Rules[model.Egress] = rules
	n.snapshot.Policies = n.snapshot.Policies.With(p.PolicyKey, p)
	n.applyAll()
}

// TestPolicyQueries: whoever answers for the Service of DNS, who may ask it is
// what rules say of the pods that it selects.
func TestPolicyQueries(t *testing.T) {
	n := newPolicyNet(t)
	one := n.machines[0]
	for where, number := range map[string]int{"another node": -2, "its own node": -1, "a pod elsewhere": 2, "itself": 1} {
		n.setService(names(), nil, number)
		for name, told := range queryRules() {
			n.tellQueries(told.rules)
			n.forgetFlows()
			n.asks(fmt.Sprintf("told of %s, it asks, and %s answers", name, where), one.pod, namesAt, told.want)
		}
	}
	n.tellQueries(queryRules()["the usual rule"].rules)
	n.forgetFlows()
	n.asks("it calls who answers by its own address", one.pod, n.podAt(1), denies)
	quiet := &model.ClusterPolicy{Name: "quiet", Namespaces: &model.Selector{}, Pods: &model.Selector{}}
	quiet.Rules[model.Egress] = []model.ClusterRule{{Action: model.Deny, PolicyRule: queryRules()["the usual rule"].rules[0]}}
	n.snapshot.ClusterPolicies = n.snapshot.ClusterPolicies.With(quiet.Name, quiet)
	n.applyAll()
	n.forgetFlows()
	n.asks("the cluster's policy forbids it", one.pod, namesAt, denies)
	n.asks("the node itself asks", one.space, namesAt, allows)
}

// TestPolicyQueriesUntracked: the same of queries that the node answers itself,
// untranslated and untracked.
func TestPolicyQueriesUntracked(t *testing.T) {
	n := newPolicyNet(t)
	one := n.machines[0]
	n.setService(names(), nil)
	one.space.Do(func() {
		for _, addr := range names().ClusterIPs {
			n.check(rtnl.AddrAdd(n.device("lo"), &rtnl.Addr{IPNet: ipNet(model.HostPrefix(addr))}))
		}
		load := exec.Command("nft", "-f", "-")
		load.Stdin = strings.NewReader(`table inet untracked {
			chain in { type filter hook prerouting priority raw; ip daddr 10.96.0.10 notrack; ip6 daddr fd96::a notrack; }
			chain out { type filter hook output priority raw; ip saddr 10.96.0.10 notrack; ip6 saddr fd96::a notrack; }
		}`)
		if out, err := load.CombinedOutput(); err != nil {
			t.Errorf("nft -f: %v: %s", err, out)
		}
	})
	n.serveAt(one.space, 53, names().ClusterIPs...)
	for name, told := range queryRules() {
		n.tellQueries(told.rules)
		n.forgetFlows()
		n.asks(fmt.Sprintf("told of %s, it asks its own node", name), one.pod, namesAt, told.want)
	}
	n.snapshot.Policies = n.snapshot.Policies.Without(model.PolicyKey{Namespace: "default", Name: "queries"})
	n.applyAll()
	n.asks("without policies", one.pod, namesAt, allows)
}

// TestPolicyCutsQueries: a connection to the Service of DNS ends when nobody may
// ask it any more, and not because of who answers.
func TestPolicyCutsQueries(t *testing.T) {
	for _, family := range model.Families {
		t.Run(family.String(), func(t *testing.T) {
			n := newCutNet(t, true)
			one, two := n.machines[0], n.machines[1]
			n.setService(names(), nil, -2)
			for key, slice := range n.snapshot.Slices.All() {
				other := *slice
				other.Ports = []model.EndpointPort{{Name: "tcp", Protocol: model.TCP, Port: portKept}}
				n.snapshot.Slices = n.snapshot.Slices.With(key, &other)
			}
			usual := queryRules()["the usual rule"].rules
			n.tellQueries(slices.Concat(usual, []model.PolicyRule{{Peers: queryRules()["other pods"].rules[0].Peers, AnyPort: true}}))
			server := two.node.Address(family)
			client, answers := n.keepTCP(one.pod, two.space, netip.AddrPortFrom(server, portKept), namesAt(family))
			k := kept{name: "TCP to the Service of DNS", at: one, called: server, from: n.podOf(one, family), protocol: model.TCP}
			other := netip.AddrPortFrom(n.podOf(two, family), portKept)
			n.keepTCP(one.pod, two.pod, other, other)
			n.tellQueries(usual)
			n.untracked(kept{name: "TCP to a pod", at: one, called: other.Addr(), from: k.from, protocol: model.TCP})
			if !says(client, answers) || !n.tracked(k) {
				t.Error("it ended though the usual rule allows it")
			}
			n.tellQueries(nil)
			n.untracked(k)
			if says(answers, client) || says(client, answers) {
				t.Error("it goes on though nothing allows it")
			}
		})
	}
}
