package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// suspect is a named port of a rule of ingress that a pod of this node lacks.
// Whether it is a mistake, all pods tell that the policy selects.
type suspect struct {
	policy *model.Policy
	rule   int
	portName
}

// planProblems says what is wrong with the policies that select pods of this
// node. It does so anew when profiles changed, or pods that a suspect selects.
func (c *computation) planProblems(next *Plan) {
	next.ties, next.suspects, next.problems = c.before.ties, c.before.suspects, c.before.problems
	next.unheard, next.zone = c.unheard(), c.zone()
	changed := len(c.profiles.set)+len(c.profiles.gone) > 0 || next.unheard != c.before.unheard || next.zone != c.before.zone
	if changed {
		next.ties, next.suspects = nil, nil
		for _, p := range next.profiles.All() {
			next.ties = append(next.ties, p.ties()...)
			next.ties = append(next.ties, p.nameless(next.unheard, next.zone)...)
			next.suspects = append(next.suspects, p.suspects()...)
		}
	}
	for _, s := range next.suspects {
		_, moved := c.spaces.set[s.policy.Namespace]
		changed = changed || moved
	}
	if !changed {
		return
	}
	next.problems = slices.Clone(next.ties)
	for _, s := range next.suspects {
		if of, ok := next.spaces.Get(s.policy.Namespace); ok && !s.met(of) {
			next.problems = append(next.problems, s.problem())
		}
	}
	slices.SortFunc(next.problems, model.Problem.Compare)
	next.problems = slices.Compact(next.problems)
}

// ties are of policies that select the same pods: which of them is asked first
// the API leaves open.
func (p *profile) ties() (problems []model.Problem) {
	for i := 1; i < len(p.clusters); i++ {
		first, second := p.clusters[i-1], p.clusters[i]
		if first.Tier != second.Tier || first.Priority != second.Priority {
			continue
		}
		problems = append(problems, model.Problem{
			Kind: "ClusterNetworkPolicy", Name: second.Name, Field: "spec.priority", Reason: "PriorityTied",
			Message: fmt.Sprintf("%s of tier %s has the priority %d too and selects some of the same pods, so that the API does not say which of them decides; here %s is asked first", first.Name, first.Tier, first.Priority, first.Name),
			Remedy:  "give one of them another priority",
		})
	}
	return problems
}

func (p *profile) suspects() (all []suspect) {
	for _, policy := range p.policies {
		for i, rule := range policy.Rules[model.Ingress] {
			for _, name := range namesIn(&rule) {
				if numberOf(p.pod.Ports, name) == 0 {
					all = append(all, suspect{policy, i, name})
				}
			}
		}
	}
	return all
}

// met tells whether a pod that the policy selects has the port.
func (s suspect) met(in *space) bool {
	for name, pod := range in.pods.All() {
		if !strings.HasPrefix(name, asService) && numberOf(pod.Ports, s.portName) != 0 && s.policy.Pods.Matches(pod.Labels) {
			return true
		}
	}
	return false
}

func (s suspect) problem() model.Problem {
	return model.Problem{
		Kind: "NetworkPolicy", Namespace: s.policy.Namespace, Name: s.policy.Name,
		Field: fmt.Sprintf("spec.ingress[%d].ports", s.rule), Reason: "PortUnknown",
		Message: fmt.Sprintf("no pod that it selects has a port of %s with the name %s, so that this allows nothing", s.protocol, s.name),
		Remedy:  "correct the name, or give the port by its number; kubectl get pods -o yaml shows the names under spec.containers.ports",
	}
}
