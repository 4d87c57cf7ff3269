package controller

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
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
