package policy

import (
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestClusterPolicies: tiers, priorities and actions.
func TestClusterPolicies(t *testing.T) {
	const in = model.Ingress
	web, db := pods("team=a", ""), pods("team=b", "")
	tests := []struct {
		name  string
		make  func(*cluster)
		lines []string
	}{
		{"it isolates nobody by itself", func(c *cluster) {
			c.judge("p", model.AdminTier, 1, in, act(model.Accept, allow(tcp(80), db)))
		}, []string{
			"10.0.1.1 ingress from 10.0.2.2 TCP 80: accept",
			"10.0.1.1 ingress from 10.0.2.2 TCP 81: accept",
			"10.0.1.1 ingress from 8.8.8.8 TCP 80: accept",
		}},
		{"the first rule that fits decides", func(c *cluster) {
			c.judge("p", model.AdminTier, 1, in, act(model.Accept, allow(tcp(80), db)), act(model.Deny, allow(nil, db)))
		}, []string{
			"10.0.1.1 ingress from 10.0.2.2 TCP 80: accept",
			"10.0.1.1 ingress from 10.0.2.2 TCP 81: deny by ClusterNetworkPolicy p: rule 2",
			"10.0.1.1 ingress from 10.0.2.2 ICMP: deny by ClusterNetworkPolicy p: rule 2",
			"10.0.1.1 ingress from 10.0.2.1 TCP 81: accept",
		}},
		{"the lower priority is asked first", func(c *cluster) {
			c.judge("a", model.AdminTier, 20, in, act(model.Deny, allow(nil)))
			c.judge("b", model.AdminTier, 10, in, act(model.Accept, allow(tcp(80))))
		}, []string{
			"10.0.1.1 ingress from 8.8.8.8 TCP 80: accept",
			"10.0.1.1 ingress from 8.8.8.8 TCP 81: deny by ClusterNetworkPolicy a: rule 1",
		}},
		{"Admin goes before NetworkPolicies", func(c *cluster) {
			c.isolate("web/p", "", in, allow(tcp(81)))
			c.judge("a", model.AdminTier, 1, in, act(model.Accept, allow(tcp(80), db)), act(model.Deny, allow(tcp(81), db)))
		}, []string{
			"10.0.1.1 ingress from 10.0.2.2 TCP 80: accept",
			"10.0.1.1 ingress from 10.0.2.2 TCP 81: deny by ClusterNetworkPolicy a: rule 2",
			"10.0.1.1 ingress from 10.0.2.1 TCP 81: accept",
			"10.0.1.1 ingress from 10.0.2.2 TCP 82: deny by NetworkPolicy web/p: no rule allows it",
		}},
		{"Pass leaves it to the next tier, and skips the rest of its own", func(c *cluster) {
			c.isolate("web/p", "app=front", in)
			c.judge("a", model.AdminTier, 1, in, act(model.Pass, allow(tcp(80), db)))
			c.judge("b", model.AdminTier, 2, in, act(model.Accept, allow(nil)))
			c.judge("c", model.BaselineTier, 1, in, act(model.Deny, allow(nil)))
		}, []string{
			"10.0.1.1 ingress from 10.0.2.2 TCP 80: deny by NetworkPolicy web/p: no rule allows it",
			"10.0.1.1 ingress from 10.0.2.2 TCP 81: accept",
			"10.0.1.2 ingress from 10.0.2.2 TCP 80: deny by ClusterNetworkPolicy c: rule 1",
			"10.0.1.2 ingress from 10.0.2.2 TCP 81: accept",
		}},
		{"Baseline is asked only if no NetworkPolicy selects the pod in that direction", func(c *cluster) {
			c.isolate("web/p", "app=front", in, allow(tcp(80)))
			c.isolate("web/q", "app=back", model.Egress)
			c.judge("b", model.BaselineTier, 1, in, act(model.Deny, allow(nil)))
		}, []string{
			"10.0.1.1 ingress from 10.0.2.2 TCP 80: accept",
			"10.0.1.2 ingress from 10.0.2.2 TCP 80: deny by ClusterNetworkPolicy b: rule 1",
		}},
		{"Pass in Baseline allows", func(c *cluster) {
			c.judge("b", model.BaselineTier, 1, in, act(model.Pass, allow(tcp(80))), act(model.Deny, allow(nil)))
		}, []string{
			"10.0.1.1 ingress from 10.0.2.2 TCP 80: accept",
			"10.0.1.1 ingress from 10.0.2.2 TCP 81: deny by ClusterNetworkPolicy b: rule 2",
		}},
		{"networks are addresses of pods too", func(c *cluster) {
			c.judge("a", model.AdminTier, 1, model.Egress, act(model.Deny, allow(nil, addresses("10.0.2.2/32"))), act(model.Deny, allow(tcp(80), addresses("192.0.2.0/24"))))
		}, []string{
			"10.0.1.1 egress to 10.0.2.2 UDP 53: deny by ClusterNetworkPolicy a: rule 1",
			"10.0.1.1 egress to 10.0.2.2 ICMP: deny by ClusterNetworkPolicy a: rule 1",
			"10.0.1.1 egress to 192.0.2.1 TCP 80: deny by ClusterNetworkPolicy a: rule 2",
			"10.0.1.1 egress to 192.0.2.1 UDP 80: accept",
		}},
		{"a pod that calls itself by a Service is judged as the pod that it is", func(c *cluster) {
			c.isolate("web/p", "", in)
			c.judge("a", model.AdminTier, 1, in, act(model.Deny, allow(tcp(80), web)))
		}, []string{
			"10.0.1.1 ingress from 10.0.1.1 TCP 80: deny by ClusterNetworkPolicy a: rule 1",
			"10.0.1.1 ingress from 10.0.1.1 TCP 81: accept",
		}},
		{"those that tie go by name", func(c *cluster) {
			c.judge("b", model.AdminTier, 1, in, act(model.Accept, allow(nil)))
			c.judge("a", model.AdminTier, 1, in, act(model.Deny, allow(nil)))
		}, []string{"10.0.1.1 ingress from 8.8.8.8 TCP 80: deny by ClusterNetworkPolicy a: rule 1"}},
		{"labels of pods and namespaces both have to fit", func(c *cluster) {
			p := c.judge("a", model.AdminTier, 1, in, act(model.Deny, allow(nil)))
			p.Namespaces, p.Pods = selectorOf("team=a"), selectorOf("app=front")
			q := c.judge("b", model.AdminTier, 1, in, act(model.Deny, allow(nil)))
			q.Namespaces = selectorOf("team=b")
		}, []string{
			"10.0.1.1 ingress from 8.8.8.8 TCP 80: deny by ClusterNetworkPolicy a: rule 1",
			"10.0.1.2 ingress from 8.8.8.8 TCP 80: accept",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			test.make(c)
			expect(t, c.compute(nil), test.lines...)
		})
	}
}
