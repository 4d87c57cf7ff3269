package firewall

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func snapshot(setting model.ForeignFirewall, drops ...model.ForwardChain) *model.Snapshot {
	network := model.DefaultNetwork()
	network.ForeignFirewall = setting
	s := &model.Snapshot{Network: network, Firewalls: &model.Firewalls{Drops: drops}}
	s.Nodes = s.Nodes.With("self", &model.Node{Name: "self", PodCIDRs: []netip.Prefix{
		netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64"),
	}})
	former := &model.Attachment{Device: "fl0", Addresses: []netip.Addr{
		netip.MustParseAddr("10.244.1.9"), netip.MustParseAddr("10.9.0.9"),
	}}
	s.Attachments = s.Attachments.With(former.AttachmentKey, former)
	return s
}

func accepts(p *Plan) (texts []string) {
	for accept := range p.Accepts.All() {
		texts = append(texts, accept.String())
	}
	slices.Sort(texts)
	return texts
}

var (
	iptables  = model.ForwardChain{Family: "ip", Table: "filter", Chain: "FORWARD"}
	ip6tables = model.ForwardChain{Family: "ip6", Table: "filter", Chain: "FORWARD"}
	firewalld = model.ForwardChain{Family: "inet", Table: "firewalld", Chain: "filter_FORWARD"}
	custom    = model.ForwardChain{Family: "inet", Table: "filter", Chain: "forward"}
)

func TestCompute(t *testing.T) {
	all := []model.ForwardChain{custom, firewalld, iptables, ip6tables}
	for _, c := range []struct {
		setting  model.ForeignFirewall
		drops    []model.ForwardChain
		accepts  []string
		problems []string // parts of each
	}{
		{model.AcceptInForeign, nil, nil, nil},
		{
			model.AcceptInForeign, []model.ForwardChain{iptables},
			[]string{"10.244.1.0/24 in ip filter FORWARD", "10.9.0.9/32 in ip filter FORWARD"}, nil,
		},
		{
			model.AcceptInForeign, all,
			[]string{"10.244.1.0/24 in ip filter FORWARD", "10.9.0.9/32 in ip filter FORWARD", "fd00:1::/64 in ip6 filter FORWARD"},
			[]string{`nft insert rule inet filter forward iifname "fl*" accept`, "firewall-cmd --permanent --zone=trusted --add-source=10.244.1.0/24"},
		},
		{
			model.ReportForeign, all, nil,
			[]string{"inet filter forward", "firewall-cmd", "Accept, or let pods' packets pass: iptables", "ip6tables -I FORWARD -i fl+"},
		},
		{model.IgnoreForeign, all, nil, nil},
	} {
		got, problems := Compute(nil, snapshot(c.setting, c.drops...), "self")
		if texts := accepts(got); !slices.Equal(texts, c.accepts) {
			t.Errorf("%s %v: accepts %q", c.setting, c.drops, texts)
		}
		if len(problems) != len(c.problems) {
			t.Fatalf("%s %v: problems %v", c.setting, c.drops, problems)
		}
		for i, problem := range problems {
			if !strings.Contains(problem.String(), c.problems[i]) || !strings.HasPrefix(problem.Field, "nftables ") {
				t.Errorf("%s %v: %s", c.setting, c.drops, problem)
			}
		}
	}
}

// TestPasses: a chain is in nobody's way if it accepts all that pods send, and all that
// any pod sends to them.
func TestPasses(t *testing.T) {
	pass := func(of model.PassOf, pods string) model.ForwardPass {
		return model.ForwardPass{Chain: custom, Of: of, Pods: netip.MustParsePrefix(pods)}
	}
	all6 := []model.ForwardPass{pass(model.FromPods, "::/0"), pass(model.ToPods, "::/0")}
	for _, c := range []struct {
		passes []model.ForwardPass
		fine   bool
	}{
		{all6, false},
		{append(all6, pass(model.FromPods, "0.0.0.0/0")), false},
		{append(all6, pass(model.ToPods, "0.0.0.0/0")), false},
		{append(all6, pass(model.FromPods, "0.0.0.0/0"), pass(model.ToPods, "10.0.0.0/8")), true},
		{append(all6, pass(model.FromPods, "10.244.1.0/25"), pass(model.ToPods, "10.0.0.0/8")), false},
		{append(all6, pass(model.BySource, "10.0.0.0/8")), true},
		{append(all6, pass(model.BySource, "10.244.1.0/24"), pass(model.BySource, "10.9.0.0/16")), false}, // the other node's pods
		{append(all6, pass(model.BySource, "10.244.1.0/24"), pass(model.BySource, "10.9.0.0/16"), pass(model.BySource, "10.244.2.0/23")), true},
		{[]model.ForwardPass{{Chain: firewalld, Of: model.BySource, Pods: model.AllOf(model.IPv4)}, {Chain: firewalld, Of: model.BySource, Pods: model.AllOf(model.IPv6)}}, false},
	} {
		s := snapshot(model.AcceptInForeign, custom)
		s.Nodes = s.Nodes.With("other", &model.Node{Name: "other", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}})
		s.Firewalls.Passes = c.passes
		if _, problems := Compute(nil, s, "self"); (len(problems) == 0) != c.fine {
			t.Errorf("%v: problems %v", c.passes, problems)
		}
	}
	// Where our rules may be, they are put beside those of others, which may go.
	s := snapshot(model.AcceptInForeign, iptables)
	s.Firewalls.Passes = []model.ForwardPass{{Chain: iptables, Of: model.BySource, Pods: model.AllOf(model.IPv4)}}
	if p, _ := Compute(nil, s, "self"); len(accepts(p)) != 2 {
		t.Errorf("accepts %q", accepts(p))
	}
	s.Network.ForeignFirewall = model.ReportForeign
	if p, problems := Compute(nil, s, "self"); len(accepts(p)) != 0 || len(problems) != 0 {
		t.Errorf("accepts %q, problems %v", accepts(p), problems)
	}
}

// TestPassingIsKept: nodes are compared with what chains accept when one of the two
// changes, not with each plan.
func TestPassingIsKept(t *testing.T) {
	s := snapshot(model.ReportForeign, custom)
	first, _ := Compute(nil, s, "self")
	other := *s
	other.Pods = other.Pods.With(model.PodKey{Name: "new"}, &model.Pod{})
	if again, problems := Compute(first, &other, "self"); again != first || len(problems) != 1 {
		t.Errorf("another plan, problems %v", problems)
	}
	other.Firewalls = &model.Firewalls{Drops: s.Firewalls.Drops, Passes: []model.ForwardPass{
		{Chain: custom, Of: model.BySource, Pods: model.AllOf(model.IPv4)}, {Chain: custom, Of: model.BySource, Pods: model.AllOf(model.IPv6)},
	}}
	if again, problems := Compute(first, &other, "self"); again == first || len(problems) != 0 || again.Accepts != first.Accepts {
		t.Errorf("problems %v", problems)
	}
}

// TestNoRanges: pods that run on a node without a range, as all nodes are.
func TestNoRanges(t *testing.T) {
	s := snapshot(model.ReportForeign, firewalld)
	s.Nodes = model.MapOf(map[string]*model.Node{"self": {Name: "self"}})
	_, problems := Compute(nil, s, "self")
	if len(problems) != 1 || !strings.Contains(problems[0].Remedy, "--add-source=10.9.0.9/32") && !strings.Contains(problems[0].Remedy, "--add-source=10.244.1.9/32") {
		t.Errorf("problems %v", problems)
	}
}

// TestAllPods: the remedy names a range that has those of all nodes.
func TestAllPods(t *testing.T) {
	s := snapshot(model.ReportForeign, firewalld)
	s.Nodes = s.Nodes.With("other", &model.Node{Name: "other", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.6.0/24"), netip.MustParsePrefix("fd00:1:0:7::/64")}})
	_, problems := Compute(nil, s, "self")
	if len(problems) != 1 || !strings.Contains(problems[0].Remedy, "--add-source=10.244.0.0/21, the same of each of [10.244.0.0/21 fd00:1::/61]") {
		t.Errorf("problems %v", problems)
	}
}

// What cannot be told leaves what was; what is the same is the same plan.
func TestComputeAgain(t *testing.T) {
	known := snapshot(model.AcceptInForeign, iptables)
	first, _ := Compute(nil, known, "self")
	unknown := *known
	unknown.Firewalls = nil
	for _, s := range []*model.Snapshot{known, &unknown, snapshot(model.AcceptInForeign, iptables), {}} {
		if again, _ := Compute(first, s, "self"); again != first {
			t.Errorf("another plan: %q", accepts(again))
		}
	}
	if p, _ := Compute(nil, &unknown, "self"); p != nil {
		t.Errorf("planned %q from nothing", accepts(p))
	}
	// A node without IPv6 is in nobody's way.
	only4 := snapshot(model.ReportForeign, ip6tables)
	only4.Nodes = only4.Nodes.With("self", &model.Node{Name: "self", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
	if _, problems := Compute(nil, only4, "self"); len(problems) > 0 {
		t.Errorf("problems %v", problems)
	}
}
