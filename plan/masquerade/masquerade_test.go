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
			snapshot = &next
			plan = Compute(plan, snapshot, "self")
			requireCover(t, plan, snapshot)
			for change := range model.Diff(plan.Cluster, Compute(nil, snapshot, "self").Cluster) {
				t.Fatalf("the incremental plan differs from a fresh one: %+v", change)
			}
		}
	}
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
	for third := range 16 {
		addr := netip.AddrFrom4([4]byte{10, 244, byte(third), 1})
		want := false
		for _, node := range snapshot.Nodes.All() {
			for _, prefix := range node.PodCIDRs {
				want = want || prefix.Contains(addr)
			}
		}
		got := false
		for prefix := range plan.Cluster.All() {
			got = got || prefix.Contains(addr)
		}
		if got != want {
			t.Fatalf("%s in the cluster: %t, want %t", addr, got, want)
		}
	}
}
