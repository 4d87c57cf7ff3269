package nftables

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/policy"
	"github.com/fairlead-net/fairlead/plan/service"
)

// denyBy is a decision of the NetworkPolicy of a name.
func denyBy(name string) policy.Decision {
	return policy.Decision{By: policy.Rule{
		Tier: model.NamespaceTier, Policy: model.PolicyKey{Namespace: "default", Name: name}, Rule: policy.Isolated,
	}}
}

var accept = policy.Decision{Accept: true}

// policyPlan makes plans for tests.
type policyPlan struct{ policy.Plan }

// say adds a cell.
func (p *policyPlan) say(direction model.Direction, pod string, group policy.Group, ports policy.Ports) {
	subject := policy.Subject{Direction: direction, Address: netip.MustParseAddr(pod)}
	p.Rows = p.Rows.With(ports.Row(), &ports)
	p.Cells = p.Cells.With(policy.Cell{Subject: subject, Group: group}, ports.Row())
}

func (p *policyPlan) pod(address string, group policy.Group) {
	p.Pods = p.Pods.With(netip.MustParseAddr(address), group)
}

func (p *policyPlan) block(prefix string, group policy.Group) {
	p.Ranges = p.Ranges.With(netip.MustParsePrefix(prefix), group)
}

// examplePolicies have something of everything.
func examplePolicies() *policy.Plan {
	var p policyPlan
	for _, at := range []struct{ own, other, block string }{{"10.244.1.2", "10.244.2.2", "198.51.100.0/24"}, {"fd00:1::2", "fd00:2::2", "2001:db8:51::/48"}} {
		p.pod(at.own, "role=db")
		p.pod(at.other, "role=web")
		p.block(at.block, "friends")
		none := policy.Ports{Default: denyBy("deny-all")}
		p.say(model.Ingress, at.own, policy.Others, none)
		p.say(model.Ingress, at.own, policy.Itself, policy.Ports{Default: accept})
		p.say(model.Ingress, at.own, "role=web", policy.Ports{Default: none.Default, Ranges: []policy.PortRange{
			{Protocol: model.TCP, From: 80, To: 80, Decision: accept},
			{Protocol: model.TCP, From: 8000, To: 8080, Decision: accept},
			{Protocol: model.UDP, To: 65535, Decision: accept},
		}})
		p.say(model.Egress, at.own, policy.Others, none)
		p.say(model.Egress, at.own, "friends", policy.Ports{Default: accept})
	}
	for _, at := range []string{"10.96.0.10:53", "[fd96::a]:53"} {
		for _, protocol := range []model.Protocol{model.UDP, model.TCP} {
			p.Queries = p.Queries.With(policy.Query{Protocol: protocol, At: netip.MustParseAddrPort(at)}, struct{}{})
		}
	}
	return &p.Plan
}

const guard = "\t\tip saddr 127.0.0.0/8 iifname != \"lo\" counter packets 0 bytes 0 drop comment \"as if from the node's loopback interface\"\n"

// TestPolicyListing shows what an administrator sees. TestListingCanBeLoaded
// loads it.
func TestPolicyListing(t *testing.T) {
	netnstest.Enter(t)
	apply(t, New(), example())
	list := listed(t, "list", "table", "inet", TableName)
	for _, want := range []string{
		"policy-port-ranges {\n\t\ttype classid . inet_proto . inet_service : classid\n\t\tflags interval\n",
		" . tcp . 80 : none }", " . tcp . 8000-8080 : none }", " . udp : none }",
		"counter packets 0 bytes 0 : 0x00000001 }", "198.51.100.0/24 : 0:", "none . fd00:1::2 : 0:", "0:1 . 10.244.1.2 : 0:1,",
		"ip daddr . ip saddr @policy-itself4 meta priority set 0:1 goto policy-ingress4-cell",
		"meta priority set ip daddr map @policy-ranges4 goto policy-egress4-cell\n",
		"meta priority set meta priority . ip6 saddr map @policy-egress6 goto policy-row\n",
		"meta priority set meta priority . meta l4proto . th dport map @policy-port-ranges return\n",
		"meta mark set meta priority map @policy-denied-ingress goto policy-drop-ingress\n",
		"fd96::a . udp . 53", "iifgroup 175 ip daddr . meta l4proto . th dport @policy-queries4 jump policy-egress comment",
		"ct status dnat meta l4proto udp ct original ip6 daddr . meta l4proto . ct original proto-dst @policy-asked6 return\n",
		`limit rate 10/second burst 50 packets log prefix "fairlead ingress" group 175 snaplen 128`,
		guard + "\t\tct state established,related accept\n\t\tiifgroup 175 jump policy-sent\n\t\toifgroup 175 jump policy-ingress\n",
		guard + "\t\tip daddr 127.0.0.0/8 iifname != \"lo\" jump loopback-delivered\n\t\tct state established,related accept\n",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
}

// TestPolicyCutListing: where connections are cut there is a chain for what is in
// their middle, and else there is none.
func TestPolicyCutListing(t *testing.T) {
	netnstest.Enter(t)
	plane, keep := New(), example()
	cut, policies := *keep, *keep.Policy
	policies.CutEstablished = true
	cut.Policy = &policies
	jump := "ct state new jump policy-midstream\n"
	wanted := []string{
		guard + "\t\tct state established,related accept\n\t\tiifgroup 175 " + jump + "\t\toifgroup 175 " + jump + "\t\tiifgroup 175 jump policy-sent\n",
		"tcp flags ! syn counter", "meta l4proto sctp @th,96,8 != 0x1 counter",
		"type filter hook output priority filter; policy accept;\n\t\toifgroup 175 " + jump,
	}
	for range 2 {
		for node, has := range map[*plan.Node]bool{&cut: true, keep: false} {
			apply(t, plane, node)
			list := listed(t, "list", "table", "inet", TableName)
			for _, want := range wanted {
				if strings.Contains(list, want) != has {
					t.Errorf("cut %t: %q in\n%s", has, want, list)
				}
			}
		}
	}
	apply(t, plane, &cut)
	list := listed(t, "list", "table", "inet", TableName)
	netnstest.Enter(t)
	load := exec.Command("nft", "-f", "-")
	load.Stdin = strings.NewReader(list)
	if out, err := load.CombinedOutput(); err != nil {
		t.Errorf("nft -f: %v: %s", err, out)
	}
}

// TestPolicyRefused: a pod with something that the kernel refuses is denied all,
// and named; others stay as they are, and it is mended once it can be. The kernel
// refuses ranges that overlap.
func TestPolicyRefused(t *testing.T) {
	netnstest.Enter(t)
	good := example()
	bad := *good
	p := policyPlan{*good.Policy}
	p.say(model.Ingress, "10.244.1.3", policy.Others, policy.Ports{Default: accept})
	p.say(model.Ingress, "10.244.1.3", "role=web", policy.Ports{Default: accept, Ranges: []policy.PortRange{
		{Protocol: model.TCP, From: 10, To: 20, Decision: denyBy("overlaps")},
		{Protocol: model.TCP, From: 15, To: 30, Decision: denyBy("deny-all")},
	}})
	bad.Policy = &p.Plan
	for _, before := range []*plan.Node{nil, good} {
		plane := New()
		if before != nil {
			apply(t, plane, before)
		}
		for range 2 {
			problems, err := plane.Apply(t.Context(), &bad)
			if err != nil || len(problems) != 1 || problems[0].Field != "policy 10.244.1.3 ingress" || problems[0].Remedy == "" {
				t.Fatalf("problems %v, error %v", problems, err)
			}
			cells := inSet(t, "policy-ingress4")
			if n := strings.Count(strings.Join(cells, ";"), "10.244.1.3"); n != 1 || len(cells) != 4 {
				t.Fatalf("policy-ingress4 has %q", cells)
			}
		}
		apply(t, plane, good)
		if cells := inSet(t, "policy-ingress4"); len(cells) != 3 {
			t.Fatalf("policy-ingress4 has %q", cells)
		}
	}
	ranges := *good
	p = policyPlan{*good.Policy}
	p.block("198.51.100.0/25", "enemies")
	ranges.Policy = &p.Plan
	plane := New()
	problems, err := plane.Apply(t.Context(), &ranges)
	if err != nil || len(problems) != 1 || !strings.HasPrefix(problems[0].Field, "policy 198.51.100.0/2") {
		t.Fatalf("problems %v, error %v", problems, err)
	}
	if cells := inSet(t, "policy-egress4"); len(cells) != 2 {
		t.Fatalf("who says no less to that group than to others is denied: policy-egress4 has %q", cells)
	}
	apply(t, plane, good)
}

// TestForwardChain: there is a chain for what is forwarded as long as something is
// judged there, and the table stays.
func TestForwardChain(t *testing.T) {
	netnstest.Enter(t)
	plane, restricted := New(), example()
	free, localhost := masquerading(ranges()), masquerading(ranges())
	localhost.Service = &service.Plan{Sysctls: localhost.Service.Sysctls.With("net/ipv4/conf/all/route_localnet", "1")}
	before := ""
	for i, step := range []struct {
		node *plan.Node
		has  bool
	}{{free, false}, {restricted, true}, {free, false}, {localhost, true}, {restricted, true}, {free, false}} {
		apply(t, plane, step.node)
		list := listed(t, "list", "table", "inet", TableName)
		if has := strings.Contains(list, "chain forward"); has != step.has {
			t.Errorf("step %d: there is a chain: %t, want %t", i, has, step.has)
		}
		if handle := chainHandle(t); before != "" && handle != before {
			t.Errorf("step %d: the table was replaced", i)
		} else {
			before = handle
		}
	}
}
