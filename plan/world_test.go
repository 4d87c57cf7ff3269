package plan_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/policyworld"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// TestVerdictOfRandomWorlds: both ends of a connection are judged, if they are
// pods of the node.
func TestVerdictOfRandomWorlds(t *testing.T) {
	denied, queries := map[model.Direction]int{}, 0
	for seed := range uint64(500) {
		w := policyworld.New(seed)
		node := plan.Compute(nil, &w.Snapshot, policyworld.Here)
		for _, c := range w.Connections(40) {
			if c.Direction == model.Ingress {
				c.Pod, c.Peer = c.Peer, c.Pod
			}
			hop := plan.Verdict(node, plan.Packet{Source: c.Pod, Destination: c.Peer, Protocol: c.Protocol, Port: c.Port})
			c.Direction = model.Egress
			out, defined := policyworld.Judge(&w.Snapshot, c)
			c.Direction, c.Pod, c.Peer = model.Ingress, c.Peer, c.Pod
			in, defined2 := policyworld.Judge(&w.Snapshot, c)
			if self, _ := w.Nodes.Get(policyworld.Here); c.Peer == self.Addresses[0] || c.Peer == self.Addresses[1] {
				in.Allowed = true // from the node itself
			}
			for _, s := range w.Services.All() {
				query := policy.Query{Protocol: c.Protocol, At: netip.AddrPortFrom(c.Pod, c.Port)}
				if _, is := node.Policy.Queries.Get(query); slices.Contains(s.ClusterIPs, c.Pod) && !is {
					out.Allowed, in.Allowed = true, true // the Service refuses it, whatever policies say
				} else if is {
					queries++
				}
			}
			if !defined || !defined2 {
				continue
			}
			if got := !hop.Denied.Pod.IsValid(); got != (in.Allowed && out.Allowed) {
				t.Fatalf("seed %d: %+v: %+v, want %+v and %+v\n%s", seed, c, hop, out, in, policyworld.Text(&w.Snapshot))
			} else if !got {
				denied[hop.Denied.Direction]++
			}
		}
	}
	if denied[model.Ingress] == 0 || denied[model.Egress] == 0 || queries == 0 {
		t.Errorf("nothing was denied: %v, or asked: %d", denied, queries)
	}
}
