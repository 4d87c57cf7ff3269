package policy

import (
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestNetworkPolicies: what each way to write a NetworkPolicy means. Pods are
// those of newCluster.
func TestNetworkPolicies(t *testing.T) {
	const no = "deny by NetworkPolicy web/p: no rule allows it"
	tests := []struct {
		name  string
		make  func(*cluster)
		lines []string
	}{
		{"without policies all is allowed", func(*cluster) {}, []string{
			"10.0.1.1 ingress from 10.0.2.1 TCP 80: accept",
			"10.0.1.1 egress to 8.8.8.8 UDP 53: accept",
		}},
		{"no rules deny all of that direction", func(c *cluster) { c.isolate("web/p", "", model.Ingress) }, []string{
			"10.0.1.1 ingress from 10.0.2.1 TCP 80: " + no,
			"10.0.1.1 ingress from 10.0.2.1 ICMP: " + no,
			"fd00:1::1 ingress from fd00:2::1 TCP 80: " + no,
			"10.0.1.1 egress to 10.0.2.1 TCP 80: accept",
		}},
		{"an empty rule allows all, protocols without ports too", func(c *cluster) { c.isolate("web/p", "", model.Ingress, allow(nil)) }, []string{
			"10.0.1.1 ingress from 8.8.8.8 TCP 80: accept",
			"10.0.1.1 ingress from 10.0.2.1 ICMP: accept",
		}},
		{"of another namespace it is nobody's business here", func(c *cluster) { c.isolate("db/p", "", model.Ingress) }, []string{
			"10.0.1.1 ingress from 10.0.2.1 TCP 80: accept",
		}},
		{"only pods that it selects are isolated", func(c *cluster) { c.isolate("web/p", "app=front", model.Ingress) }, []string{
			"10.0.1.1 ingress from 10.0.2.1 TCP 80: " + no,
			"10.0.1.2 ingress from 10.0.2.1 TCP 80: accept",
		}},
		{"a peer of pods alone is of the policy's namespace", func(c *cluster) {
			c.remote("db/front", "app=front", "10.0.2.9")
			c.isolate("web/p", "", model.Ingress, allow(nil, own("web", "app=front")))
		}, []string{
			"10.0.1.2 ingress from 10.0.2.1 TCP 80: accept",
			"10.0.1.2 ingress from 10.0.1.1 TCP 80: accept",
			"10.0.1.2 ingress from 10.0.2.9 TCP 80: " + no,
		}},
		{"a peer of namespaces is all of their pods", func(c *cluster) {
			c.isolate("web/p", "", model.Ingress, allow(nil, pods("team=b", "")))
		}, []string{
			"10.0.1.1 ingress from 10.0.2.2 TCP 80: accept",
			"10.0.1.1 ingress from 10.0.2.3 TCP 80: accept",
			"10.0.1.1 ingress from 10.0.2.1 TCP 80: " + no,
			"10.0.1.1 ingress from 8.8.8.8 TCP 80: " + no,
		}},
		{"both in one peer have to hold", func(c *cluster) {
			c.isolate("web/p", "", model.Ingress, allow(nil, pods("team=b", "app=sql")))
		}, []string{
			"10.0.1.1 ingress from 10.0.2.2 TCP 80: accept",
			"10.0.1.1 ingress from 10.0.2.3 TCP 80: " + no,
		}},
		{"one of two peers is enough", func(c *cluster) {
			c.isolate("web/p", "", model.Ingress, allow(nil, pods("team=b", ""), own("web", "app=front")))
		}, []string{
			"10.0.1.1 ingress from 10.0.2.3 TCP 80: accept",
			"10.0.1.2 ingress from 10.0.2.1 TCP 80: accept",
			"10.0.1.1 ingress from 10.0.1.2 TCP 80: " + no,
		}},
		{"rules of several policies add up", func(c *cluster) {
			c.isolate("web/p", "", model.Ingress, allow(tcp(80)))
			c.isolate("web/q", "", model.Ingress, allow(tcp(81)))
		}, []string{
			"10.0.1.1 ingress from 8.8.8.8 TCP 80: accept",
			"10.0.1.1 ingress from 8.8.8.8 TCP 81: accept",
			"10.0.1.1 ingress from 8.8.8.8 TCP 82: " + no,
		}},
		{"a protocol without a number is all of its ports, and no other", func(c *cluster) {
			c.isolate("web/p", "", model.Ingress, allow([]model.PolicyPort{{Protocol: model.UDP, To: 65535}}))
		}, []string{
			"10.0.1.1 ingress from 8.8.8.8 UDP 0: accept",
			"10.0.1.1 ingress from 8.8.8.8 UDP 65535: accept",
			"10.0.1.1 ingress from 8.8.8.8 TCP 80: " + no,
			"10.0.1.1 ingress from 8.8.8.8 ICMP: " + no,
		}},
		{"ranges of ports", func(c *cluster) {
			c.isolate("web/p", "", model.Ingress, allow([]model.PolicyPort{{Protocol: model.TCP, From: 80, To: 90}, {Protocol: model.TCP, From: 91, To: 91}, {Protocol: model.TCP, From: 65535, To: 65535}}))
		}, []string{
			"10.0.1.1 ingress from 8.8.8.8 TCP 79: " + no,
			"10.0.1.1 ingress from 8.8.8.8 TCP 80: accept",
			"10.0.1.1 ingress from 8.8.8.8 TCP 91: accept",
			"10.0.1.1 ingress from 8.8.8.8 TCP 92: " + no,
			"10.0.1.1 ingress from 8.8.8.8 TCP 65534: " + no,
			"10.0.1.1 ingress from 8.8.8.8 TCP 65535: accept",
		}},
		{"SCTP never matches TCP, and isolates all the same", func(c *cluster) {
			c.isolate("web/p", "", model.Ingress, allow([]model.PolicyPort{{Protocol: model.SCTP, From: 80, To: 80}}))
		}, []string{
			"10.0.1.1 ingress from 8.8.8.8 SCTP 80: accept",
			"10.0.1.1 ingress from 8.8.8.8 TCP 80: " + no,
			"10.0.1.1 ingress from 8.8.8.8 UDP 80: " + no,
		}},
		{"a list that was not understood fits nothing", func(c *cluster) {
			c.isolate("web/p", "", model.Ingress, model.PolicyRule{AnyPort: true}, model.PolicyRule{Anyone: true})
		}, []string{"10.0.1.1 ingress from 8.8.8.8 TCP 80: " + no}},
		{"a selector that was not understood chooses nothing", func(c *cluster) {
			never := &model.Selector{Requirements: []model.Requirement{{Key: "app", Operator: model.Never}}}
			c.isolate("web/p", "", model.Ingress, allow(nil, model.Peer{Namespaces: selectorOf(""), Pods: never}))
		}, []string{"10.0.1.2 ingress from 10.0.1.1 TCP 80: " + no}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			test.make(c)
			expect(t, c.compute(nil), test.lines...)
		})
	}
}

// TestPeers: who the other end is.
func TestPeers(t *testing.T) {
	const no = "deny by NetworkPolicy web/p: no rule allows it"
	tests := []struct {
		name  string
		make  func(*cluster)
		lines []string
	}{
		{"except takes from its own peer alone", func(c *cluster) {
			c.isolate("web/p", "", model.Egress, allow(nil, addresses("192.0.2.0/24", "192.0.2.64/26", "192.0.2.128/25"), addresses("192.0.2.200/32")))
		}, []string{
			"10.0.1.1 egress to 192.0.2.1 TCP 80: accept",
			"10.0.1.1 egress to 192.0.2.65 TCP 80: " + no,
			"10.0.1.1 egress to 192.0.2.199 TCP 80: " + no,
			"10.0.1.1 egress to 192.0.2.200 TCP 80: accept",
			"10.0.1.1 egress to 192.0.3.1 TCP 80: " + no,
		}},
		{"a block that is the exception of another", func(c *cluster) {
			c.isolate("web/p", "", model.Egress, allow(tcp(80), addresses("192.0.2.0/24", "192.0.2.0/25")), allow(tcp(81), addresses("192.0.2.0/25")))
		}, []string{
			"10.0.1.1 egress to 192.0.2.1 TCP 80: " + no,
			"10.0.1.1 egress to 192.0.2.1 TCP 81: accept",
			"10.0.1.1 egress to 192.0.2.129 TCP 80: accept",
			"10.0.1.1 egress to 192.0.2.129 TCP 81: " + no,
		}},
		{"a block has the addresses of pods too", func(c *cluster) {
			c.isolate("web/p", "", model.Egress, allow(tcp(80), addresses("10.0.2.0/24", "10.0.2.3/32")), allow(tcp(81), pods("team=b", "")))
		}, []string{
			"10.0.1.1 egress to 10.0.2.2 TCP 80: accept",
			"10.0.1.1 egress to 10.0.2.2 TCP 81: accept",
			"10.0.1.1 egress to 10.0.2.3 TCP 80: " + no,
			"10.0.1.1 egress to 10.0.2.3 TCP 81: accept",
			"10.0.1.1 egress to 10.0.2.1 TCP 80: accept",
			"10.0.1.1 egress to 10.0.2.77 TCP 81: " + no,
		}},
		{"all addresses of a family are none of the other", func(c *cluster) {
			c.isolate("web/p", "", model.Egress, allow(nil, addresses("0.0.0.0/0")))
		}, []string{
			"10.0.1.1 egress to 8.8.8.8 TCP 80: accept",
			"fd00:1::1 egress to 2001:db8::1 TCP 80: " + no,
		}},
		{"IPv6 blocks", func(c *cluster) {
			c.isolate("web/p", "", model.Egress, allow(nil, addresses("::/0", "fd00:2::/64")))
		}, []string{
			"fd00:1::1 egress to 2001:db8::1 TCP 80: accept",
			"fd00:1::1 egress to fd00:2::1 TCP 80: " + no,
			"10.0.1.1 egress to 8.8.8.8 TCP 80: " + no,
		}},
		{"pods of the node's network are nobody's peers", func(c *cluster) {
			c.remote("web/host", "app=front", "192.0.2.7").HostNetwork = true
			c.isolate("web/p", "", model.Ingress, allow(nil, own("web", "app=front")))
		}, []string{
			"10.0.1.2 ingress from 192.0.2.7 TCP 80: " + no,
			"10.0.1.2 ingress from 10.0.2.1 TCP 80: accept",
		}},
		{"pods that have ended are nobody's peers", func(c *cluster) {
			c.remote("web/old", "app=front", "10.0.2.50").Finished = true
			c.isolate("web/p", "", model.Ingress, allow(nil, own("web", "app=front")))
		}, []string{"10.0.1.2 ingress from 10.0.2.50 TCP 80: " + no}},
		{"an address is that of the pod which has not ended", func(c *cluster) {
			c.remote("web/a-old", "app=front", "10.0.2.50").Finished = true
			c.remote("web/new", "app=other", "10.0.2.50")
			c.isolate("web/p", "", model.Ingress, allow(nil, own("web", "app=other")))
		}, []string{"10.0.1.2 ingress from 10.0.2.50 TCP 80: accept"}},
		{"a named port is that of the pod of this node", func(c *cluster) {
			c.local("web/other", "app=other", "10.0.1.3").Ports = []model.ContainerPort{{Name: "http", Protocol: model.TCP, Port: 9090}, {Name: "http", Protocol: model.UDP, Port: 53}}
			c.isolate("web/p", "", model.Ingress, allow(named(model.TCP, "http")))
		}, []string{
			"10.0.1.1 ingress from 8.8.8.8 TCP 8080: accept",
			"10.0.1.3 ingress from 8.8.8.8 TCP 8080: " + no,
			"10.0.1.3 ingress from 8.8.8.8 TCP 9090: accept",
			"10.0.1.3 ingress from 8.8.8.8 UDP 53: " + no,
		}},
		{"a named port of egress is that of each peer", func(c *cluster) {
			c.remote("db/odd", "app=sql", "10.0.2.4").Ports = []model.ContainerPort{{Name: "http", Protocol: model.TCP, Port: 9090}}
			c.remote("db/none", "app=sql", "10.0.2.5").Ports = nil
			c.isolate("web/p", "", model.Egress, allow(named(model.TCP, "http"), pods("team=b", "app=sql"), addresses("192.0.2.0/24")))
		}, []string{
			"10.0.1.1 egress to 10.0.2.2 TCP 8080: accept",
			"10.0.1.1 egress to 10.0.2.2 TCP 9090: " + no,
			"10.0.1.1 egress to 10.0.2.4 TCP 8080: " + no,
			"10.0.1.1 egress to 10.0.2.4 TCP 9090: accept",
			"10.0.1.1 egress to 10.0.2.5 TCP 8080: " + no,
			"10.0.1.1 egress to 10.0.2.1 TCP 8080: " + no,
			"10.0.1.1 egress to 192.0.2.1 TCP 8080: " + no,
		}},
		{"a named port of egress to anyone", func(c *cluster) {
			c.isolate("web/p", "", model.Egress, allow(append(tcp(443), named(model.TCP, "http")...)))
		}, []string{
			"10.0.1.1 egress to 10.0.2.2 TCP 8080: accept",
			"10.0.1.1 egress to 10.0.1.2 TCP 8080: accept",
			"10.0.1.1 egress to 8.8.8.8 TCP 8080: " + no,
			"10.0.1.1 egress to 8.8.8.8 TCP 443: accept",
		}},
		{"a pod reaches itself", func(c *cluster) {
			c.isolate("web/p", "", model.Ingress)
			c.isolate("web/q", "", model.Egress)
		}, []string{
			"10.0.1.1 egress to 10.0.1.1 TCP 80: accept",
			"10.0.1.1 ingress from 10.0.1.1 TCP 80: accept",
			"10.0.1.1 ingress from 10.0.1.2 TCP 80: " + no,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			test.make(c)
			expect(t, c.compute(nil), test.lines...)
		})
	}
}

// TestUnknownPods: a pod that nobody knows yet does nothing, with policies and
// without.
func TestUnknownPods(t *testing.T) {
	c := newCluster(t)
	c.attach("web/new", "10.0.1.9", "fd00:1::9")
	found := c.attach("found", "10.0.1.8")
	found.Pod = model.PodKey{}
	lines := []string{
		"10.0.1.9 ingress from 10.0.2.1 TCP 80: deny by pod web/new is not known yet",
		"fd00:1::9 egress to fd00:2::1 UDP 53: deny by pod web/new is not known yet",
		"10.0.1.9 egress to 10.0.1.9 TCP 80: deny by pod web/new is not known yet",
		"10.0.1.8 egress to 10.0.2.1 TCP 80: deny by the pod is not known yet",
		"10.0.1.1 ingress from 10.0.2.1 TCP 80: accept",
	}
	idle := c.compute(nil)
	expect(t, idle, lines...)
	c.isolate("db/p", "", model.Ingress)
	expect(t, c.compute(idle), lines...)
	c.remote("web/new", "app=front").Node = "a"
	c.isolate("web/p", "app=front", model.Ingress)
	expect(t, c.compute(idle),
		"10.0.1.9 egress to 10.0.2.1 TCP 80: accept",
		"10.0.1.9 ingress from 10.0.2.1 TCP 80: deny by NetworkPolicy web/p: no rule allows it")
}

// TestPodOfThatName: another pod of the name, or one elsewhere, is not taken for
// the one that is connected, and has its own addresses.
func TestPodOfThatName(t *testing.T) {
	for name, is := range map[string]*model.Pod{
		"another":   {UID: model.UIDOf("new"), Node: "a"},
		"elsewhere": {UID: model.UIDOf("old"), Node: "b"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.attach("web/db-0", "10.0.1.9").UID = model.UIDOf("old")
			is.PodKey, is.Labels, is.Addresses = podKey("web/db-0"), labels("app=db"), []netip.Addr{netip.MustParseAddr("10.0.2.9")}
			c.Pods = c.Pods.With(is.PodKey, is)
			c.isolate("web/p", "app=front", model.Ingress, allow(nil, own("web", "app=db")))
			first := c.compute(nil)
			lines := []string{
				"10.0.1.9 egress to 10.0.2.1 TCP 80: deny by pod web/db-0 is not known yet",
				"10.0.1.1 ingress from 10.0.2.9 TCP 80: accept",
				"10.0.1.1 ingress from 10.0.1.9 TCP 80: deny by NetworkPolicy web/p: no rule allows it",
			}
			expect(t, first, lines...)
			known := *is
			known.UID, known.Node = model.UIDOf("old"), "a"
			c.Pods = c.Pods.With(known.PodKey, &known)
			next := c.compute(first)
			expect(t, next,
				"10.0.1.9 egress to 10.0.2.1 TCP 80: accept",
				"10.0.1.1 ingress from 10.0.1.9 TCP 80: accept")
			c.Pods = c.Pods.With(is.PodKey, is)
			expect(t, c.compute(next), lines...)
		})
	}
}

// TestProbeEndpoint: that of a node is no pod, and may do what it likes.
func TestProbeEndpoint(t *testing.T) {
	c := newCluster(t)
	a := &model.Attachment{AttachmentKey: model.ProbeEndpoint, Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.254")}}
	c.Attachments = c.Attachments.With(a.AttachmentKey, a)
	expect(t, c.compute(nil), "10.0.1.254 egress to 10.0.2.1 TCP 80: accept", "10.0.1.254 ingress from 10.0.2.1 TCP 80: accept")
}

// TestNotKnown: until policies are, nothing is planned.
func TestNotKnown(t *testing.T) {
	c := newCluster(t)
	c.PoliciesKnown = false
	if p := c.compute(nil); p != nil {
		t.Errorf("got %v", p)
	}
}

// TestReusedAddressHere: of two attachments of an address, that of the pod which
// runs counts.
func TestReusedAddressHere(t *testing.T) {
	c := newCluster(t)
	c.local("web/a-done", "app=front", "10.0.1.7").Finished = true
	c.local("web/z-runs", "app=back", "10.0.1.7")
	c.isolate("web/p", "app=front", model.Ingress)
	expect(t, c.compute(nil), "10.0.1.7 ingress from 10.0.2.1 TCP 80: accept")
}
