package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// suspect is a named port of a rule of ingress that a pod of this node lacks, or any of
// a rule of egress. Whether it is a mistake, all pods tell that the policy selects, or
// that the rule does.
type suspect struct {
	policy *model.Policy
	rule   int
	peers  []*peers // of egress
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
	regrouped := c.regrouped()
	for _, s := range next.suspects {
		_, moved := c.spaces.set[s.policy.Namespace]
		changed = changed || s.peers == nil && moved || s.peers != nil && regrouped
	}
	if !changed {
		return
	}
	next.problems = slices.Clone(next.ties)
	var found map[string]member
	for _, s := range next.suspects {
		if s.peers != nil {
			if found == nil {
				found = next.membersByPeers()
			}
			if s.vain(found) {
				next.problems = append(next.problems, s.problem())
			}
		} else if of, ok := next.spaces.Get(s.policy.Namespace); ok && !s.met(of) {
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
					all = append(all, suspect{policy: policy, rule: i, portName: name})
				}
			}
		}
		if !policy.Isolates[model.Egress] {
			continue
		}
		for i, rule := range policy.Rules[model.Egress] {
			for _, name := range namesIn(&rule) {
				if of := peersOf(&rule, model.Egress); of != nil {
					all = append(all, suspect{policy: policy, rule: i, peers: of, portName: name})
				}
			}
		}
	}
	return all
}

// regrouped tells whether there are other groups than there were.
func (c *computation) regrouped() bool {
	for group := range c.groups.set {
		if _, had := c.groups.base.Get(group); !had {
			return true
		}
	}
	return len(c.groups.gone) > 0
}

// membersByPeers are who is in a group, as one member of each peers, with the ports that
// any of them has.
func (p *Plan) membersByPeers() map[string]member {
	all := map[string]member{}
	for _, g := range p.groups.All() {
		for _, m := range g.members {
			if len(m.names) == 0 {
				continue
			}
			known, ok := all[m.name]
			if !ok {
				known = member{m.peers, make([]uint16, len(m.names))}
				all[m.name] = known
			}
			for i, number := range m.ports {
				known.ports[i] = max(known.ports[i], number)
			}
		}
	}
	return all
}

// vain tells whether none of the peers has the port. Of pods that are not there nobody
// knows: they may come.
func (s suspect) vain(found map[string]member) bool {
	pods, there := false, false
	for _, of := range s.peers {
		m, ok := found[of.name]
		if ok && m.ports[slices.Index(of.names, s.portName)] != 0 {
			return false
		}
		pods, there = pods || of.pods != nil, there || of.pods != nil && ok
	}
	return there || !pods
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
	direction, who := model.Ingress, "it selects"
	if s.peers != nil {
		direction, who = model.Egress, "this names"
	}
	return model.Problem{
		Kind: "NetworkPolicy", Namespace: s.policy.Namespace, Name: s.policy.Name,
		Field: fmt.Sprintf("spec.%s[%d].ports", direction, s.rule), Reason: "PortUnknown",
		Message: fmt.Sprintf("no pod that %s has a port of %s with the name %s, so that this allows nothing", who, s.protocol, s.name),
		Remedy:  "correct the name, or give the port by its number; kubectl get pods -o yaml shows the names under spec.containers.ports",
	}
}
