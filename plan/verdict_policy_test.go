package plan_test

import (
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// withPolicies has pod default/web on node a, which may be called at port 8080
// by pods of app=far and may call those, at that port too.
func withPolicies() *model.Snapshot {
	snapshot := withServices(func(*model.Service) {})
	snapshot.PoliciesKnown = true
	for _, a := range snapshot.Attachments.All() {
		own := *a
		own.Pod = model.PodKey{Namespace: "default", Name: "web"}
		own.Addresses = own.Addresses[:1]
		snapshot.Attachments = snapshot.Attachments.With(own.AttachmentKey, &own)
		snapshot.Pods = snapshot.Pods.With(own.Pod, &model.Pod{PodKey: own.Pod, Node: "a", Labels: model.LabelsOf(map[string]string{"app": "web"})})
	}
	far := &model.Pod{
		PodKey: model.PodKey{Namespace: "default", Name: "far"}, Node: "c", Addresses: []netip.Addr{netip.MustParseAddr("10.244.2.9")},
		Labels: model.LabelsOf(map[string]string{"app": "far"}),
	}
	snapshot.Pods = snapshot.Pods.With(far.PodKey, far)
	p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "default", Name: "p"}, Isolates: [2]bool{true, true}}
	rule := model.PolicyRule{
		Ports: []model.PolicyPort{{Protocol: model.TCP, From: 8080, To: 8080}},
		Peers: []model.Peer{{
			Namespaces: &model.Selector{},
			Pods:       &model.Selector{Requirements: []model.Requirement{{Key: "app", Values: []string{"far"}}}},
		}},
	}
	p.Rules = [2][]model.PolicyRule{{rule}, {rule}}
	snapshot.Policies = snapshot.Policies.With(p.PolicyKey, p)
	return snapshot
}

// TestVerdictOfPolicies: connections are judged for the pods of this node, as
// Services have led them on.
func TestVerdictOfPolicies(t *testing.T) {
	const web, far, node, other, outside = "10.244.0.5", "10.244.2.9", "192.0.2.1", "192.0.2.2", "203.0.113.9"
	target := netip.MustParseAddrPort(far + ":8080")
	stranger := netip.MustParseAddrPort(outside + ":8080")
	tests := []struct {
		name                string
		source, destination string
		port                uint16
		backend             netip.AddrPort
		established         bool
		want                string
	}{
		{name: "what may call", source: far, destination: web, port: 8080},
		{name: "at another port", source: far, destination: web, port: 81, want: "ingress of 10.244.0.5"},
		{name: "who may not call", source: other, destination: web, port: 8080, want: "ingress of 10.244.0.5"},
		{name: "of a connection that is there", source: other, destination: web, port: 8080, established: true},
		{name: "the node's own probes", source: node, destination: web, port: 8080},
		{name: "the node, by a Service", source: node, destination: "10.96.0.1", port: 80},
		{name: "whom it may call", source: web, destination: far, port: 8080},
		{name: "whom it may not call, where no route of ours leads", source: web, destination: outside, port: 443, want: "egress of 10.244.0.5"},
		{name: "the pod's own node", source: web, destination: node, port: 443, want: "egress of 10.244.0.5"},
		{name: "a Service, as it leads on", source: web, destination: "10.96.0.1", port: 80, backend: target},
		{name: "a Service that leads elsewhere", source: web, destination: "10.96.0.1", port: 80, backend: stranger, want: "egress of 10.244.0.5"},
		{name: "itself, by a Service", source: web, destination: "10.96.0.1", port: 80, backend: netip.MustParseAddrPort(web + ":8080")},
		{name: "from outside by a node port", source: outside, destination: node, port: 30080, backend: netip.MustParseAddrPort(web + ":8080"), want: "ingress of 10.244.0.5"},
		{name: "pods of other nodes among themselves", source: far, destination: "10.244.2.10", port: 81},
	}
	computed := plan.Compute(nil, withPolicies(), "a")
	if len(computed.Problems) > 0 {
		t.Fatal(computed.Problems)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			hop := plan.Verdict(computed, plan.Packet{
				Source: netip.MustParseAddr(test.source), Destination: netip.MustParseAddr(test.destination), Established: test.established,
				Protocol: model.TCP, Port: test.port, Backend: test.backend, Local: test.destination == node,
			})
			got := ""
			if d := hop.Denied; d.Pod.IsValid() {
				got = d.Direction.String() + " of " + d.Pod.String()
				if want := (policy.Rule{Tier: model.NamespaceTier, Policy: model.PolicyKey{Namespace: "default", Name: "p"}, Rule: policy.Isolated}); d.By != want {
					t.Errorf("by %s", d.By)
				}
			}
			if got != test.want || hop.Reachable == (got != "") {
				t.Errorf("got %q %+v, want %q", got, hop, test.want)
			}
		})
	}
}

// TestTextOfPolicies: who is told apart, and what is said to them.
func TestTextOfPolicies(t *testing.T) {
	want := `policy group of 10.244.2.9: pods app=far
policy egress of 10.244.0.5 to group pods app=far: TCP 8080-8080 accept; deny by NetworkPolicy default/p: no rule allows it
policy egress of 10.244.0.5 to itself: accept
policy egress of 10.244.0.5 to others: deny by NetworkPolicy default/p: no rule allows it
policy ingress of 10.244.0.5 from group pods app=far: TCP 8080-8080 accept; deny by NetworkPolicy default/p: no rule allows it
policy ingress of 10.244.0.5 from itself: accept
policy ingress of 10.244.0.5 from others: deny by NetworkPolicy default/p: no rule allows it
`
	computed := plan.Compute(nil, withPolicies(), "a")
	if got := plan.Text(&plan.Node{Policy: computed.Policy}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
