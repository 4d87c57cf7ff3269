package policyworld

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

func sortedKeys[K, V comparable](m model.Map[K, V]) (all []K) {
	for key := range m.All() {
		all = append(all, key)
	}
	slices.SortFunc(all, func(a, b K) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return all
}

// Shrink leaves out of a snapshot all without which it fails still.
func Shrink(s model.Snapshot, fails func(*model.Snapshot) bool) *model.Snapshot {
	for again := true; again; {
		again = false
		for _, smaller := range append(lesser(&s), lessResolved(&s)...) {
			if next := smaller(); fails(&next) {
				s, again = next, true
				break
			}
		}
	}
	return &s
}

// lesser are all ways to leave one thing out.
func lesser(s *model.Snapshot) (all []func() model.Snapshot) {
	add := func(edit func(*model.Snapshot)) {
		all = append(all, func() model.Snapshot {
			next := *s
			edit(&next)
			return next
		})
	}
	for _, key := range sortedKeys(s.ClusterPolicies) {
		add(func(s *model.Snapshot) { s.ClusterPolicies = s.ClusterPolicies.Without(key) })
		old, _ := s.ClusterPolicies.Get(key)
		for _, d := range model.Directions {
			for i := range old.Rules[d] {
				next := *old
				next.Rules[d] = slices.Delete(slices.Clone(old.Rules[d]), i, i+1)
				add(func(s *model.Snapshot) { s.ClusterPolicies = s.ClusterPolicies.With(key, &next) })
				for _, rule := range lesserRules(old.Rules[d][i].PolicyRule) {
					next := *old
					next.Rules[d] = slices.Clone(old.Rules[d])
					next.Rules[d][i].PolicyRule = rule
					add(func(s *model.Snapshot) { s.ClusterPolicies = s.ClusterPolicies.With(key, &next) })
				}
			}
		}
	}
	for _, key := range sortedKeys(s.Policies) {
		add(func(s *model.Snapshot) { s.Policies = s.Policies.Without(key) })
		old, _ := s.Policies.Get(key)
		for _, d := range model.Directions {
			for i := range old.Rules[d] {
				next := *old
				next.Rules[d] = slices.Delete(slices.Clone(old.Rules[d]), i, i+1)
				add(func(s *model.Snapshot) { s.Policies = s.Policies.With(key, &next) })
				for _, rule := range lesserRules(old.Rules[d][i]) {
					next := *old
					next.Rules[d] = slices.Clone(old.Rules[d])
					next.Rules[d][i] = rule
					add(func(s *model.Snapshot) { s.Policies = s.Policies.With(key, &next) })
				}
			}
		}
	}
	for _, key := range sortedKeys(s.Pods) {
		add(func(s *model.Snapshot) { s.Pods = s.Pods.Without(key) })
	}
	for _, key := range sortedKeys(s.Attachments) {
		add(func(s *model.Snapshot) { s.Attachments = s.Attachments.Without(key) })
	}
	for _, key := range sortedKeys(s.Services) {
		add(func(s *model.Snapshot) { s.Services = s.Services.Without(key) })
	}
	for _, key := range sortedKeys(s.Slices) {
		add(func(s *model.Snapshot) { s.Slices = s.Slices.Without(key) })
	}
	for _, key := range sortedKeys(s.Namespaces) {
		add(func(s *model.Snapshot) { s.Namespaces = s.Namespaces.Without(key) })
	}
	return all
}

// lessResolved are the same with the names of one address taken away.
func lessResolved(s *model.Snapshot) (all []func() model.Snapshot) {
	for addr := range s.Resolved.All() {
		all = append(all, func() model.Snapshot {
			next := *s
			next.Resolved = s.Resolved.Without(addr)
			return next
		})
	}
	return all
}

func lesserRules(r model.PolicyRule) (all []model.PolicyRule) {
	for i := range r.Peers {
		next := r
		next.Peers = slices.Delete(slices.Clone(r.Peers), i, i+1)
		all = append(all, next)
		for j := range r.Peers[i].Except {
			next := r
			next.Peers = slices.Clone(r.Peers)
			next.Peers[i].Except = slices.Delete(slices.Clone(r.Peers[i].Except), j, j+1)
			all = append(all, next)
		}
	}
	for i := range r.Ports {
		next := r
		next.Ports = slices.Delete(slices.Clone(r.Ports), i, i+1)
		all = append(all, next)
	}
	return all
}

// Text says what is in a snapshot that policies look at.
func Text(s *model.Snapshot) string {
	var text strings.Builder
	for _, key := range sortedKeys(s.Namespaces) {
		n, _ := s.Namespaces.Get(key)
		fmt.Fprintf(&text, "namespace %s: %s\n", key, n.Labels)
	}
	for _, key := range sortedKeys(s.Nodes) {
		n, _ := s.Nodes.Get(key)
		fmt.Fprintf(&text, "node %s: %s at %v, %v\n", key, n.Labels, n.Addresses, n.External)
	}
	for _, key := range sortedKeys(s.Pods) {
		p, _ := s.Pods.Get(key)
		fmt.Fprintf(&text, "pod %s: %s at %v on %s, ports %v, host network %v, finished %v\n", key, p.Labels, p.Addresses, p.Node, p.Ports, p.HostNetwork, p.Finished)
	}
	if s, ok := s.Services.Get(nameservice); ok && s.Serves != nil {
		fmt.Fprintf(&text, "nameserver at %v: of pods %s, ports %v at %v\n", s.ClusterIPs, s.Serves.Labels, s.Ports, s.Serves.Ports)
	}
	for _, key := range sortedKeys(s.Slices) {
		slice, _ := s.Slices.Get(key)
		fmt.Fprintf(&text, "endpoints of %s: ports %v\n", slice.Service, slice.Ports)
	}
	for _, key := range sortedKeys(s.Attachments) {
		a, _ := s.Attachments.Get(key)
		fmt.Fprintf(&text, "attachment %s: %s at %v\n", key.ContainerID, a.Pod, a.Addresses)
	}
	for addr, resolved := range s.Resolved.All() {
		fmt.Fprintf(&text, "%s is %v\n", addr, resolved.Names)
	}
	for _, key := range sortedKeys(s.Policies) {
		p, _ := s.Policies.Get(key)
		fmt.Fprintf(&text, "policy %s: of pods %s, isolates %v\n", key, &p.Pods, p.Isolates)
		for _, d := range model.Directions {
			for _, rule := range p.Rules[d] {
				fmt.Fprintf(&text, "  %s allow %s\n", d, ruleText(rule))
			}
		}
	}
	for _, key := range sortedKeys(s.ClusterPolicies) {
		p, _ := s.ClusterPolicies.Get(key)
		fmt.Fprintf(&text, "cluster policy %s: tier %s priority %d, of pods %s of namespaces %s\n", key, p.Tier, p.Priority, p.Pods, p.Namespaces)
		for _, d := range model.Directions {
			for _, rule := range p.Rules[d] {
				fmt.Fprintf(&text, "  %s %s %s\n", d, rule.Action, ruleText(rule.PolicyRule))
			}
		}
	}
	return text.String()
}

func ruleText(r model.PolicyRule) string {
	text := "anyone"
	if !r.Anyone {
		var peers []string
		for _, p := range r.Peers {
			switch {
			case p.Domain != "":
				peers = append(peers, p.Domain)
			case p.Nodes != nil:
				peers = append(peers, fmt.Sprintf("nodes %s", p.Nodes))
			case p.Namespaces != nil:
				peers = append(peers, fmt.Sprintf("pods %s of namespaces %s", p.Pods, p.Namespaces))
			default:
				peers = append(peers, fmt.Sprintf("%s except %v", p.Block, p.Except))
			}
		}
		text = "[" + strings.Join(peers, "; ") + "]"
	}
	if r.AnyPort {
		return text + " at any port"
	}
	return text + fmt.Sprintf(" at %v", r.Ports)
}
