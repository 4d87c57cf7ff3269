package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// profileKey is what policies see of a pod of this node: pods that do not differ
// in it are treated alike.
type profileKey struct {
	namespace string
	labels    model.Labels
	ports     string // those that have names
}

func keyOf(pod *model.Pod) profileKey {
	key := profileKey{namespace: pod.Namespace, labels: pod.Labels}
	if len(pod.Ports) > 0 {
		key.ports = fmt.Sprint(pod.Ports)
	}
	return key
}

// profile is what policies make of pods. It is immutable.
type profile struct {
	pod      *model.Pod   // one of them; nil: not known
	unknown  model.PodKey // the one, then
	policies []*model.Policy
	clusters []*model.ClusterPolicy
	sides    [len(model.Directions)]side
}

// side is a direction of a profile: rules in the order in which they are asked.
type side struct {
	tiers    [model.BaselineTier + 1][]*rule
	isolated *Rule                 // who denies what no NetworkPolicy allows; nil: none selects the pod
	cells    model.Map[Group, Row] // that of Others, if there are rules, and those that differ from it
	peers    map[string]struct{}   // of all rules, by name
	calls    bool                  // it is of egress: the port is that of the other end
}

// rule is one as it is for a profile.
type rule struct {
	by     Rule
	action model.Action
	anyone bool
	peers  []*peers
	any    bool
	ports  []model.PolicyPort // with numbers, or names of ports of peers
}

// compiled is a policy with its peers.
type compiled struct {
	of    any // *model.Policy or *model.ClusterPolicy
	rules [len(model.Directions)][]*rule
}

func compilePolicy(p *model.Policy) *compiled {
	c := &compiled{of: p}
	for _, d := range model.Directions {
		for i := range p.Rules[d] {
			by := Rule{model.NamespaceTier, p.PolicyKey, i}
			c.rules[d] = append(c.rules[d], compileRule(by, model.Accept, &p.Rules[d][i], d))
		}
	}
	return c
}

func compileClusterPolicy(p *model.ClusterPolicy) *compiled {
	c := &compiled{of: p}
	for _, d := range model.Directions {
		for i := range p.Rules[d] {
			by := Rule{p.Tier, model.PolicyKey{Name: p.Name}, i}
			c.rules[d] = append(c.rules[d], compileRule(by, p.Rules[d][i].Action, &p.Rules[d][i].PolicyRule, d))
		}
	}
	return c
}

func compileRule(by Rule, action model.Action, from *model.PolicyRule, d model.Direction) *rule {
	return &rule{by: by, action: action, anyone: from.Anyone, peers: peersOf(from, d), any: from.AnyPort, ports: from.Ports}
}

// newProfile puts together what the policies that select a pod say.
func (c *computation) newProfile(pod *model.Pod, policies []*model.Policy, clusters []*model.ClusterPolicy) *profile {
	p := &profile{pod: pod, policies: policies, clusters: clusters}
	p.sides[model.Egress].calls = true
	for _, policy := range policies {
		rules := c.compile(policy.PolicyKey, policy, func() *compiled { return compilePolicy(policy) })
		for _, d := range model.Directions {
			if !policy.Isolates[d] {
				continue
			}
			if p.sides[d].isolated == nil {
				p.sides[d].isolated = &Rule{model.NamespaceTier, policy.PolicyKey, Isolated}
			}
			p.sides[d].add(rules.rules[d], d, pod)
		}
	}
	for _, policy := range clusters {
		rules := c.compile(model.PolicyKey{Name: policy.Name}, policy, func() *compiled { return compileClusterPolicy(policy) })
		for _, d := range model.Directions {
			p.sides[d].add(rules.rules[d], d, pod)
		}
	}
	return p
}

func (s *side) add(rules []*rule, d model.Direction, pod *model.Pod) {
	for _, r := range rules {
		if d == model.Ingress {
			r = r.resolved(pod)
		}
		s.tiers[r.by.Tier] = append(s.tiers[r.by.Tier], r)
		for _, p := range r.peers {
			if s.peers == nil {
				s.peers = map[string]struct{}{}
			}
			s.peers[p.name] = struct{}{}
		}
	}
}

// resolved is the rule with the numbers that the pod gives to names of ports.
func (r *rule) resolved(pod *model.Pod) *rule {
	if !slices.ContainsFunc(r.ports, func(p model.PolicyPort) bool { return p.Name != "" }) {
		return r
	}
	next := *r
	next.ports = nil
	for _, port := range r.ports {
		if port.Name != "" {
			number := numberOf(pod.Ports, portName{port.Protocol, port.Name})
			if number == 0 {
				continue
			}
			port = model.PolicyPort{Protocol: port.Protocol, From: number, To: number}
		}
		next.ports = append(next.ports, port)
	}
	return &next
}

// compile returns a policy's rules, which all profiles share.
func (c *computation) compile(key model.PolicyKey, of any, make func() *compiled) *compiled {
	if known, ok := c.compiled.get(key); ok && known.of == of {
		return known
	}
	next := make()
	c.compiled.put(key, next)
	return next
}

// restricts tells whether there are rules.
func (s *side) restricts() bool {
	return s.isolated != nil || len(s.tiers[model.AdminTier]) > 0 || len(s.tiers[model.BaselineTier]) > 0
}

// cellsOf are those of a direction; a profile that is nil has none.
func (p *profile) cellsOf(d model.Direction) model.Map[Group, Row] {
	if p == nil {
		return model.Map[Group, Row]{}
	}
	return p.sides[d].cells
}

func (p *profile) restricts() bool {
	return slices.ContainsFunc(p.sides[:], func(s side) bool { return s.restricts() })
}

// tells tells whether a rule is about members of a group, or all are about other
// ports of it.
func (s *side) tells(g *group) bool {
	return s.calls && g.shifts != nil || slices.ContainsFunc(g.members, func(m member) bool { _, ok := s.peers[m.name]; return ok })
}

// selecting are the policies that select pods of a profile, in the order in
// which they are asked.
func (c *computation) selecting(pod *model.Pod) (policies []*model.Policy, clusters []*model.ClusterPolicy) {
	if of, ok := c.spaces.get(pod.Namespace); ok {
		for _, policy := range of.policies.All() {
			if policy.Pods.Matches(pod.Labels) {
				policies = append(policies, policy)
			}
		}
	}
	slices.SortFunc(policies, func(a, b *model.Policy) int { return strings.Compare(a.Name, b.Name) })
	if len(c.ordered) > 0 {
		labels := c.labelsOf(pod.Namespace)
		for _, policy := range c.ordered {
			if selects(policy, labels, pod.Labels) {
				clusters = append(clusters, policy)
			}
		}
	}
	return policies, clusters
}

func selects(p *model.ClusterPolicy, namespace, pod model.Labels) bool {
	return p.Pods.Matches(pod) && p.Namespaces.Matches(namespace)
}

// compareOrder orders ClusterNetworkPolicies as they are asked.
func compareOrder(a, b *model.ClusterPolicy) int {
	return cmp.Or(cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Priority, b.Priority), strings.Compare(a.Name, b.Name))
}
