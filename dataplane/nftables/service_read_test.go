package nftables

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/service"
)

// TestServiceReader: what is read back of each VIP is what was planned; of what
// is not there, nothing.
func TestServiceReader(t *testing.T) {
	netnstest.Enter(t)
	reader, err := NewServiceReader()
	must(t, err)
	defer reader.Close()
	stranger := service.VIP{Protocol: model.TCP, At: netip.MustParseAddrPort("10.96.9.9:80")}
	if held, err := reader.Read(stranger); held != nil || err != nil {
		t.Fatalf("without a table: %v, error %v", held, err)
	}
	random := rand.New(rand.NewPCG(7, 7))
	snapshot := &model.Snapshot{Network: model.DefaultNetwork(), PoliciesKnown: true}
	snapshot.Nodes = snapshot.Nodes.With("self", &model.Node{
		Name: "self", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	})
	plane := New()
	var node *plan.Node
	special := 0
	for step := range 30 {
		mutateServices(random, snapshot)
		node = plan.Compute(node, snapshot, "self")
		apply(t, plane, node)
		for vip, f := range node.Service.Frontends.All() {
			held, err := reader.Read(vip)
			if err != nil || held == nil {
				t.Fatalf("step %d: %s: %v, error %v", step, vip, held, err)
			}
			if f.Special() {
				special++
			}
			for _, side := range []struct {
				want service.Answer
				got  service.HeldAnswer
			}{{f.Inside, held.Inside}, {f.Outside, held.Outside}} {
				var want []netip.AddrPort
				if backends, ok := node.Service.Backends.Get(f.Pool(side.want)); ok && side.want.Do == service.Forward {
					want = backends.Targets
				}
				slices.SortFunc(side.got.Targets, netip.AddrPort.Compare)
				if side.got.Do != side.want.Do || side.got.Holes != 0 || !slices.Equal(side.got.Targets, want) {
					t.Fatalf("step %d: %s is held as %v, want %s of %v", step, vip, side.got, side.want, want)
				}
			}
		}
	}
	if special == 0 {
		t.Error("no VIP's answer depended on who asks: nothing of that was tried")
	}
	if held, err := reader.Read(stranger); held != nil || err != nil {
		t.Errorf("of nobody: %v, error %v", held, err)
	}
}
