package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func peer(name string, addresses []string, ranges ...string) *model.Node {
	node := &model.Node{Name: name, UID: name}
	for _, addr := range addresses {
		node.Addresses = append(node.Addresses, netip.MustParseAddr(addr))
	}
	for _, prefix := range ranges {
		node.PodCIDRs = append(node.PodCIDRs, netip.MustParsePrefix(prefix))
	}
	return node
}

func link(name string, mtu int, addresses ...string) *model.Link {
	l := &model.Link{Name: name, MTU: mtu, AcceptsRA: true}
	for _, prefix := range addresses {
		l.Addresses = append(l.Addresses, netip.MustParsePrefix(prefix))
	}
	return l
}

// diffPlans lists what two plans differ in; what they are made from does not
// count.
func diffPlans(a, b *Plan) (differences []string) {
	differences = append(differences, diff("vxlan", a.VXLANs, b.VXLANs)...)
	differences = append(differences, diff("ipip", a.IPIPs, b.IPIPs)...)
	differences = append(differences, diff("udp", a.UDPs, b.UDPs)...)
	differences = append(differences, diff("udp peer", a.UDPPeers, b.UDPPeers)...)
	differences = append(differences, diff("collision", a.collisions, b.collisions)...)
	differences = append(differences, diff("stranded", a.stranded, b.stranded)...)
	differences = append(differences, diff("address", a.Addresses, b.Addresses)...)
	differences = append(differences, diff("route", a.Routes, b.Routes)...)
	differences = append(differences, diff("neighbor", a.Neighbors, b.Neighbors)...)
	differences = append(differences, diff("fdb", a.FDB, b.FDB)...)
	differences = append(differences, diff("sysctl", a.Sysctls, b.Sysctls)...)
	differences = append(differences, diff("yields", a.Yields, b.Yields)...)
	return append(differences, diff("way", a.Ways, b.Ways)...)
}

func diff[K, V comparable](what string, a, b model.Map[K, V]) (differences []string) {
	for change := range model.Diff(a, b) {
		differences = append(differences, fmt.Sprintf("%s %v: %+v (%t) -> %+v (%t)",
			what, change.Key, change.Old, change.Had, change.New, change.Has))
	}
	return differences
}

// TestIncrementalEqualsFresh walks through random snapshots, of a small world
// so that ranges and addresses collide, and compares the plan that came from
// plan to plan with one made from nothing.
func TestIncrementalEqualsFresh(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 2))
		snapshot := &model.Snapshot{
			Network: model.DefaultNetwork(),
			Nodes:   model.MapOf(map[string]*model.Node{"self": peer("self", []string{"192.0.2.1", "2001:db8::1"}, "10.244.0.0/24", "fd00:0:0:0::/64")}),
			Links:   model.MapOf(map[string]*model.Link{"eth0": link("eth0", 1500, "192.0.2.1/24", "2001:db8::1/64")}),
		}
		var plan *Plan
		for step := range 200 {
			next := *snapshot
			for range 1 + random.IntN(4) {
				mutate(random, &next)
			}
			snapshot = &next
			plan, _ = Compute(plan, snapshot, "self")
			fresh, _ := Compute(nil, snapshot, "self")
			if differences := diffPlans(fresh, plan); differences != nil {
				t.Fatalf("seed %d, step %d: the incremental plan differs from a fresh one:\n%v", seed, step, differences)
			}
		}
	}
}

func mutate(random *rand.Rand, snapshot *model.Snapshot) {
	name := fmt.Sprintf("n%d", random.IntN(6))
	switch random.IntN(11) {
	case 10:
		snapshot.ServiceCIDRs = snapshot.ServiceCIDRs.With("a", serviceCIDR("a", fmt.Sprintf("10.96.0.0/%d", 15+random.IntN(2)), "fd96::/112"))
	case 0:
		snapshot.Nodes = snapshot.Nodes.Without(name)
	case 1:
		network := *snapshot.Network
		switch random.IntN(5) {
		case 0:
			network.DirectRouting = !network.DirectRouting
		case 1:
			network.VXLANPort = uint16(4789 + random.IntN(2))
		case 2:
			network.UDPPort = uint16(8285 + random.IntN(2))
		default:
			network.Backend = model.Backends[random.IntN(len(model.Backends))]
		}
		switch random.IntN(3) {
		case 0:
			snapshot.Former, snapshot.Network = &snapshot.Network.Routing, &network
		case 1:
			snapshot.Former = nil
			snapshot.Follow(&network)
		default:
			snapshot.Arrive()
		}
	case 2:
		self := peer("self", []string{"192.0.2.1", "2001:db8::1"}, "10.244.0.0/24")
		if random.IntN(2) == 0 {
			self.PodCIDRs = append(self.PodCIDRs, netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%d::/64", random.IntN(3))))
		}
		snapshot.Nodes = snapshot.Nodes.With("self", self)
	case 3:
		id := fmt.Sprint(random.IntN(3))
		key := model.AttachmentKey{ContainerID: id, Interface: "eth0"}
		if random.IntN(2) == 0 {
			snapshot.Attachments = snapshot.Attachments.Without(key)
			break
		}
		snapshot.Attachments = snapshot.Attachments.With(key, &model.Attachment{
			AttachmentKey: key, Device: "fl" + id,
			Addresses: []netip.Addr{netip.MustParseAddr("10.244.0.1" + id)},
		})
	case 4:
		networks := []string{"192.0.2.1/24", "2001:db8::1/64", "10.244.2.1/23"}
		snapshot.Links = model.MapOf(map[string]*model.Link{"eth0": link("eth0", 1400+random.IntN(2)*100, networks[:2+random.IntN(2)]...)})
	default:
		var addresses []string
		if random.IntN(4) > 0 {
			addresses = append(addresses, fmt.Sprintf("192.0.%d.%d", 2+random.IntN(2), 2+random.IntN(5)))
		}
		if random.IntN(2) > 0 {
			addresses = append(addresses, fmt.Sprintf("2001:db8:%d::%d", random.IntN(2), 2+random.IntN(5)))
		}
		var ranges []string
		if random.IntN(5) > 0 {
			ranges = append(ranges, fmt.Sprintf("10.244.%d.0/%d", random.IntN(4), []int{24, 24, 24, 25}[random.IntN(4)]))
		}
		if random.IntN(8) == 0 { // nodes live in it
			ranges = append(ranges, []string{"192.0.2.0/24", "192.0.3.4/30", "192.0.2.4/30"}[random.IntN(3)])
		}
		if random.IntN(2) > 0 {
			ranges = append(ranges, fmt.Sprintf("fd00:0:0:%d::/64", random.IntN(4)))
		}
		node := peer(name, addresses, ranges...)
		node.Flannel = []string{"", "", "vxlan"}[random.IntN(3)]
		snapshot.Nodes = snapshot.Nodes.With(name, node)
	}
}

// TestUplinkGone: what was programmed stays while the uplink is away.
func TestUplinkGone(t *testing.T) {
	snapshot := &model.Snapshot{
		Network: model.DefaultNetwork(),
		Nodes: model.MapOf(map[string]*model.Node{
			"self": peer("self", []string{"192.0.2.1"}, "10.244.0.0/24"),
			"b":    peer("b", []string{"192.0.2.2"}, "10.244.1.0/24"),
		}),
		Links: model.MapOf(map[string]*model.Link{"eth0": link("eth0", 1500, "192.0.2.1/24")}),
	}
	attachment := &model.Attachment{Device: "fl1", Addresses: []netip.Addr{netip.MustParseAddr("10.244.0.5")}}
	snapshot.Attachments = snapshot.Attachments.With(attachment.AttachmentKey, attachment)
	before, problems := Compute(nil, snapshot, "self")
	if len(problems) != 0 {
		t.Fatalf("problems of a node that is well: %v", problems)
	}
	snapshot.Links = model.Map[string, *model.Link]{}
	after, problems := Compute(before, snapshot, "self")
	// But not what needs the address: the kernel drops a route with its source.
	pod, _ := after.Routes.Get(netip.MustParsePrefix("10.244.0.5/32"))
	if want := (Route{Device: "fl1"}); pod != want {
		t.Errorf("the route to a pod is %+v, want %+v", pod, want)
	}
	after.Routes = after.Routes.With(netip.MustParsePrefix("10.244.0.5/32"), Route{Device: "fl1", Source: netip.MustParseAddr("192.0.2.1")})
	if differences := diffPlans(before, after); differences != nil {
		t.Errorf("the plan changed as the uplink went: %v", differences)
	}
	if len(problems) != 1 || problems[0].Reason != "AddressNotOnNode" {
		t.Errorf("problems are %v, want AddressNotOnNode", problems)
	}
	if fresh, _ := Compute(nil, snapshot, "self"); fresh != nil {
		t.Errorf("a node that never had an uplink has a plan: %+v", fresh)
	}
}
