package nftables

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// manyPolicies are what ten thousand policies may come to on one node: so many
// pods elsewhere in a thousand groups, and 200 pods here that each speak with a
// hundred groups in both directions.
func manyPolicies(pods, ranges int) *plan.Node {
	var p policyPlan
	for pod := range pods {
		p.Pods = p.Pods.With(netip.AddrFrom4([4]byte{10, 1 + byte(pod>>16), byte(pod >> 8), byte(pod)}), groupOf(pod))
	}
	for n := range ranges {
		p.Ranges = p.Ranges.With(netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16 + byte(n>>15), byte(n >> 7), byte(n << 1)}), 31), groupOf(n))
	}
	for pod := range 200 {
		sayMuch(&p, pod)
	}
	node := masquerading(example().Masquerade)
	node.Policy = &p.Plan
	return node
}

func groupOf(n int) policy.Group { return policy.Group(fmt.Sprint("group", n%1000)) }

// sayMuch adds the cells of a pod of this node.
func sayMuch(p *policyPlan, pod int) {
	for _, direction := range model.Directions {
		addr := fmt.Sprintf("10.0.0.%d", pod)
		p.say(direction, addr, policy.Others, policy.Ports{Default: denyBy("deny-all")})
		for n := range 100 {
			port := uint16(1000 + (pod+n)%300)
			p.say(direction, addr, groupOf(pod*5+n*7), policy.Ports{Default: denyBy("deny-all"), Ranges: []policy.PortRange{
				{Protocol: model.TCP, From: port, To: port, Decision: accept},
			}})
		}
	}
}

// BenchmarkPoliciesFromNothing is a table that is made with all policies.
func BenchmarkPoliciesFromNothing(b *testing.B) {
	for _, size := range [][2]int{{50_000, 0}, {50_000, 20_000}} {
		b.Run(fmt.Sprintf("%dpods,%dranges", size[0], size[1]), func(b *testing.B) {
			netnstest.Enter(b)
			node := manyPolicies(size[0], size[1])
			b.ReportAllocs()
			for b.Loop() {
				apply(b, New(), node)
			}
		})
	}
}

// BenchmarkOnePolicyChange is from a new plan to the kernel, and what those that
// listen in an agent make of it.
func BenchmarkOnePolicyChange(b *testing.B) {
	far := netip.MustParseAddr("10.1.3.7")
	for name, change := range map[string]func(*policyPlan, int){
		"group of a pod": func(p *policyPlan, i int) { p.Pods = p.Pods.With(far, groupOf(i%2)) },
		"pod of this node": func(p *policyPlan, i int) {
			if i%2 == 0 {
				sayMuch(p, 200)
			}
		},
		"all of a policy": func(p *policyPlan, i int) {
			p.Pods = p.Pods.With(far, policy.Group(fmt.Sprint("new", i)))
			p.say(model.Ingress, "10.0.0.7", policy.Group(fmt.Sprint("new", i)), policy.Ports{Default: accept})
			p.say(model.Ingress, "10.0.0.7", policy.Others, policy.Ports{Default: denyBy(fmt.Sprint("policy", i))})
		},
	} {
		b.Run(name, func(b *testing.B) {
			here, ctx := netnstest.Enter(b), b.Context()
			node := manyPolicies(50_000, 20_000)
			plane, firewall := New(), NewFirewall()
			here.Go(func() { _ = plane.Run(ctx) })
			apply(b, plane, node)
			here.Go(func() { _ = firewall.Run(ctx) })
			<-firewall.Surveyed()
			var all []time.Duration
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p := policyPlan{*node.Policy}
				change(&p, i)
				next := *node
				next.Policy = &p.Plan
				start := time.Now()
				apply(b, plane, &next)
				all = append(all, time.Since(start))
			}
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}
