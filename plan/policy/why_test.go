package policy

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestExplain: who decides, and which rule comes nearest to allowing what is
// denied.
func TestExplain(t *testing.T) {
	c := newCluster(t)
	c.attach("web/new", "10.0.1.9")
	c.isolate("web/deny-all", "", model.Ingress)
	c.isolate("web/allow-front", "app=back", model.Ingress, allow(tcp(8080), own("web", "app=front")), allow(tcp(53), own("db", "")))
	c.judge("admin", model.AdminTier, 1, model.Ingress,
		act(model.Pass, allow(tcp(53))), act(model.Deny, allow(tcp(22, 53))), act(model.Accept, allow(tcp(22), own("db", "app=sql"))), act(model.Accept, allow(tcp(9100))))
	p := c.compute(nil)
	for _, test := range []struct {
		at, peer string
		port     uint16
		want     string
	}{
		{"10.0.1.2", "10.0.2.1", 8080, "allowed by NetworkPolicy web/allow-front: rule 1, direction ingress"},
		{"10.0.1.2", "10.0.2.1", 80, "default deny by NetworkPolicy web/allow-front, direction ingress; nearest allow: NetworkPolicy web/allow-front: rule 1, port differs"},
		{"10.0.1.2", "8.8.8.8", 53, "default deny by NetworkPolicy web/allow-front, direction ingress; nearest allow: NetworkPolicy web/allow-front: rule 2, peer differs"},
		{"10.0.1.2", "8.8.8.8", 54, "default deny by NetworkPolicy web/allow-front, direction ingress; nearest allow: NetworkPolicy web/allow-front: rule 1, peer and port differ"},
		{"10.0.1.2", "10.0.2.3", 53, "allowed by NetworkPolicy web/allow-front: rule 2, direction ingress"},
		{"10.0.1.1", "10.0.2.1", 80, "default deny by NetworkPolicy web/deny-all, direction ingress"},
		{"10.0.1.1", "10.0.1.1", 80, "allowed, direction ingress: no policy forbids it"},
		{"10.0.1.1", "10.0.2.1", 9100, "allowed by ClusterNetworkPolicy admin: rule 4, direction ingress"},
		{"10.0.1.1", "10.0.2.2", 22, "denied by ClusterNetworkPolicy admin: rule 2, direction ingress; nearest allow: ClusterNetworkPolicy admin: rule 3, it is asked later"},
		{"10.0.1.9", "10.0.2.2", 22, "denied by pod web/new is not known yet, direction ingress"},
		{"10.0.2.2", "10.0.1.1", 22, "allowed, direction ingress: no policy forbids it"},
	} {
		at := Subject{model.Ingress, netip.MustParseAddr(test.at)}
		if got := p.Explain(at, netip.MustParseAddr(test.peer), model.TCP, test.port).String(); got != test.want {
			t.Errorf("%s from %s at %d\n got %s\nwant %s", test.at, test.peer, test.port, got, test.want)
		}
	}
}

// TestEffective: the rules of a pod, as they are asked.
func TestEffective(t *testing.T) {
	c := newCluster(t)
	c.isolate("web/p", "app=front", model.Ingress,
		allow(append(named(model.TCP, "http"), model.PolicyPort{Protocol: model.UDP, To: 65535}), own("web", "app=back"), addresses("192.0.2.0/24", "192.0.2.1/32")),
		allow(named(model.TCP, "nobody's"), own("db", "")), model.PolicyRule{AnyPort: true})
	c.judge("admin", model.AdminTier, 1, model.Ingress, act(model.Deny, allow([]model.PolicyPort{{Protocol: model.TCP, From: 1, To: 9}}, pods("team=b", ""))))
	c.judge("base", model.BaselineTier, 1, model.Ingress, act(model.Deny, allow(nil)))
	p := c.compute(nil)
	for _, test := range []struct{ at, want string }{
		{"10.0.1.1", "[Deny all pods of namespaces team=b at 1-9/TCP (ClusterNetworkPolicy admin: rule 1)" +
			" Accept 192.0.2.0/24 except 192.0.2.1/32 or pods app=back of web at 8080/TCP, UDP (NetworkPolicy web/p: rule 1)" +
			" Accept all pods of db at no port (NetworkPolicy web/p: rule 2)" +
			" Accept nobody at any port (NetworkPolicy web/p: rule 3)] NetworkPolicy web/p: no rule allows it"},
		{"10.0.1.2", "[Deny all pods of namespaces team=b at 1-9/TCP (ClusterNetworkPolicy admin: rule 1)" +
			" Deny anyone at any port (ClusterNetworkPolicy base: rule 1)] <nil>"},
		{"10.0.2.2", "[] <nil>"},
	} {
		rules, isolated := p.Effective(Subject{model.Ingress, netip.MustParseAddr(test.at)})
		if got := fmt.Sprint(rules, isolated); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.at, got, test.want)
		}
	}
}
