package policy

import (
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestStricter: a plan that forbids what another one allowed says so; pods that
// come, and policies that allow more, are no reason.
func TestStricter(t *testing.T) {
	c := newCluster(t)
	p := c.compute(nil)
	for _, test := range []struct {
		name string
		edit func()
		want bool
	}{
		{"a policy that restricts", func() {
			c.isolate("web/p", "app=front", model.Ingress, allow(tcp(80), pods("team=b", "app=sql")))
		}, true},
		{"another that allows more", func() { c.isolate("web/q", "app=front", model.Ingress, allow(tcp(81), pods("team=b", "app=sql"))) }, false},
		{"one for nobody", func() { c.isolate("web/r", "app=none", model.Ingress) }, false},
		{"a pod elsewhere that is allowed", func() { c.remote("db/sql2", "app=sql", "10.0.2.20") }, false},
		{"that loses its label", func() { c.remote("db/sql2", "app=other", "10.0.2.20") }, true},
		{"that gets it back", func() { c.remote("db/sql2", "app=sql", "10.0.2.20") }, false},
		{"a restricted pod that comes", func() { c.local("web/front2", "app=front", "10.0.1.50") }, false},
		{"less ports", func() { c.isolate("web/q", "app=front", model.Ingress) }, true},
		{"the policy goes", func() { c.Policies = c.Policies.Without(model.PolicyKey{Namespace: "web", Name: "p"}) }, true},
		{"the last one goes", func() { c.Policies = c.Policies.Without(model.PolicyKey{Namespace: "web", Name: "q"}) }, false},
		{"nothing", func() {}, false},
	} {
		test.edit()
		next := c.compute(p)
		if got := next.Stricter(p); got != test.want {
			t.Errorf("%s: %t, want %t", test.name, got, test.want)
		}
		p = next
	}
	if !p.Stricter(nil) {
		t.Error("nobody knows what was allowed before")
	}
}
