package policy

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestLabelsChange: labels of pods and of namespaces apply as they change.
func TestLabelsChange(t *testing.T) {
	c := newCluster(t)
	c.isolate("web/p", "app=front", model.Ingress, allow(nil, pods("team=b", "app=sql")))
	p := c.compute(nil)
	const no = "deny by NetworkPolicy web/p: no rule allows it"
	expect(t, p, "10.0.1.1 ingress from 10.0.2.2 TCP 80: accept", "10.0.1.1 ingress from 10.0.2.3 TCP 80: "+no, "10.0.1.2 ingress from 10.0.2.3 TCP 80: accept")
	c.remote("db/job", "app=sql", "10.0.2.3")
	p = c.compute(p)
	expect(t, p, "10.0.1.1 ingress from 10.0.2.3 TCP 80: accept")
	c.namespace("db", "team=c")
	p = c.compute(p)
	expect(t, p, "10.0.1.1 ingress from 10.0.2.3 TCP 80: "+no, "10.0.1.1 ingress from 10.0.2.2 TCP 80: "+no)
	c.remote("web/back", "app=front").Node = "a"
	expect(t, c.compute(p), "10.0.1.2 ingress from 10.0.2.3 TCP 80: "+no)
}

// TestExpectedPod: what a pod's policies need of others is there as soon as it is given
// to the node, so that connecting it takes its own elements alone. It goes with the pod.
func TestExpectedPod(t *testing.T) {
	c := newCluster(t)
	c.isolate("web/p", "app=new", model.Ingress, allow(tcp(80), pods("team=b", "app=sql"), addresses("192.0.2.0/24")))
	p := c.compute(nil)
	sql := netip.MustParseAddr("10.0.2.2")
	if group, ok := p.Pods.Get(sql); ok {
		t.Fatalf("a pod that nobody here asks for is in the group %q", group)
	}
	pod := c.remote("web/new", "app=new")
	pod.Node = "a"
	waiting := c.compute(p)
	if _, ok := waiting.Pods.Get(sql); !ok || waiting.Ranges.Len() == p.Ranges.Len() || waiting.Rows.Len() == p.Rows.Len() {
		t.Errorf("for a pod that is expected there are %d pods, %d ranges and %d rows", waiting.Pods.Len(), waiting.Ranges.Len(), waiting.Rows.Len())
	}
	if waiting.Cells != p.Cells {
		t.Error("a pod that is not connected has cells")
	}
	before := c.Snapshot.Attachments
	c.attach("web/new", "10.0.1.9")
	there := c.compute(waiting)
	// Its cells are for others, the pods, the block and itself; the last leads to a row of its own.
	if there.Pods != waiting.Pods || there.Ranges != waiting.Ranges || there.Rows.Len() != waiting.Rows.Len()+1 || there.Cells.Len() != 4 {
		t.Errorf("connecting it made %d cells, and %d of %d rows", there.Cells.Len(), there.Rows.Len(), waiting.Rows.Len())
	}
	expect(t, there, "10.0.1.9 ingress from 10.0.2.2 TCP 80: accept", "10.0.1.9 ingress from 10.0.2.3 TCP 80: deny by NetworkPolicy web/p: no rule allows it")
	c.Snapshot.Pods, c.Snapshot.Attachments = c.Snapshot.Pods.Without(pod.PodKey), before
	if left := c.compute(waiting); left.Pods.Len() != p.Pods.Len() || left.Ranges.Len() != p.Ranges.Len() || left.Rows.Len() != p.Rows.Len() {
		t.Errorf("after it there are %d pods, %d ranges and %d rows", left.Pods.Len(), left.Ranges.Len(), left.Rows.Len())
	}
}

// TestOneElement: a pod elsewhere that comes, or moves to another group, is one
// element; policies of others are none.
func TestOneElement(t *testing.T) {
	c := newCluster(t)
	c.isolate("web/p", "app=front", model.Ingress, allow(nil, pods("team=b", "app=sql")))
	c.isolate("web/q", "app=back", model.Ingress, allow(nil, pods("team=b", "app=job")))
	p := c.compute(nil)
	changes := func(edit func()) (all []string) {
		edit()
		next := c.compute(p)
		for change := range model.Diff(p.Pods, next.Pods) {
			all = append(all, change.Key.String())
		}
		for change := range model.Diff(p.Cells, next.Cells) {
			all = append(all, change.Key.String())
		}
		for change := range model.Diff(p.Rows, next.Rows) {
			all = append(all, string(change.Key))
		}
		p = next
		return all
	}
	for _, test := range []struct {
		name string
		edit func()
		want string
	}{
		{"a pod that is chosen", func() { c.remote("db/sql2", "app=sql", "10.0.2.20") }, "[10.0.2.20]"},
		{"a pod that is not", func() { c.remote("db/other", "app=other", "10.0.2.21") }, "[]"},
		{"a pod that changes groups", func() { c.remote("db/sql2", "app=job", "10.0.2.20") }, "[10.0.2.20]"},
		{"a pod that ends", func() { c.remote("db/sql2", "app=job", "10.0.2.20").Finished = true }, "[10.0.2.20]"},
		{"a policy of another namespace", func() { c.isolate("db/p", "", model.Ingress) }, "[]"},
		{"a policy that selects nobody here", func() { c.isolate("web/r", "app=none", model.Ingress) }, "[]"},
	} {
		if got := fmt.Sprint(changes(test.edit)); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

// TestShared: pods that policies do not tell apart share rows, and blocks of
// one rule are one group.
func TestShared(t *testing.T) {
	c := newCluster(t)
	peers := []model.Peer{}
	for i := range 1000 {
		peers = append(peers, addresses(fmt.Sprintf("172.16.%d.%d/32", i/100, 2*(i%100))))
	}
	c.isolate("web/p", "", model.Egress, allow(nil, peers...))
	for i := range 50 {
		c.local(fmt.Sprint("web/more", i), fmt.Sprint("app=front,hash=", i), fmt.Sprint("10.0.1.", 100+i))
	}
	p := c.compute(nil)
	if p.Ranges.Len() != 1000 || p.groups.Len() != 1 || p.Rows.Len() != 2 {
		t.Errorf("%d ranges, %d groups, %d rows", p.Ranges.Len(), p.groups.Len(), p.Rows.Len())
	}
	const addressesHere = 50 + 4
	if want := addressesHere * 3; p.Cells.Len() != want { // others, the blocks, itself
		t.Errorf("%d cells, want %d", p.Cells.Len(), want)
	}
}

// TestPodsOfTheNodesOwnNetwork: they are not judged, even if they are attached.
func TestPodsOfTheNodesOwnNetwork(t *testing.T) {
	c := newCluster(t)
	c.local("web/host", "app=front", "10.0.1.30").HostNetwork = true
	c.isolate("web/p", "", model.Ingress)
	expect(t, c.compute(nil), "10.0.1.30 ingress from 10.0.2.2 TCP 80: accept")
}
