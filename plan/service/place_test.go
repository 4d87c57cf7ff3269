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
