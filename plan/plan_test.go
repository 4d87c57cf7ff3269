package plan_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// threeNodes is a cluster in which b is on-link to a, c is behind a router, and
// a has one pod, 10.244.0.5 and fd00:0:0:0::5.
func threeNodes() *model.Snapshot {
	node := func(name, ip4, ip6, range4, range6 string) *model.Node {
		return &model.Node{
			Name:      name,
			Addresses: []netip.Addr{netip.MustParseAddr(ip4), netip.MustParseAddr(ip6)},
			PodCIDRs:  []netip.Prefix{netip.MustParsePrefix(range4), netip.MustParsePrefix(range6)},
		}
	}
	attachment := &model.Attachment{
		AttachmentKey: model.AttachmentKey{ContainerID: "1", Interface: "eth0"},
		Device:        "fl1",
		MAC:           model.MAC{2, 0, 0, 0, 0, 5},
		Addresses:     []netip.Addr{netip.MustParseAddr("10.244.0.5"), netip.MustParseAddr("fd00::5")},
		HostPorts: []model.HostPort{
			{Protocol: model.UDP, Port: 53, PodPort: 5353},
			{Protocol: model.TCP, HostIP: netip.MustParseAddr("192.0.2.1"), Port: 80, PodPort: 8080},
		},
	}
	return &model.Snapshot{
		Revision: 1,
		Network:  model.DefaultNetwork(),
		Nodes: model.MapOf(map[string]*model.Node{
			"a": node("a", "192.0.2.1", "2001:db8::1", "10.244.0.0/24", "fd00::/64"),
			"b": node("b", "192.0.2.2", "2001:db8::2", "10.244.1.0/24", "fd00:0:0:1::/64"),
			"c": node("c", "198.51.100.3", "2001:db8:1::3", "10.244.2.0/24", "fd00:0:0:2::/64"),
		}),
		Links: model.MapOf(map[string]*model.Link{"eth0": {
			Name: "eth0", MTU: 1500,
			Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
		}}),
		Attachments: model.MapOf(map[model.AttachmentKey]*model.Attachment{attachment.AttachmentKey: attachment}),
	}
}

func TestVerdict(t *testing.T) {
	addr := netip.MustParseAddr
	node := plan.Compute(nil, threeNodes(), "a")
	tests := []struct {
		name, source, destination string
		want                      plan.Hop
	}{
		{"pod of this node", "10.244.0.6", "10.244.0.5", plan.Hop{Reachable: true, Device: "fl1"}},
		{"no pod has the address", "10.244.0.5", "10.244.0.77", plan.Hop{}},
		{"pod on-link", "10.244.0.5", "10.244.1.9", plan.Hop{Reachable: true, Device: "eth0", Via: addr("192.0.2.2")}},
		{"pod on-link, IPv6", "fd00::5", "fd00:0:0:1::9", plan.Hop{Reachable: true, Device: "eth0", Via: addr("2001:db8::2")}},
		{"pod behind a router", "10.244.0.5", "10.244.2.9", plan.Hop{Reachable: true, Device: "fairlead-vx4", Via: addr("10.244.2.0"), MTU: 1450, Remote: addr("198.51.100.3")}},
		{"pod behind a router, IPv6 in IPv4", "fd00::5", "fd00:0:0:2::9", plan.Hop{Reachable: true, Device: "fairlead-vx4", Via: addr("fe80::f841:41ff:fe07:2d86"), MTU: 1450, Remote: addr("198.51.100.3")}},
		{"outside", "10.244.0.5", "203.0.113.1", plan.Hop{Reachable: true, Masquerade: true}},
		{"outside, IPv6", "fd00::5", "2001:db8:ffff::1", plan.Hop{Reachable: true, Masquerade: true}},
		{"outside, from the node itself", "192.0.2.1", "203.0.113.1", plan.Hop{Reachable: true}},
		{"multicast", "10.244.0.5", "224.0.0.251", plan.Hop{Reachable: true}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := plan.Verdict(node, plan.Packet{Source: addr(test.source), Destination: addr(test.destination)})
			if got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// TestNodeGone: without its own Node object, a node keeps what it has and says
// what is wrong.
func TestNodeGone(t *testing.T) {
	snapshot := threeNodes()
	before := plan.Compute(nil, snapshot, "a")
	if len(before.Problems) != 0 {
		t.Fatalf("problems of a node that is well: %v", before.Problems)
	}
	snapshot.Nodes = snapshot.Nodes.Without("a")
	after := plan.Compute(before, snapshot, "a")
	if after.Route != before.Route || after.Masquerade != before.Masquerade {
		t.Error("the plan changed as the node's object went")
	}
	if len(after.Problems) != 1 || after.Problems[0].Reason != "NodeUnknown" {
		t.Errorf("problems are %v, want NodeUnknown", after.Problems)
	}
	if fresh := plan.Compute(nil, snapshot, "a"); fresh.Route != nil || fresh.Masquerade != nil {
		t.Error("a node that was never known has a plan")
	}
}

func TestCluster(t *testing.T) {
	snapshot := threeNodes()
	if problems := plan.Cluster(snapshot); len(problems) != 0 {
		t.Fatalf("problems of a cluster that is well: %v", problems)
	}
	snapshot.Nodes = snapshot.Nodes.
		With("d", &model.Node{Name: "d", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}}).
		With("e", &model.Node{Name: "e", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.9")}}).
		With("f", &model.Node{
			Name: "f", Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::9")},
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.9.0/24")},
		}).
		With("g", &model.Node{
			Name: "g", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")},
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.8.0/22")},
		}).
		With("virtual", &model.Node{Name: "virtual", Labels: model.LabelsOf(map[string]string{"fairlead.io/agent": "none"})}).
		With("windows", &model.Node{
			Name: "windows", Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::8")},
			Labels: model.LabelsOf(map[string]string{"kubernetes.io/os": "windows"}),
		})
	var got []string
	for _, problem := range plan.Cluster(snapshot) {
		got = append(got, problem.Object()+" "+problem.Reason)
	}
	want := []string{"Node/d PodCIDRShared", "Node/d NodeWithoutAddress", "Node/e NodeWithoutPodCIDR", "Node/f PodCIDROverlap", "Node/f NoCommonFamily"}
	if len(got) != len(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("problem %d is %q, want %q", i, got[i], want[i])
		}
	}
	for _, problem := range plan.Cluster(snapshot) {
		if strings.HasPrefix(problem.Reason, "PodCIDR") && !strings.HasSuffix(problem.Remedy, "drain it, kubectl delete node NODE, then restart its kubelet, which registers it anew") {
			t.Errorf("%s: a kubelet that runs does not register again, and the remedy is to %s", problem.Reason, problem.Remedy)
		}
	}
}

// TestText is what a user sees of a plan, whole.
func TestText(t *testing.T) {
	const want = `sysctl net/ipv4/conf/eth0/rp_filter=2
sysctl net/ipv4/conf/fairlead-vx4/rp_filter=2
sysctl net/ipv4/conf/fl1/route_localnet=1
sysctl net/ipv4/ip_forward=1
sysctl net/ipv6/conf/all/forwarding=1
sysctl net/ipv6/conf/fairlead-vx4/disable_ipv6=0
link fairlead-vx4 vxlan id 4096 dstport 4789 local 192.0.2.1 dev eth0 mtu 1450 address 86:db:ab:83:dc:c7 nolearning
address 10.244.0.0/32 dev fairlead-vx4
address fd00::/128 dev fairlead-vx4
neighbor 10.244.2.0 lladdr fa:41:41:07:2d:86 dev fairlead-vx4
neighbor fe80::f841:41ff:fe07:2d86 lladdr fa:41:41:07:2d:86 dev fairlead-vx4
fdb fa:41:41:07:2d:86 dst 198.51.100.3 dev fairlead-vx4
route 10.244.0.5/32 dev fl1 src 192.0.2.1
route 10.244.1.0/24 via 192.0.2.2 dev eth0 src 192.0.2.1
route 10.244.2.0/24 via 10.244.2.0 dev fairlead-vx4 onlink src 10.244.0.0 mtu 1450
route fd00:0:0:1::/64 via 2001:db8::2 dev eth0 src 2001:db8::1
route fd00:0:0:2::/64 via fe80::f841:41ff:fe07:2d86 dev fairlead-vx4 src fd00:: mtu 1450
route fd00::5/128 dev fl1 src 2001:db8::1
route unreachable 10.244.0.0/24
route unreachable fd00::/64
masquerade from 10.244.0.0/24
masquerade from fd00::/64
masquerade not to 10.244.0.0/24
masquerade not to 10.244.1.0/24
masquerade not to 10.244.2.0/24
masquerade not to fd00:0:0:1::/64
masquerade not to fd00:0:0:2::/64
masquerade not to fd00::/64
masquerade not to 224.0.0.0/4
masquerade not to fe80::/10
masquerade not to ff00::/8
hostport TCP 192.0.2.1:80 to 10.244.0.5:8080
hostport UDP 0.0.0.0:53 to 10.244.0.5:5353
hostport UDP [::]:53 to [fd00::5]:5353
hairpin 10.244.0.5 as 192.0.2.1
hairpin fd00::5 as 2001:db8::1
source fl1 02:00:00:00:00:05 10.244.0.5
source fl1 02:00:00:00:00:05 fd00::5
source fl1 02:00:00:00:00:05 neighbour discovery
`
	if got := plan.Text(plan.Compute(nil, threeNodes(), "a")); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
