package controller

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// settleTime is how long something has to last before an Event tells of it: a
// node that joins, and an agent that is replaced, are nobody's concern.
const settleTime = 20 * time.Second

// maxEvents is how many are written at one look: the more goes wrong at once,
// the less each Event says, and the API server has to keep them all.
const maxEvents = 20

// matter is what an Event tells of: that a problem of an object is there.
type matter struct{ kind, namespace, name, field, reason string }

// herald decides which Events are due, each once: when something has gone wrong
// for good, and when it is well again. It is pure; the time is passed in. The
// zero value knows of nothing.
type herald struct {
	since map[matter]time.Time  // from when on it has been so
	told  map[matter]kube.Event // of what there was an Event
	over  map[matter]time.Time  // when there was one that it is over, for as long as it is remembered
}

// eventTime is how long an API server has Events, by default (--event-ttl): what comes
// back until then is otherwise taken for what it has.
const eventTime = time.Hour

// due returns the Events to write. What is not written is not lost if it is not
// confirmed: it is due the next time.
func (h *herald) due(v view, now time.Time) (events []kube.Event, confirm []func()) {
	if h.since == nil {
		h.since, h.told, h.over = map[matter]time.Time{}, map[matter]kube.Event{}, map[matter]time.Time{}
	}
	maps.DeleteFunc(h.over, func(_ matter, at time.Time) bool { return now.Sub(at) > eventTime })
	concerns := eventsOf(v)
	for m := range h.since {
		if _, still := concerns[m]; !still {
			delete(h.since, m)
		}
	}
	for m, event := range concerns {
		since, known := h.since[m]
		if !known {
			since = now
			h.since[m] = now
		}
		if _, told := h.told[m]; !told && now.Sub(since) >= settleTime {
			if _, again := h.over[m]; again && event.Again == "" {
				event.Again = since.UTC().Format(time.RFC3339)
			}
			events = append(events, event)
			confirm = append(confirm, func() { h.told[m] = event })
		}
	}
	full := crowded(v)
	for m, event := range h.told {
		if _, still := concerns[m]; still || full && m.kind != "Node" {
			continue
		}
		node, exists := v.snapshot.Nodes.Get(m.name)
		if m.kind == "Node" && (!exists || node.WithoutAgent() != "") { // of what is gone nothing is well again
			delete(h.told, m)
			continue
		}
		events = append(events, resolved(m, event, now))
		confirm = append(confirm, func() {
			delete(h.told, m)
			h.over[m] = now
		})
	}
	return events, confirm
}

// waiting tells whether something is there that may become an Event soon.
func (h *herald) waiting() bool {
	for m := range h.since {
		if _, told := h.told[m]; !told {
			return true
		}
	}
	return false
}

// crowded tells whether a node has more to say than its status has room for: what it says
// no more of objects of users may be as it was.
func crowded(v view) bool {
	for _, report := range v.agents() {
		if report != nil && len(report.Status.Problems) >= kube.MaxProblems {
			return true
		}
	}
	return false
}

// notReady stands for all reasons that a node is not ready for.
const notReady = "NetworkNotReady"

// resolved says that what an Event told of is over.
func resolved(m matter, event kube.Event, now time.Time) kube.Event {
	event.Normal, event.Remedy = true, ""
	event.Again = now.UTC().Format(time.RFC3339)
	switch m.reason {
	case notReady:
		event.Reason, event.Message = "NetworkReady", "the network of this node is ready again"
	case nodesNotReady:
		event.Reason, event.Message = allNodesReady, "the network is ready on all nodes again"
	default:
		event.Reason, event.Message = event.Reason+"Resolved", "no more: "+event.Message
	}
	return event
}

// eventsOf are the Events that a view would have, if all of it lasted.
func eventsOf(v view) map[matter]kube.Event {
	all := map[matter]kube.Event{}
	// same is for what goes on, whatever its reason is from look to look.
	add := func(on string, problem model.Problem, again, same string) {
		event := kube.Event{Problem: problem, Again: again}
		if problem.Kind == "Node" {
			if node, ok := v.snapshot.Nodes.Get(problem.Name); ok {
				event.UID = node.UID
			}
		} else if !kube.Referable(problem.Kind) { // such as a link: the node that has it is concerned
			node, ok := v.snapshot.Nodes.Get(on)
			if !ok {
				return
			}
			event.Message = problem.Object() + ": " + problem.Message
			event.Field = problem.Object() + " " + problem.Field
			event.Kind, event.Namespace, event.Name, event.UID = "Node", "", on, node.UID
		}
		m := matter{event.Kind, event.Namespace, event.Name, event.Field, cmp.Or(same, problem.Reason)}
		// Of what several nodes say in other words, one Event, and always the same.
		if other, ok := all[m]; !ok || event.Problem.Compare(other.Problem) < 0 {
			all[m] = event
		}
	}
	for _, problem := range v.problems {
		add("", problem, "", "")
	}
	for _, problem := range plan.Cluster(v.snapshot) {
		add("", problem, "", "")
	}
	var behind []string
	agents := 0
	for name, report := range v.agents() {
		agents++
		if problem, ok := NodeProblem(name, report, v.now); ok {
			behind = append(behind, name)
			add(name, problem, transition(report), notReady)
		}
		if report == nil {
			continue
		}
		for _, problem := range report.Status.Problems {
			add(name, model.Problem(problem), "", "")
		}
	}
	if len(behind) > 0 {
		slices.Sort(behind)
		add("", model.Problem{
			Kind: "Network", Name: v1alpha1.NetworkName, Reason: nodesNotReady,
			Message: notReadyText(behind, agents),
			Remedy:  "fairlead status says why, and what to do",
		}, "", "")
	}
	return all
}

// transition tells one time that a node was not ready from another, also to the
// next leader: it is when the node said so, or was heard of last.
func transition(report *v1alpha1.NodeNetwork) string {
	if report == nil {
		return ""
	}
	ready := meta.FindStatusCondition(report.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Status == "True" {
		return report.Status.HeartbeatTime.UTC().Format(time.RFC3339)
	}
	return ready.LastTransitionTime.UTC().Format(time.RFC3339)
}

// first are the most urgent Events, sorted so that two controllers would write
// the same: of nodes, then of the Network, then of all else.
func first(events []kube.Event, confirm []func()) ([]kube.Event, []func()) {
	order := make([]int, len(events))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(urgency(events[a]), urgency(events[b])), events[a].Problem.Compare(events[b].Problem))
	})
	var chosen []kube.Event
	var confirmed []func()
	for _, i := range order[:min(maxEvents, len(order))] {
		chosen, confirmed = append(chosen, events[i]), append(confirmed, confirm[i])
	}
	return chosen, confirmed
}

func urgency(event kube.Event) int {
	return -slices.Index([]string{"Pod", "Network", "Node"}, event.Kind)
}
