package controller

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/deploy"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// cluster has nodes n0, n1 … with a range each, and ready reports of all.
func cluster(nodes int) view {
	v := view{snapshot: &model.Snapshot{}, now: now}
	for i := range nodes {
		name := fmt.Sprintf("n%d", i)
		v.snapshot.Nodes = v.snapshot.Nodes.With(name, &model.Node{
			Name:      name,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{172, 30, 0, byte(i + 1)})},
			PodCIDRs:  []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24)},
		})
		v.reports = v.reports.With(name, report(metav1.ConditionTrue, now))
	}
	return v
}

func report(ready metav1.ConditionStatus, heartbeat time.Time, problems ...v1alpha1.Problem) *v1alpha1.NodeNetwork {
	return &v1alpha1.NodeNetwork{Status: v1alpha1.NodeNetworkStatus{
		HeartbeatTime: metav1.NewTime(heartbeat),
		Conditions:    []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: ready, Reason: "Reason", Message: "said so"}},
		Problems:      problems,
	}}
}

func TestHealthyCluster(t *testing.T) {
	summary := summarize(cluster(3))
	var status v1alpha1.NetworkStatus
	summary.fill(&status, 7)
	if status.Nodes != (v1alpha1.NodeCount{Total: 3, Ready: 3}) || status.ObservedGeneration != 7 || status.Problems != nil {
		t.Errorf("status: %+v", status)
	}
	if !meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionReady) ||
		!meta.IsStatusConditionFalse(status.Conditions, v1alpha1.ConditionDegraded) {
		t.Errorf("conditions: %+v", status.Conditions)
	}
	first := status.DeepCopy()
	summary.fill(&status, 7)
	if status.Conditions[0] != first.Conditions[0] {
		t.Error("the same summary changed a condition")
	}
}

func TestNodesThatDoNotFollow(t *testing.T) {
	shared := v1alpha1.Problem{Kind: "Network", Name: "default", Field: "spec.mtu", Reason: "Invalid", Message: "x"}
	for name, test := range map[string]struct {
		report *v1alpha1.NodeNetwork
		reason string
		says   string
	}{
		"ready":      {report(metav1.ConditionTrue, now.Add(-kube.HeartbeatInterval)), "", ""},
		"none":       {nil, "AgentNeverReported", "not reported"},
		"empty":      {&v1alpha1.NodeNetwork{}, "AgentNeverReported", "not reported"},
		"silent":     {report(metav1.ConditionTrue, now.Add(-kube.StaleAfter-time.Second)), "AgentSilent", "2026-01-02T02:54:04Z"},
		"not ready":  {report(metav1.ConditionFalse, now), "Reason", "said so"},
		"speechless": {&v1alpha1.NodeNetwork{Status: v1alpha1.NodeNetworkStatus{HeartbeatTime: metav1.NewTime(now)}}, "NotReady", "not ready"},
	} {
		t.Run(name, func(t *testing.T) {
			problem, wrong := NodeProblem("n", test.report, now)
			if wrong != (test.reason != "") || problem.Reason != test.reason || !strings.Contains(problem.Message, test.says) {
				t.Errorf("problem %t: %+v", wrong, problem)
			}
			if wrong && problem.Remedy == "" {
				t.Error("no remedy")
			}
		})
	}

	v := cluster(30)
	for i := range 15 {
		v.reports = v.reports.With(fmt.Sprintf("n%d", i), report(metav1.ConditionFalse, now, shared))
	}
	summary := summarize(v)
	if summary.ready != 15 || len(summary.problems) != 16 {
		t.Errorf("%d ready, %d problems; 15 nodes say the same of the Network: %v", summary.ready, len(summary.problems), summary.problems)
	}
	var status v1alpha1.NetworkStatus
	summary.fill(&status, 1)
	ready := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
	if ready.Status != metav1.ConditionFalse || !strings.Contains(ready.Message, "15 of 30") || !strings.Contains(ready.Message, "and 5 more") {
		t.Errorf("condition: %+v", ready)
	}
}

// without makes a node one that has no agent.
func without(v *view, node, key, value string) {
	old, _ := v.snapshot.Nodes.Get(node)
	labelled := *old
	labelled.Labels = model.LabelsOf(map[string]string{key: value})
	v.snapshot = &model.Snapshot{Nodes: v.snapshot.Nodes.With(node, &labelled)}
}

// TestNodesWithoutAgent: a node that no agent is to run on is no problem, whatever
// one has said there in earlier times, and is counted apart.
func TestNodesWithoutAgent(t *testing.T) {
	v := cluster(4)
	without(&v, "n1", "fairlead.io/agent", "none")
	v.reports = v.reports.With("n1", report(metav1.ConditionTrue, now.Add(-time.Hour), v1alpha1.Problem{Kind: "Link", Name: "eth0", Message: "old"}))
	without(&v, "n2", "kubernetes.io/os", "windows")
	v.reports = v.reports.Without("n2")
	expectStatus := func(count v1alpha1.NodeCount, ready metav1.ConditionStatus, message string, problems int) {
		t.Helper()
		var status v1alpha1.NetworkStatus
		summary := summarize(v)
		summary.fill(&status, 1)
		condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
		if status.Nodes != count || condition.Status != ready || condition.Message != message || len(status.Problems) != problems {
			t.Errorf("%+v, Ready is %s: %s; %v", status.Nodes, condition.Status, condition.Message, status.Problems)
		}
	}
	expectStatus(v1alpha1.NodeCount{Total: 4, Ready: 2, WithoutAgent: 2}, metav1.ConditionTrue,
		"the network is ready on all 2 nodes that are to have an agent; 2 nodes have no agent, as their labels say", 0)
	if events := eventsOf(v); len(events) != 0 {
		t.Errorf("Events: %v", events)
	}
	v.reports = v.reports.Without("n0")
	expectStatus(v1alpha1.NodeCount{Total: 4, Ready: 1, WithoutAgent: 2}, metav1.ConditionFalse,
		"1 of 2 nodes are not ready: n0; 2 nodes have no agent, as their labels say", 1)
	for _, name := range []string{"n0", "n3"} {
		without(&v, name, "fairlead.io/agent", "none")
	}
	expectStatus(v1alpha1.NodeCount{Total: 4, WithoutAgent: 4}, metav1.ConditionTrue,
		"no node is to have an agent; 4 nodes have no agent, as their labels say", 0)
}

// TestAgentsAsDeployed: what keeps the agents' DaemonSet away from a node is what
// makes a node one without an agent.
func TestAgentsAsDeployed(t *testing.T) {
	var agents appsv1.DaemonSet
	for text := range bytes.SplitSeq(deploy.Manifest, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(text, &kind); err == nil && kind.Kind == "DaemonSet" {
			if err := yaml.Unmarshal(text, &agents); err != nil {
				t.Fatal(err)
			}
		}
	}
	pod := agents.Spec.Template.Spec
	terms := pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(pod.NodeSelector) != 1 || len(terms) != 1 || len(terms[0].MatchExpressions) != 1 || terms[0].MatchExpressions[0].Operator != corev1.NodeSelectorOpNotIn {
		t.Fatalf("agents are chosen nodes for by %v and %v: teach model.Node.WithoutAgent", pod.NodeSelector, terms)
	}
	away := terms[0].MatchExpressions[0]
	const system = "kubernetes.io/os"
	for _, test := range []struct {
		labels map[string]string
		want   string
	}{
		{nil, ""}, // by the DaemonSet it has none, but not because somebody wanted so
		{map[string]string{system: pod.NodeSelector[system]}, ""},
		{map[string]string{system: pod.NodeSelector[system], away.Key: "other"}, ""},
		{map[string]string{system: pod.NodeSelector[system], away.Key: away.Values[0]}, away.Key + "=" + away.Values[0]},
		{map[string]string{system: "windows"}, system + "=windows"},
	} {
		node := &model.Node{Labels: model.LabelsOf(test.labels)}
		if got := node.WithoutAgent(); got != test.want || len(away.Values) != 1 {
			t.Errorf("with the labels %v, %q keeps agents away, want %q", test.labels, got, test.want)
		}
	}
}

func TestProblemsAreCapped(t *testing.T) {
	v := cluster(0)
	for i := range 80 {
		name := fmt.Sprintf("n%d", i)
		v.snapshot.Nodes = v.snapshot.Nodes.With(name, &model.Node{Name: name})
	}
	var status v1alpha1.NetworkStatus
	summary := summarize(v)
	summary.fill(&status, 1)
	if len(status.Problems) != maxProblems {
		t.Errorf("%d problems", len(status.Problems))
	}
}
