package policy

import (
	"fmt"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestProblems: what a user has to mend, and for how long.
func TestProblems(t *testing.T) {
	c := newCluster(t)
	var p *Plan
	problems := func(want string) {
		t.Helper()
		next, found := Compute(p, &c.Snapshot, "a")
		p = next
		if got := fmt.Sprint(found); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	c.isolate("web/p", "app=front", model.Ingress, allow(tcp(80)), allow(named(model.TCP, "metrics"), own("web", "")))
	problems("[NetworkPolicy/web/p spec.ingress[1].ports: no pod that it selects has a port of TCP with the name metrics, so that this allows nothing; correct the name, or give the port by its number; kubectl get pods -o yaml shows the names under spec.containers.ports]")
	metrics := []model.ContainerPort{{Name: "metrics", Protocol: model.TCP, Port: 9100}}
	c.remote("web/far", "app=front", "10.0.2.1").Ports = metrics
	problems("[]") // the pods of this node may be older ones
	c.remote("web/far", "app=other", "10.0.2.1").Ports = metrics
	c.isolate("web/p", "app=front", model.Ingress)
	problems("[]")

	said := func(of ...int) string {
		var all []string
		for _, rule := range of {
			all = append(all, fmt.Sprintf("NetworkPolicy/web/p spec.egress[%d].ports: no pod that this names has a port of TCP with the name metrics, so that this allows nothing; correct the name, or give the port by its number; kubectl get pods -o yaml shows the names under spec.containers.ports", rule))
		}
		return fmt.Sprint(all)
	}
	c.isolate("web/p", "app=front", model.Egress, allow(named(model.TCP, "metrics"), own("db", "app=sql")), allow(named(model.TCP, "metrics")),
		allow(named(model.TCP, "metrics"), addresses("192.0.2.0/24")), allow(named(model.TCP, "metrics"), own("db", "app=later")), allow(named(model.TCP, "http")))
	c.remote("web/far", "app=other", "10.0.2.1").Ports = nil
	problems(said(0, 1, 2))
	c.remote("db/metered", "app=other", "10.0.2.40").Ports = metrics
	problems(said(0, 2))
	c.remote("db/metered", "app=sql", "10.0.2.40").Ports = metrics
	problems(said(2))
	c.remote("db/later", "app=later", "10.0.2.41").Ports = nil
	problems(said(2, 3))
	c.isolate("web/p", "app=front", model.Ingress)
	problems("[]")

	c.judge("x", model.AdminTier, 7, model.Ingress)
	c.judge("y", model.BaselineTier, 7, model.Ingress)
	c.judge("z", model.AdminTier, 7, model.Ingress).Pods = selectorOf("app=nobody")
	problems("[]")
	c.judge("z", model.AdminTier, 7, model.Ingress).Pods = selectorOf("app=front")
	problems("[ClusterNetworkPolicy/z spec.priority: x of tier Admin has the priority 7 too and selects some of the same pods, so that the API does not say which of them decides; here x is asked first; give one of them another priority]")
	c.ClusterPolicies = c.ClusterPolicies.Without("x")
	problems("[]")
}
