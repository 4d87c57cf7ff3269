package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

func (s *stub) nodeNetwork(name string) *v1alpha1.NodeNetwork {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	object := &v1alpha1.NodeNetwork{}
	text, err := json.Marshal(s.objects[nodeNetworksPath+"/"+name])
	if err == nil {
		err = json.Unmarshal(text, object)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return object
}

func TestPublishNode(t *testing.T) {
	s := newStub(t)
	s.put(nodesPath, stubNode("a", `"spec": {}`))
	client := s.client(Options{})
	status := NodeStatus{Node: "a", Version: "v1", Ready: true, Message: "fine", Attached: 3, Direct: 1, Uplink: "eth0", MTU: 1500}
	publish := func() {
		t.Helper()
		if err := client.PublishNode(t.Context(), status); err != nil {
			t.Fatalf("PublishNode: %v", err)
		}
	}
	puts := func() int { return s.count("PUT " + nodeNetworksPath + "/a/status") }

	publish()
	first := s.nodeNetwork("a")
	if owners := first.OwnerReferences; len(owners) != 1 || owners[0].UID != "uid-of-a" || owners[0].Kind != "Node" {
		t.Errorf("owners: %v", owners)
	}
	if got := first.Status; got.Pods != 3 || got.Peers.Direct != 1 || got.MTU != 1500 || got.Conditions[0].Reason != "Ready" {
		t.Errorf("status: %+v", got)
	}

	requests := len(s.requests)
	publish()
	if len(s.requests) != requests {
		t.Errorf("the same status cost requests: %v", s.requests[requests:])
	}

	status.Problems = []model.Problem{{Kind: "Node", Name: "a", Reason: "Test", Message: "x"}, {Kind: "Node", Name: "a", Reason: "Other"}}
	publish()
	degraded := meta.FindStatusCondition(s.nodeNetwork("a").Status.Conditions, v1alpha1.ConditionDegraded)
	if degraded == nil || degraded.Status != metav1.ConditionTrue || degraded.Reason != "Test" || degraded.Message != "Node/a: x (and 1 more)" {
		t.Errorf("with problems: %+v", degraded)
	}
	status.Problems = nil
	publish()
	if meta.IsStatusConditionTrue(s.nodeNetwork("a").Status.Conditions, v1alpha1.ConditionDegraded) {
		t.Error("the problems are gone, and it is still degraded")
	}
	if got := s.nodeNetwork("a").Status; len(got.Problems) != 0 || puts() != 3 {
		t.Errorf("a problem came and went: %+v, %d writes", got, puts())
	}
	client.publisher.next = time.Time{}
	publish()
	if puts() != 4 {
		t.Errorf("no heartbeat: %d writes", puts())
	}
	if got := s.nodeNetwork("a").Status.Conditions[0].LastTransitionTime; !got.Equal(&first.Status.Conditions[0].LastTransitionTime) {
		t.Error("the time of the last transition changed without one")
	}
}

func TestPublishNodeAfterItsNodeWasReplaced(t *testing.T) {
	s := newStub(t)
	s.put(nodesPath, stubNode("a", `"spec": {}`))
	client := s.client(Options{})
	status := NodeStatus{Node: "a", Ready: true}
	if err := client.PublishNode(t.Context(), status); err != nil {
		t.Fatal(err)
	}
	s.remove(nodeNetworksPath + "/a")
	status.Attached++
	if err := client.PublishNode(t.Context(), status); err != nil {
		t.Fatal(err)
	}
	if got := s.nodeNetwork("a").Status.Pods; got != 1 {
		t.Errorf("%d pods", got)
	}
}

// The same, when nothing of the status changes: what was written went with the Node of before.
func TestPublishNodeOfReplacedNode(t *testing.T) {
	s := newStub(t)
	node := func(uid string) { s.put(nodesPath, `{"metadata": {"name": "a", "uid": "`+uid+`"}}`) }
	client := s.client(Options{})
	publish := func(uid string) {
		t.Helper()
		if err := client.PublishNode(t.Context(), NodeStatus{Node: "a", UID: uid, Ready: true}); err != nil {
			t.Fatal(err)
		}
	}
	node("first")
	publish("first")
	node("second")
	publish("second") // it is there still
	s.remove(nodeNetworksPath + "/a")
	publish("second")
	if owners := s.nodeNetwork("a").OwnerReferences; len(owners) != 1 || owners[0].UID != "second" {
		t.Errorf("its owners are %v", owners)
	}
	requests := len(s.requests)
	publish("second")
	if len(s.requests) != requests {
		t.Errorf("the same status cost requests: %v", s.requests[requests:])
	}
}

func TestPublishNodeGivesUp(t *testing.T) {
	s := newStub(t)
	client := s.client(Options{})
	if err := client.PublishNode(t.Context(), NodeStatus{Node: "none"}); !IsNotFound(err) {
		t.Errorf("without a Node: %v", err)
	}
	s.server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := client.PublishNode(ctx, NodeStatus{Node: "a"}); err == nil {
		t.Error("published to nobody")
	}
}

func TestPublishNetwork(t *testing.T) {
	s := newStub(t)
	client := s.client(Options{})
	count := func(to int32) func(*v1alpha1.NetworkStatus, int64) {
		return func(status *v1alpha1.NetworkStatus, _ int64) { status.Nodes.Total = to }
	}
	for i := range 3 {
		if err := client.PublishNetwork(t.Context(), count(int32(1+i/2))); err != nil {
			t.Fatal(err)
		}
	}
	if posts, puts := s.count("POST "+networksPath), s.count("PUT "+networksPath+"/default/status"); posts != 1 || puts != 2 {
		t.Errorf("%d objects made and %d writes of status, want 1 and 2", posts, puts)
	}
}

func TestLead(t *testing.T) {
	s := newStub(t)
	client := s.client(Options{})
	failure := errors.New("failure")
	lock := func(identity string) Lock {
		return Lock{Namespace: "kube-system", Name: "lock", Identity: identity, Failed: func(err error) { t.Log(err) }}
	}
	limited, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var second context.Context
	err := client.Lead(limited, lock("one"), func(ctx context.Context) error {
		waiting, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		err := client.Lead(waiting, lock("two"), func(ctx context.Context) error { second = ctx; return nil })
		if err != nil {
			t.Errorf("the second: %v", err)
		}
		return failure
	})
	if !errors.Is(err, failure) || second != nil {
		t.Errorf("error %v; two led: %t", err, second != nil)
	}
	// Given back, it can be had at once.
	ctx, cancel := context.WithCancel(limited)
	err = client.Lead(ctx, lock("three"), func(leading context.Context) error {
		cancel()
		<-leading.Done()
		return nil
	})
	if err != nil {
		t.Errorf("ended by its context: %v", err)
	}
}

// TestTakeover: a leader that has vanished without a word is replaced once its Lease has
// run out, and not before.
func TestTakeover(t *testing.T) {
	s := newStub(t)
	const every = 40 * time.Millisecond
	s.put("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", fmt.Sprintf(`{"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
		"metadata": {"namespace": "kube-system", "name": "lock"}, "spec": {"holderIdentity": "gone", "leaseDurationSeconds": 1, "renewTime": %q}}`,
		time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00")))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	began, led := time.Now(), false
	err := s.client(Options{}).Lead(ctx, Lock{Namespace: "kube-system", Name: "lock", Identity: "next", Every: every, Failed: func(err error) { t.Log(err) }},
		func(context.Context) error { led = true; return nil })
	if err != nil || !led {
		t.Fatalf("led: %v, %v", led, err)
	}
	if took := time.Since(began); took < every*7 {
		t.Errorf("it leads after %v, while the other may still believe that it does", took)
	}
}
