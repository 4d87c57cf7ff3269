package conformance_test

import (
	"testing"
	"time"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// TestTableThatGoes empties maps as the kernel does when another table succeeds the one
// that they are of. Nothing is dropped by it then: what it says of a packet that is in
// its middle may be what it says of others, as the group of who sends is not found any
// more. As long as the table stands, what finds nothing is dropped.
func TestTableThatGoes(t *testing.T) {
	n := newPolicyNode(t, 2)
	to, peer := addressOf(1, 1, model.IPv4), addressOf(2, 1, model.IPv4)
	subject := policy.Subject{Direction: model.Ingress, Address: to}
	denies := func(from, to uint16) *policy.Ports {
		return &policy.Ports{Default: policy.Decision{Accept: true}, Ranges: []policy.PortRange{{
			Protocol: model.UDP, From: from, To: to, Decision: policy.Decision{By: policy.Rule{Policy: model.PolicyKey{Name: "c"}}},
		}}}
	}
	others, group := denies(80, 82), denies(7, 7)
	p := &policy.Plan{}
	p.Rows = p.Rows.With(others.Row(), others).With(group.Row(), group)
	p.Cells = p.Cells.With(policy.Cell{Subject: subject}, others.Row()).With(policy.Cell{Subject: subject, Group: "g"}, group.Row())
	p.Pods = p.Pods.With(peer, "g")
	n.apply(p)

	arrived := map[uint32]bool{}
	come := func(port uint16) bool {
		t.Helper()
		n.send(wired{device: wiresUplink, source: peer, destination: to, protocol: model.UDP, port: port})
		asked := n.number
		// What is sent to the other pod is judged by nobody, and arrives behind it.
		n.send(wired{device: wiresUplink, source: peer, destination: addressOf(1, 2, model.IPv4), protocol: model.UDP, port: port})
		for deadline := time.Now().Add(10 * time.Second); !arrived[n.number]; n.gather(arrived) {
			if time.Now().After(deadline) {
				t.Fatal("what nobody judges does not arrive")
			}
			n.wait(50)
		}
		return arrived[asked]
	}
	empty := func(names ...string) {
		t.Helper()
		n.node.Do(func() {
			conn := &nft.Conn{}
			table := &nft.Table{Family: nft.TableFamilyINet, Name: nftables.TableName}
			for _, name := range names {
				set, err := conn.GetSetByName(table, name)
				n.check(err)
				conn.FlushSet(set)
			}
			n.check(conn.Flush())
		})
	}
	for port, want := range map[uint16]bool{7: false, 80: true, 83: true} {
		if got := come(port); got != want {
			t.Errorf("before all, port %d: %t, want %t", port, got, want)
		}
	}
	empty("policy-pods4", "policy-ports", "policy-protocols", "policy-rows", "policy-denied-ingress")
	for _, port := range []uint16{80, 83} {
		if come(port) {
			t.Errorf("a table that stands: port %d, of which it finds nothing, is let pass", port)
		}
	}
	empty("standing")
	for _, port := range []uint16{80, 83} {
		if !come(port) {
			t.Errorf("a table that goes drops what is sent to port %d", port)
		}
	}
}
