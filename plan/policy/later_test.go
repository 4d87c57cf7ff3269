package policy

import (
	"fmt"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestLastOfItsApp: where the last pod leaves that policies let be called by many, who
// waits for that does not wait for all of those. What is left of them is no answer to
// policies that come back, as labels of namespaces change meanwhile.
func TestLastOfItsApp(t *testing.T) {
	c := newCluster(t)
	const many = 3 * 64
	for i := range many {
		c.remote(fmt.Sprint("db/job", i), "app=job", fmt.Sprint("10.0.3.", 1+i))
	}
	c.isolate("web/p", "app=front", model.Ingress, allow(nil, pods("team=b", "app=job")))
	p := c.compute(nil)
	grouped := p.Pods.Len()
	if grouped < many || p.Untidy() {
		t.Fatalf("%d pods are in groups, and untidy is %t", grouped, p.Untidy())
	}
	c.local("web/front", "app=other", "10.0.1.1")
	p = c.compute(p)
	if p.Pods.Len() != grouped || !p.Untidy() {
		t.Errorf("as the last one leaves, %d of %d are still in groups", p.Pods.Len(), grouped)
	}
	left := c.compute(p)
	if got := grouped - left.Pods.Len(); got != usual.ofNone {
		t.Errorf("the next plan regroups %d, want %d", got, usual.ofNone)
	}
	for left.Untidy() {
		left = c.compute(left)
	}
	if left.Pods.Len() != 0 {
		t.Errorf("in the end %d are in groups", left.Pods.Len())
	}
	c.namespace("db", "team=c")
	p = c.compute(p)
	c.local("web/front", "app=front", "10.0.1.1")
	p = c.compute(p)
	for i := range many {
		expect(t, p, fmt.Sprintf("10.0.1.1 ingress from 10.0.3.%d TCP 80: deny by NetworkPolicy web/p: no rule allows it", 1+i))
	}
}
