package route

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// Faults that users of other networks have met.

func world(backend model.Backend, nodes ...*model.Node) *model.Snapshot {
	s := &model.Snapshot{
		Network: model.DefaultNetwork(),
		Nodes:   model.MapOf(map[string]*model.Node{"self": peer("self", []string{"192.0.2.1", "2001:db8::1"}, "10.244.0.0/24", "fd00::/64")}),
		Links:   model.MapOf(map[string]*model.Link{"eth0": link("eth0", 1500, "192.0.2.1/24", "2001:db8::1/64")}),
	}
	s.Network.Backend = backend
	for _, node := range nodes {
		s.Nodes = s.Nodes.With(node.Name, node)
	}
	return s
}

// TestOverheadOfIPv6: outer packets of IPv6 take 70 bytes, not 50 (flannel takes
// 50, and loses what is larger).
func TestOverheadOfIPv6(t *testing.T) {
	plan, _ := Compute(nil, world(model.BackendVXLAN, peer("b", []string{"2001:db8:1::2"}, "10.244.1.0/24")), "self")
	device, _ := plan.VXLANs.Get("fairlead-vx6")
	route, _ := plan.Routes.Get(netip.MustParsePrefix("10.244.1.0/24"))
	if device.MTU != 1430 || route.MTU != 1430 {
		t.Errorf("the device has %d bytes, the route %d, not 1430", device.MTU, route.MTU)
	}
}

// TestOneFamilyChanges: a change of a node's IPv4 alone is followed (flannel's
// filter of updates of both families drops it).
func TestOneFamilyChanges(t *testing.T) {
	before := world(model.BackendVXLAN, peer("b", []string{"198.51.100.2", "2001:db8:1::2"}, "10.244.1.0/24", "fd00:0:0:1::/64"))
	plan, _ := Compute(nil, before, "self")
	after := world(model.BackendVXLAN, peer("b", []string{"198.51.100.9", "2001:db8:1::2"}, "10.244.1.0/24", "fd00:0:0:1::/64"))
	after.Nodes = before.Nodes.With("b", must(after.Nodes.Get("b")))
	after.Links = before.Links
	plan, _ = Compute(plan, after, "self")
	if remote, _ := plan.FDB.Get(Station{"fairlead-vx4", vxlanMAC("b")}); remote != netip.MustParseAddr("198.51.100.9") {
		t.Errorf("node b is sent to at %s", remote)
	}
}

func must[T any](value T, _ bool) T { return value }

// TestRenamedNode: a node that comes back under another name takes its range,
// and nothing of the old name stays (flannel#1788, calico#7281).
func TestRenamedNode(t *testing.T) {
	before := world(model.BackendVXLAN, peer("old", []string{"198.51.100.2"}, "10.244.1.0/24"))
	plan, _ := Compute(nil, before, "self")
	after := *before
	after.Nodes = before.Nodes.Without("old").With("new", peer("new", []string{"198.51.100.2"}, "10.244.1.0/24"))
	plan, _ = Compute(plan, &after, "self")
	fresh, _ := Compute(nil, &after, "self")
	if differences := diffPlans(fresh, plan); differences != nil {
		t.Errorf("what is left of the old name:\n%v", differences)
	}
	if _, ok := plan.FDB.Get(Station{"fairlead-vx4", vxlanMAC("new")}); !ok {
		t.Error("the new name has no forwarding entry")
	}
}

// TestMACsDiffer, of as many nodes as there may be, and of addresses that look
// alike without their dots (calico#9450, and names of tunnels in kube-router).
func TestMACsDiffer(t *testing.T) {
	seen := map[model.MAC]string{}
	for i := range 5000 {
		name := fmt.Sprintf("node-%d", i)
		if other, ok := seen[vxlanMAC(name)]; ok {
			t.Errorf("%s and %s have the same MAC", name, other)
		}
		seen[vxlanMAC(name)] = name
	}
	if a, b := IPIPNeighbor(netip.MustParseAddr("21.3.0.4")), IPIPNeighbor(netip.MustParseAddr("2.13.0.4")); a == b {
		t.Errorf("two peers have the MAC %s", a)
	}
}

// TestNothingIsLeft of a tunnel that no peer needs (kube-router#973: orphans
// take traffic that is not pods').
func TestNothingIsLeft(t *testing.T) {
	far := peer("b", []string{"198.51.100.2"}, "10.244.1.0/24")
	for _, backend := range []model.Backend{model.BackendIPIP, model.BackendUDP, model.BackendVXLAN} {
		plan, _ := Compute(nil, world(backend, far), "self")
		plan, _ = Compute(plan, world(model.BackendHostGW), "self")
		if n := plan.VXLANs.Len() + plan.IPIPs.Len() + plan.UDPs.Len() + plan.Addresses.Len() +
			plan.Neighbors.Len() + plan.FDB.Len() + plan.UDPPeers.Len(); n > 0 {
			t.Errorf("from %s to host-gw, %d items of tunnels are left", backend, n)
		}
	}
}

// TestWideNetwork: another link with a wide network, such as a VPN's, takes no
// route of pods away; one that lies in a range of pods is not taken away either.
func TestWideNetwork(t *testing.T) {
	s := world(model.BackendVXLAN, peer("b", []string{"198.51.100.2"}, "10.244.1.0/24"))
	before, _ := Compute(nil, s, "self")
	s.Links = s.Links.With("tun0", link("tun0", 1400, "10.8.0.6/8"))
	after, problems := Compute(before, s, "self")
	if differences := diff("route", before.Routes, after.Routes); differences != nil {
		t.Errorf("a VPN changed routes: %v", differences)
	}
	if len(problems) != 2 {
		t.Errorf("problems: %v", problems)
	}
	s.Links = s.Links.With("tun0", link("tun0", 1400, "10.244.1.129/25"))
	after, _ = Compute(after, s, "self")
	if _, ok := after.Routes.Get(netip.MustParsePrefix("10.244.1.0/24")); ok {
		t.Error("a network of a link is routed to another node")
	}
}

// TestNamesOfTunnelsCollide: with two settings of one name, the device is of
// those in use.
func TestNamesOfTunnelsCollide(t *testing.T) {
	used := model.DefaultNetwork().Routing
	used.VXLANVNI = 1
	former := used
	for former.VXLANVNI++; vxlanDevice(&former, model.IPv4) != vxlanDevice(&used, model.IPv4); former.VXLANVNI++ {
	}
	s := world(model.BackendVXLAN)
	s.Network.Routing, s.Former = used, &former
	plan, _ := Compute(nil, s, "self")
	if device, _ := plan.VXLANs.Get(vxlanDevice(&used, model.IPv4)); device.VNI != 1 {
		t.Errorf("the device in use has the identifier %d", device.VNI)
	}
}

// TestInhabitedRange: a range of pods in a network of this node, with a node in it, is
// not routed, lest the node is cut off, whoever comes first, and until that node has gone.
func TestInhabitedRange(t *testing.T) {
	for _, test := range []struct {
		name, at, ranges string
		routed           bool
	}{
		{"in the network of this node", "192.0.2.9", "192.0.2.8/29", false},
		{"this node itself", "198.51.100.9", "192.0.2.0/30", false},
		{"elsewhere, as a pod of that node", "10.244.9.7", "10.244.9.0/24", true},
	} {
		for _, name := range []string{"a", "z"} {
			s := world(model.BackendVXLAN, peer("pods", []string{"198.51.100.3"}, "10.244.10.0/24", test.ranges))
			alone, _ := Compute(nil, s, "self")
			s.Nodes = s.Nodes.With(name, peer(name, []string{test.at, test.at}, "10.244.8.0/24"))
			plan, problems := Compute(alone, s, "self")
			if route, ok := plan.Routes.Get(netip.MustParsePrefix(test.ranges)); ok != test.routed {
				t.Errorf("%s: the range is routed: %t, %+v", test.name, ok, route)
			}
			if said := len(problems) == 1 && problems[0].Reason == "PodCIDROnLink"; said == test.routed {
				t.Errorf("%s: problems are %v", test.name, problems)
			}
			if _, ok := plan.Routes.Get(netip.MustParsePrefix("10.244.10.0/24")); !ok {
				t.Errorf("%s: the node's other range is not routed", test.name)
			}
			s.Nodes = s.Nodes.Without(name)
			plan, _ = Compute(plan, s, "self")
			if differences := diffPlans(alone, plan); differences != nil {
				t.Errorf("%s: when the node is gone:\n%v", test.name, differences)
			}
		}
	}
}

// TestInhabitedOwnRange: what refuses packets to addresses that no pod has spares a range
// with nodes in it.
func TestInhabitedOwnRange(t *testing.T) {
	s := world(model.BackendVXLAN)
	s.Nodes = s.Nodes.With("self", peer("self", []string{"192.0.2.1"}, "192.0.2.128/25"))
	own := netip.MustParsePrefix("192.0.2.128/25")
	plan, _ := Compute(nil, s, "self")
	if route, _ := plan.Routes.Get(own); !route.Unreachable {
		t.Fatalf("the range without nodes: %+v", route)
	}
	s.Nodes = s.Nodes.With("b", peer("b", []string{"192.0.2.200"}, "10.244.8.0/24"))
	plan, _ = Compute(plan, s, "self")
	if route, ok := plan.Routes.Get(own); ok {
		t.Errorf("node b is cut off: %+v", route)
	}
}

// TestMTUTooSmall: a tunnel that leaves IPv6 less than it needs is named, with the
// interface; IPv4 goes through it.
func TestMTUTooSmall(t *testing.T) {
	s := world(model.BackendVXLAN, peer("b", []string{"198.51.100.2"}, "10.244.1.0/24", "fd00:0:0:1::/64"))
	s.Nodes = s.Nodes.With("self", peer("self", []string{"192.0.2.1"}, "10.244.0.0/24", "fd00::/64"))
	for _, test := range []struct {
		mtu  int
		want string
	}{{1330, ""}, {1329, "MTUTooSmall"}} {
		s.Links = model.MapOf(map[string]*model.Link{"eth0": link("eth0", test.mtu, "192.0.2.1/24")})
		plan, problems := Compute(nil, s, "self")
		got := ""
		for _, problem := range problems {
			got += problem.Reason
		}
		if got != test.want {
			t.Errorf("MTU %d: %v", test.mtu, problems)
		}
		if route, _ := plan.Routes.Get(netip.MustParsePrefix("10.244.1.0/24")); route.MTU != test.mtu-50 {
			t.Errorf("MTU %d: the route of IPv4 is %+v", test.mtu, route)
		}
	}
}
