package masquerade

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestCluster checks on random clusters, with ranges of many lengths and
// several holders, that Cluster covers just the ranges of the nodes, that no
// two of its ranges overlap, and that plan to plan equals from nothing.
func TestCluster(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 3))
		lengths := 1 + random.IntN(3)
		snapshot := &model.Snapshot{Network: model.DefaultNetwork(), Nodes: model.MapOf(map[string]*model.Node{"self": {Name: "self"}})}
		var plan *Plan
		for range 100 {
			next := *snapshot
			name := fmt.Sprintf("n%d", random.IntN(8))
			if random.IntN(3) == 0 {
				next.Nodes = next.Nodes.Without(name)
			} else {
				addr := netip.AddrFrom4([4]byte{10, 244, byte(random.IntN(8)), 0})
				prefix, _ := addr.Prefix(24 - random.IntN(lengths))
				next.Nodes = next.Nodes.With(name, &model.Node{Name: name, PodCIDRs: []netip.Prefix{prefix}})
			}
			if random.IntN(4) == 0 {
				network := *next.Network
				network.Masquerade.Exclude = exclude(random)
				next.Network = &network
			}
			if random.IntN(4) == 0 {
				network, all := *next.Network, []*model.Routing{routing(random), routing(random), routing(random)}
				network.Routing, next.Former, next.Coming = *all[0], all[1], all[2]
				next.Network = &network
			}
			snapshot = &next
			plan, _ = Compute(plan, snapshot, "self")
			requireCover(t, plan, snapshot)
			fresh, _ := Compute(nil, snapshot, "self")
			requireTunnels(t, plan.Tunnels, snapshot)
			if plan.Tunnels != fresh.Tunnels {
				t.Fatalf("the incremental plan has tunnels %v, a fresh one %v", plan.Tunnels, fresh.Tunnels)
			}
			for change := range model.Diff(plan.Cluster, fresh.Cluster) {
				t.Fatalf("the incremental plan differs from a fresh one: %+v", change)
			}
			for change := range model.Diff(plan.Excluded, fresh.Excluded) {
				t.Fatalf("the incremental plan differs from a fresh one: %+v", change)
			}
		}
	}
}

func exclude(random *rand.Rand) (all []netip.Prefix) {
	for range random.IntN(4) {
		prefix, _ := netip.AddrFrom4([4]byte{169, 254, byte(random.IntN(4)), 0}).Prefix(14 + random.IntN(12))
		all = append(all, prefix)
	}
	return all
}

func requireCover(t *testing.T, plan *Plan, snapshot *model.Snapshot) {
	t.Helper()
	for a := range plan.Cluster.All() {
		for b := range plan.Cluster.All() {
			if a != b && a.Overlaps(b) {
				t.Fatalf("%s and %s overlap", a, b)
			}
		}
	}
	for a := range plan.Excluded.All() {
		for b := range plan.Excluded.All() {
			if a != b && a.Overlaps(b) {
				t.Fatalf("%s and %s overlap", a, b)
			}
		}
	}
	for _, prefix := range snapshot.Network.Masquerade.Exclude {
		if !contains(plan.Excluded, prefix.Addr()) {
			t.Fatalf("%s is not excluded", prefix)
		}
	}
	for third := range 16 {
		addr := netip.AddrFrom4([4]byte{10, 244, byte(third), 1})
		want := false
		for _, node := range snapshot.Nodes.All() {
			for _, prefix := range node.PodCIDRs {
				want = want || prefix.Contains(addr)
			}
		}
		if got := contains(plan.Cluster, addr); got != want {
			t.Fatalf("%s in the cluster: %t, want %t", addr, got, want)
		}
	}
}

func contains(prefixes model.Map[netip.Prefix, struct{}], addr netip.Addr) bool {
	for prefix := range prefixes.All() {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// TestFrom selects among a node's addresses: its InternalIP goes first, then the
// smallest.
func TestFrom(t *testing.T) {
	self := &model.Node{
		Name: "self", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::1")},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00::/64")},
	}
	links := model.MapOf(map[string]*model.Link{
		"eth0": {Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("192.0.2.9/24")}},
		"eth1": {Name: "eth1", Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.7/24"), netip.MustParsePrefix("203.0.113.5/24")}},
	})
	tests := map[string]struct {
		from     []string
		v4       string
		problems int
	}{
		"not asked":            {},
		"the InternalIP":       {from: []string{"192.0.2.0/24"}, v4: "192.0.2.9"},
		"whatever the order":   {from: []string{"203.0.113.0/24", "192.0.2.0/24"}, v4: "192.0.2.9"},
		"another":              {from: []string{"203.0.113.0/24"}, v4: "203.0.113.5"},
		"none":                 {from: []string{"198.51.100.0/24"}, problems: 1},
		"not on the node now":  {from: []string{"2001:db8::/32"}, problems: 1},
		"one of each, one not": {from: []string{"2001:db8::/32", "203.0.113.7/32"}, v4: "203.0.113.7", problems: 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			network := model.DefaultNetwork()
			for _, text := range test.from {
				network.Masquerade.From = append(network.Masquerade.From, netip.MustParsePrefix(text))
			}
			plan, problems := Compute(nil, &model.Snapshot{
				Network: network, Links: links, Nodes: model.MapOf(map[string]*model.Node{"self": self}),
			}, "self")
			var want [len(model.Families)]netip.Addr
			if test.v4 != "" {
				want[model.IPv4] = netip.MustParseAddr(test.v4)
			}
			if plan.Sources != want || len(problems) != test.problems {
				t.Errorf("sources %v, want %v; problems %v", plan.Sources, want, problems)
			}
		})
	}
}
