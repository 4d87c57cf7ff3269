package controller

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// view is all that a summary depends on.
type view struct {
	snapshot *model.Snapshot
	reports  model.Map[string, *v1alpha1.NodeNetwork]
	problems []model.Problem // of the sources
	now      time.Time
}

// agents iterates over the nodes that are to have an agent, by name, with what it
// has said last, nil if that is nothing. What one has said on a node that is to have
// none is of another time.
func (v view) agents() iter.Seq2[string, *v1alpha1.NodeNetwork] {
	return func(yield func(string, *v1alpha1.NodeNetwork) bool) {
		for name, node := range v.snapshot.Nodes.All() {
			if node.WithoutAgent() != "" {
				continue
			}
			report, _ := v.reports.Get(name)
			if !yield(name, report) {
				return
			}
		}
	}
}

// summary is the state of the cluster's network.
type summary struct {
	total, ready int             // nodes
	without      int             // nodes that have no agent, as their labels say
	behind       []string        // names of nodes that are not ready, sorted
	problems     []model.Problem // sorted, each once
}

func summarize(v view) summary {
	s := summary{total: v.snapshot.Nodes.Len()}
	s.problems = append(slices.Clone(v.problems), plan.Cluster(v.snapshot)...)
	s.without = s.total
	for name, report := range v.agents() {
		s.without--
		if problem, ok := NodeProblem(name, report, v.now); ok {
			s.behind = append(s.behind, name)
			s.problems = append(s.problems, problem)
		}
		if report != nil {
			for _, problem := range report.Status.Problems {
				s.problems = append(s.problems, model.Problem(problem))
			}
		}
	}
	s.ready = s.total - s.without - len(s.behind)
	slices.Sort(s.behind)
	slices.SortFunc(s.problems, model.Problem.Compare)
	s.problems = slices.Compact(s.problems)
	return s
}

// NodeProblem judges a node by what its agent said last; report is nil if that
// is nothing. It returns false if the network of the node is ready.
func NodeProblem(node string, report *v1alpha1.NodeNetwork, now time.Time) (model.Problem, bool) {
	problem := model.Problem{
		Kind: "Node", Name: node,
		Remedy: "look at its agent: kubectl -n kube-system get pods -o wide -l app.kubernetes.io/name=fairlead-agent",
	}
	switch {
	case report == nil || report.Status.HeartbeatTime.IsZero():
		problem.Reason = "AgentNeverReported"
		problem.Message = "the agent of this node has not reported yet"
	case now.Sub(report.Status.HeartbeatTime.Time) > kube.StaleAfter:
		problem.Reason = "AgentSilent"
		problem.Message = fmt.Sprintf("the agent of this node has been silent since %s",
			report.Status.HeartbeatTime.UTC().Format(time.RFC3339))
	case !meta.IsStatusConditionTrue(report.Status.Conditions, v1alpha1.ConditionReady):
		problem.Reason, problem.Message = "NotReady", "the network of this node is not ready"
		if ready := meta.FindStatusCondition(report.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
			problem.Reason = ready.Reason
			problem.Message += ": " + ready.Message
		}
	default:
		return model.Problem{}, false
	}
	return problem, true
}

// AllReady says that the network is ready on so many nodes, of which some have no
// agent, as their labels say.
func AllReady(total, without int) string {
	switch without {
	case 0:
		return fmt.Sprintf("the network is ready on all %d nodes", total)
	case total:
		return "no node is to have an agent"
	case total - 1:
		return "the network is ready on the one node that is to have an agent"
	}
	return fmt.Sprintf("the network is ready on all %d nodes that are to have an agent", total-without)
}

// Reasons of the condition Ready, and of Events.
const (
	nodesNotReady = "NodesNotReady"
	allNodesReady = "AllNodesReady"
)

// SilentAfter is when a leader that has not renewed its lease is taken to be
// gone: another leads within 15 seconds, if there is one, and clocks differ.
const SilentAfter = 2 * time.Minute

// LeaderProblem judges the leader among the controllers; nil if nothing is known
// of it. It returns false if one leads.
func LeaderProblem(leader *kube.Leader, now time.Time) (model.Problem, bool) {
	problem := model.Problem{
		Kind: "Deployment", Namespace: kube.SystemNamespace, Name: "fairlead-controller", Reason: "ControllerSilent",
		Remedy: "see why: kubectl -n kube-system get pods -l app.kubernetes.io/name=fairlead-controller; kubectl -n kube-system logs deployment/fairlead-controller",
	}
	const harmless = "; traffic goes on, but the status of the Network is not kept, and no Events are written"
	switch {
	case leader == nil:
		return model.Problem{}, false
	case leader.Renewed.IsZero():
		problem.Message = "no controller has ever led" + harmless
	case now.Sub(leader.Renewed) > SilentAfter:
		problem.Message = "no controller leads since " + leader.Renewed.UTC().Format(time.RFC3339) + harmless
	default:
		return model.Problem{}, false
	}
	return problem, true
}

// Caps of what one object names.
const (
	maxNames    = 10
	maxProblems = 50 // as the schema has it
)

// fill writes the summary into the status of the Network. What is the same
// keeps its times.
func (s *summary) fill(status *v1alpha1.NetworkStatus, generation int64) {
	status.ObservedGeneration = generation
	status.Nodes = v1alpha1.NodeCount{Total: int32(s.total), Ready: int32(s.ready), WithoutAgent: int32(s.without)}
	status.Problems = kube.Problems(s.problems, maxProblems)
	ready := metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, ObservedGeneration: generation,
		Reason: allNodesReady, Message: AllReady(s.total, s.without),
	}
	if len(s.behind) > 0 {
		ready.Status, ready.Reason = metav1.ConditionFalse, nodesNotReady
		ready.Message = notReadyText(s.behind, s.total-s.without)
	}
	switch s.without {
	case 0:
	case 1:
		ready.Message += "; 1 node has no agent, as its label says"
	default:
		ready.Message += fmt.Sprintf("; %d nodes have no agent, as their labels say", s.without)
	}
	degraded := metav1.Condition{
		Type: v1alpha1.ConditionDegraded, Status: metav1.ConditionFalse, ObservedGeneration: generation,
		Reason: "NoProblems", Message: "there are no problems",
	}
	if len(s.problems) > 0 {
		degraded.Status, degraded.Reason = metav1.ConditionTrue, "Problems"
		degraded.Message = fmt.Sprintf("%d problems; the first: %s", len(s.problems), s.problems[0])
	}
	meta.SetStatusCondition(&status.Conditions, ready)
	meta.SetStatusCondition(&status.Conditions, degraded)
}

// notReadyText names nodes that are not ready, of so many that are to have an agent.
func notReadyText(behind []string, of int) string {
	return fmt.Sprintf("%d of %d nodes are not ready: %s", len(behind), of, some(behind))
}

// some names the first of many.
func some(names []string) string {
	if len(names) <= maxNames {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNames], ", "), len(names)-maxNames)
}
