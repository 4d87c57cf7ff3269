package controller

import (
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/kube"
)

// look is what a herald writes at a look, as text, sorted.
func look(h *herald, v view, at time.Duration) (texts []string) {
	v.now = now.Add(at)
	for _, confirm := range write(h, v, &texts) {
		confirm()
	}
	return texts
}

func write(h *herald, v view, texts *[]string) []func() {
	events, confirm := first(h.due(v, v.now))
	for _, event := range events {
		kind := "Warning"
		if event.Normal {
			kind = "Normal"
		}
		*texts = append(*texts, fmt.Sprintf("%s %s %s: %s", kind, event.Object(), event.Reason, event.Message))
	}
	return confirm
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// TestEvents: of a node whose network fails, and of what is wrong with objects,
// there is one Event when it has lasted, and one when it is over.
func TestEvents(t *testing.T) {
	var h herald
	v, well := cluster(3), cluster(3)
	expect(t, "all is well", look(&h, v, 0))
	link := v1alpha1.Problem{Kind: "Link", Name: "eth0", Reason: "Down", Message: "it is down"}
	mtu := v1alpha1.Problem{Kind: "Network", Name: "default", Field: "spec.mtu", Reason: "Invalid", Message: "too large"}
	v.reports = v.reports.With("n1", report(metav1.ConditionFalse, now.Add(time.Hour), link, mtu)).
		With("n2", report(metav1.ConditionTrue, now.Add(time.Hour), mtu)).With("n0", report(metav1.ConditionTrue, now.Add(time.Hour)))
	well.reports = v.reports.With("n1", report(metav1.ConditionTrue, now.Add(time.Hour))).With("n2", report(metav1.ConditionTrue, now.Add(time.Hour)))
	expect(t, "it may pass by itself", look(&h, v, time.Second))
	want := []string{
		"Warning Node/n1 Reason: the network of this node is not ready: said so",
		"Warning Node/n1 Down: Link/eth0: it is down",
		"Warning Network/default NodesNotReady: 1 of 3 nodes are not ready: n1",
		"Warning Network/default Invalid: too large",
	}
	var lost []string
	v.now = now.Add(time.Second + settleTime)
	write(&h, v, &lost) // the API server did not take them
	expect(t, "it has lasted", lost, want...)
	expect(t, "it was not written", look(&h, v, time.Second+settleTime), want...)
	expect(t, "it was written", look(&h, v, time.Minute))
	other := report(metav1.ConditionFalse, now.Add(time.Hour), link, mtu)
	other.Status.Conditions[0].Reason = "Other"
	v.reports = v.reports.With("n1", other)
	expect(t, "another reason", look(&h, v, 2*time.Minute))
	expect(t, "all is well again", look(&h, well, 3*time.Minute),
		"Normal Node/n1 NetworkReady: the network of this node is ready again",
		"Normal Node/n1 DownResolved: no more: Link/eth0: it is down",
		"Normal Network/default AllNodesReady: the network is ready on all nodes again",
		"Normal Network/default InvalidResolved: no more: too large")
	expect(t, "it was said", look(&h, well, 4*time.Minute))

	// A node that goes is not well.
	look(&h, v, 5*time.Minute)
	look(&h, v, 6*time.Minute)
	well.snapshot.Nodes = well.snapshot.Nodes.Without("n1")
	expect(t, "the node is gone", look(&h, well, 7*time.Minute),
		"Normal Network/default AllNodesReady: the network is ready on all nodes again",
		"Normal Network/default InvalidResolved: no more: too large")

	// Nor is one that is to have no agent any more.
	var left herald
	v = cluster(2)
	v.reports = v.reports.With("n1", report(metav1.ConditionFalse, now))
	look(&left, v, 0)
	expect(t, "a node fails", look(&left, v, settleTime),
		"Warning Node/n1 Reason: the network of this node is not ready: said so",
		"Warning Network/default NodesNotReady: 1 of 2 nodes are not ready: n1")
	without(&v, "n1", "fairlead.io/agent", "none")
	expect(t, "it is to have no agent", look(&left, v, time.Minute),
		"Normal Network/default AllNodesReady: the network is ready on all nodes again")
}

// TestEventsOfObjects: what is wrong with an object is told of that object, once,
// however many nodes say so; and of each object. Of what is none, each node tells.
func TestEventsOfObjects(t *testing.T) {
	var h herald
	taken := func(name string) v1alpha1.Problem {
		return v1alpha1.Problem{Kind: "Service", Namespace: "shop", Name: name, Reason: "AddressTaken", Message: "it is taken"}
	}
	link := func(name string) v1alpha1.Problem {
		return v1alpha1.Problem{Kind: "Link", Name: name, Reason: "Down", Message: "it is down"}
	}
	v, well := cluster(2), cluster(2)
	for _, name := range []string{"n0", "n1"} {
		v.reports = v.reports.With(name, report(metav1.ConditionTrue, now.Add(time.Hour), taken("a"), taken("b"), link("eth0"), link("eth1")))
		well.reports = well.reports.With(name, report(metav1.ConditionTrue, now.Add(time.Hour), taken("b")))
	}
	look(&h, v, 0)
	expect(t, "all that is wrong", look(&h, v, settleTime),
		"Warning Node/n0 Down: Link/eth0: it is down", "Warning Node/n0 Down: Link/eth1: it is down",
		"Warning Node/n1 Down: Link/eth0: it is down", "Warning Node/n1 Down: Link/eth1: it is down",
		"Warning Service/shop/a AddressTaken: it is taken", "Warning Service/shop/b AddressTaken: it is taken")
	got := look(&h, well, time.Minute)
	expect(t, "one Service is well, and the links", got[4:], "Normal Service/shop/a AddressTakenResolved: no more: it is taken")
}

// TestEventsOfCrowds: what goes from a status that is full is not over for that.
func TestEventsOfCrowds(t *testing.T) {
	var h herald
	say := func(from, to int) view {
		v := cluster(1)
		var problems []v1alpha1.Problem
		for i := from; i < to; i++ {
			problems = append(problems, v1alpha1.Problem{Kind: "Service", Namespace: "shop", Name: fmt.Sprintf("%03d", i), Reason: "AddressTaken", Message: "it is taken"})
		}
		v.reports = v.reports.With("n0", report(metav1.ConditionTrue, now.Add(time.Hour), problems...))
		return v
	}
	look(&h, say(1, 3), 0)
	look(&h, say(1, 3), settleTime)
	expect(t, "no room for one more", look(&h, say(2, 2+kube.MaxProblems), time.Minute))
	if !h.waiting() {
		t.Error("nothing is waited for")
	}
	expect(t, "room again", look(&h, say(2, 3), 2*time.Minute), "Normal Service/shop/001 AddressTakenResolved: no more: it is taken")
}

// TestEventsOfWhatComesBack: of it the API server may still have the Event, so that it
// would take another one like it for the same.
func TestEventsOfWhatComesBack(t *testing.T) {
	var h herald
	v, well := cluster(1), cluster(1)
	v.reports = v.reports.With("n0", report(metav1.ConditionTrue, now.Add(2*time.Hour), v1alpha1.Problem{Kind: "Service", Namespace: "shop", Name: "a", Reason: "AddressTaken", Message: "x"}))
	well.reports = well.reports.With("n0", report(metav1.ConditionTrue, now.Add(2*time.Hour)))
	onset := func(at time.Duration) kube.Event {
		h.due(v, now.Add(at))
		events, confirm := h.due(v, now.Add(at+settleTime))
		if len(events) != 1 {
			t.Fatalf("%d Events", len(events))
		}
		confirm[0]()
		_, confirm = h.due(well, now.Add(at+time.Minute))
		confirm[0]()
		return events[0]
	}
	first, second := onset(0), onset(10*time.Minute)
	if first.Again != "" || second.Again == "" {
		t.Errorf("the first time it is told from others by %q, the second by %q", first.Again, second.Again)
	}
	if h.due(well, now.Add(3*time.Hour)); len(h.over) > 0 {
		t.Errorf("after hours it remembers %v", h.over)
	}
}

// TestEventsOfOneMatter: what many nodes say of one field is one Event, in words
// that do not change from look to look.
func TestEventsOfOneMatter(t *testing.T) {
	v := cluster(10)
	for i := range 10 {
		v.reports = v.reports.With(fmt.Sprintf("n%d", i), report(metav1.ConditionTrue, now.Add(time.Hour), v1alpha1.Problem{
			Kind: "Network", Name: "default", Field: "spec.mtu", Reason: "MTUTooLarge", Message: fmt.Sprintf("too large for n%d", i),
		}))
	}
	for range 20 {
		var h herald
		look(&h, v, 0)
		expect(t, "ten nodes", look(&h, v, settleTime), "Warning Network/default MTUTooLarge: too large for n0")
	}
}

// TestEventsOfMany: when everything fails at once, the API server gets some at a
// time, of all in the end, each once.
func TestEventsOfMany(t *testing.T) {
	const nodes = 3*maxEvents - 1
	var h herald
	v, seen := cluster(nodes), map[string]bool{}
	for i := range nodes {
		v.reports = v.reports.With(fmt.Sprintf("n%d", i), report(metav1.ConditionFalse, now.Add(time.Hour)))
	}
	look(&h, v, 0)
	for turn := range 4 {
		got := look(&h, v, settleTime+time.Duration(turn)*time.Second)
		if want := []int{maxEvents, maxEvents, maxEvents, 0}[turn]; len(got) != want { // of all nodes, and of the Network
			t.Errorf("turn %d: %d Events, want %d", turn, len(got), want)
		}
		for _, text := range got {
			if seen[text] {
				t.Errorf("twice: %s", text)
			}
			seen[text] = true
		}
	}
}

// TestEventsOfNextLeader: it names those of before the same, so that the API
// server has each once, and another failure of the same node otherwise.
func TestEventsOfNextLeader(t *testing.T) {
	identity := func(failed time.Time) kube.Event {
		v := cluster(1)
		r := report(metav1.ConditionFalse, now)
		r.Status.Conditions[0].LastTransitionTime = metav1.NewTime(failed)
		v.reports = v.reports.With("n0", r)
		var h herald
		look(&h, v, 0)
		events, _ := first(h.due(v, now.Add(time.Minute)))
		return events[0]
	}
	if a, b := identity(now), identity(now); a != b {
		t.Error("two leaders differ")
	}
	if identity(now) == identity(now.Add(time.Hour)) {
		t.Error("a second failure looks like the first")
	}
}
