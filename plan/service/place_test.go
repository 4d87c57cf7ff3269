package service

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// configure sets what all Services have in common, and gives the node two
// interfaces.
func (c *cluster) configure(change func(*model.Services)) {
	network := model.DefaultNetwork()
	change(&network.Services)
	c.Network = network
	prefix := netip.MustParsePrefix
	c.Links = model.MapOf(map[string]*model.Link{
		"eth0": {Name: "eth0", Addresses: []netip.Prefix{prefix("192.0.2.1/24"), prefix("192.0.2.11/24"), prefix("2001:db8::1/64")}},
		"eth1": {Name: "eth1", Addresses: []netip.Prefix{prefix("198.51.100.1/24"), prefix("2001:db8:1::1/64"), prefix("127.1.1.1/8")}},
	})
}

func within(networks ...string) func(*model.Services) {
	return func(s *model.Services) {
		for _, network := range networks {
			s.NodePortAddresses = append(s.NodePortAddresses, netip.MustParsePrefix(network))
		}
	}
}

// TestNodePortAddresses: where node ports are, by the configuration.
func TestNodePortAddresses(t *testing.T) {
	tests := []struct {
		name     string
		change   func(*model.Services)
		want     string
		problems string
	}{
		{"by default", within(), "192.0.2.1 2001:db8::1", ""},
		{"in a network", within("192.0.2.0/24"), "192.0.2.1 192.0.2.11 2001:db8::1", ""},
		{"in networks that overlap", within("192.0.2.0/28", "192.0.2.0/24", "198.51.100.1/32"), "192.0.2.1 192.0.2.11 198.51.100.1 2001:db8::1", ""},
		{"everywhere", within("0.0.0.0/0", "::/0"), "192.0.2.1 192.0.2.11 198.51.100.1 2001:db8::1 2001:db8:1::1", ""},
		{"nowhere in IPv4", within("203.0.113.0/24", "2001:db8:1::/64"), "2001:db8:1::1", "NoNodePortAddress"},
		{"at 127.0.0.1 too", func(s *model.Services) { s.LocalhostNodePorts = true }, "192.0.2.1 127.0.0.1 2001:db8::1", ""},
		{"nobody asks for a loopback by a network", within("127.0.0.0/8", "192.0.2.1/32"), "192.0.2.1 2001:db8::1", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster()
			c.configure(test.change)
			c.serve(service())
			p, problems := Compute(nil, &c.Snapshot, "a")
			var at, reasons []string
			for claim := range claims(service(), &p.place) {
				if claim.kind == NodePort {
					at = append(at, claim.vip.At.Addr().String())
					if f, ok := p.Frontends.Get(claim.vip); !ok || f.Kind != NodePort {
						t.Errorf("%s is claimed, and is %v", claim.vip, f)
					}
				}
			}
			for _, problem := range problems {
				reasons = append(reasons, problem.Reason)
			}
			if got := strings.Join(at, " "); got != test.want || strings.Join(reasons, " ") != test.problems {
				t.Errorf("node ports are at %s, want %s; problems %v", got, test.want, problems)
			}
			localnet := 0
			if strings.Contains(test.want, "127.0.0.1") {
				localnet = 1
			}
			if p.Sysctls.Len() != localnet {
				t.Errorf("%d sysctls, want %d", p.Sysctls.Len(), localnet)
			}
		})
	}
}

// TestNodePortsFollowAddresses: only Services that have node ports are planned
// anew when an address comes or goes.
func TestNodePortsFollowAddresses(t *testing.T) {
	c := newCluster()
	c.configure(within("0.0.0.0/0"))
	inner := service()
	inner.Name, inner.Ports[0].NodePort, inner.ClusterIPs = "inner", 0, []netip.Addr{addr("10.96.0.2")}
	c.serve(service())
	c.serve(inner)
	before, _ := Compute(nil, &c.Snapshot, "a")
	c.Links = c.Links.Without("eth1")
	after, _ := Compute(before, &c.Snapshot, "a")
	var changes []string
	for change := range model.Diff(before.Frontends, after.Frontends) {
		changes = append(changes, fmt.Sprintf("%s %t", change.Key, change.Has))
	}
	if want := []string{"TCP 198.51.100.1:30080 false"}; !slices.Equal(changes, want) {
		t.Errorf("changed %q, want %q", changes, want)
	}
	c.Network = nil // not known for the moment
	if later, _ := Compute(after, &c.Snapshot, "a"); text(later) != text(after) {
		t.Errorf("without a Network\n%s\nbefore\n%s", text(later), text(after))
	}
}

// TestMasqueradeAll: of a ClusterIP, whoever calls; nothing else changes.
func TestMasqueradeAll(t *testing.T) {
	for _, local := range []bool{false, true} {
		c, s := newCluster(), service()
		s.InternalLocal, s.ExternalLocal = local, local
		c.serve(s)
		c.configure(func(*model.Services) {})
		p, _ := Compute(nil, &c.Snapshot, "a")
		before := text(p)
		c.configure(func(s *model.Services) { s.MasqueradeAll = true })
		p, _ = Compute(p, &c.Snapshot, "a")
		if want := strings.ReplaceAll(before, "masquerade outside", "masquerade all"); text(p) != want || want == before {
			t.Errorf("got\n%s\nwant\n%s", text(p), want)
		}
	}
}

// TestNodePortsNotAtBalancers: who announces a load balancer's address may give it
// to an interface of the node. All other Services' node ports are not there
// (kubernetes#111863), unless it is one of the Node's own addresses, which some
// load balancers lend. When it is a load balancer's no more, they are.
func TestNodePortsNotAtBalancers(t *testing.T) {
	c := newCluster()
	c.configure(within("192.0.2.0/24"))
	var p *Plan
	at := func(balancers ...string) string {
		balanced := service()
		balanced.Name, balanced.ClusterIPs, balanced.Ports[0].NodePort = "balanced", []netip.Addr{addr("10.96.0.2")}, 0
		for _, balancer := range balancers {
			balanced.LoadBalancerIPs = append(balanced.LoadBalancerIPs, addr(balancer))
		}
		c.serve(balanced)
		p, _ = Compute(p, &c.Snapshot, "a")
		var found []string
		for _, own := range []string{"192.0.2.1", "192.0.2.11"} {
			if _, ok := p.Frontends.Get(VIP{model.TCP, netip.AddrPortFrom(addr(own), 30080)}); ok {
				found = append(found, own)
			}
		}
		return strings.Join(found, " ")
	}
	c.serve(service())
	for _, step := range []struct {
		balancers []string
		want      string
	}{
		{nil, "192.0.2.1 192.0.2.11"},
		{[]string{"192.0.2.11"}, "192.0.2.1"},
		{[]string{"192.0.2.1", "192.0.2.11"}, "192.0.2.1"},
		{nil, "192.0.2.1 192.0.2.11"},
	} {
		if got := at(step.balancers...); got != step.want {
			t.Errorf("with load balancers at %v, node ports are at %s, want %s", step.balancers, got, step.want)
		}
	}
}

// TestNoAddressOfFamily: a node without an address of a family has a Problem while
// there are node ports of it, and serves all else of that family.
func TestNoAddressOfFamily(t *testing.T) {
	c := newCluster()
	c.Nodes = c.Nodes.With("a", &model.Node{Name: "a", Addresses: []netip.Addr{addr("192.0.2.1")}})
	c.serve(service())
	c.slice("1", 8080, endpoint("fd00::1", "b"))
	p, problems := Compute(nil, &c.Snapshot, "a")
	if len(problems) != 1 || problems[0].Kind != "Node" || problems[0].Name != "a" || problems[0].Reason != "NoNodePortAddress" || problems[0].Remedy == "" {
		t.Errorf("problems %v", problems)
	}
	if f, ok := p.Frontends.Get(VIP{model.TCP, netip.MustParseAddrPort("[fd96::1]:80")}); !ok || p.answer(f, f.Inside) != "[[fd00::1]:8080]" {
		t.Errorf("the ClusterIP is %v", f)
	}
	s := service()
	s.Ports[0].NodePort = 0
	c.serve(s)
	if _, problems := Compute(p, &c.Snapshot, "a"); len(problems) > 0 {
		t.Errorf("without node ports, problems %v", problems)
	}
}
