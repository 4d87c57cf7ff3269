package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/policy"
)

// choosesNodes tells whether a policy names nodes.
func choosesNodes(s *model.Snapshot) bool {
	for _, p := range s.ClusterPolicies.All() {
		for _, rules := range p.Rules {
			for i := range rules {
				if slices.ContainsFunc(rules[i].Peers, func(p model.Peer) bool { return p.Nodes != nil }) {
					return true
				}
			}
		}
	}
	return false
}

// addNodes adds nodes, those together that no policy tells apart, if any names
// nodes. Without, they are addresses as others are.
func (s *survey) addNodes() {
	if !slices.ContainsFunc(s.worlds, func(w *world) bool { return choosesNodes(w.snapshot) }) {
		return
	}
	var nodes []*model.Node
	for _, node := range s.worlds[0].snapshot.Nodes.All() {
		nodes = append(nodes, node)
	}
	slices.SortFunc(nodes, func(a, b *model.Node) int { return strings.Compare(a.Name, b.Name) })
	alike, names := map[string]*Workload{}, map[string][]string{}
	for _, node := range nodes {
		u := &unit{pods: 2, groups: make([][len(model.Families)]plan.Group, len(s.worlds))}
		for _, family := range model.Families {
			addr := first(node.Addresses, family)
			u.example[family], u.has[family] = addr, addr.IsValid()
			for i, w := range s.worlds {
				if addr.IsValid() {
					u.groups[i][family] = w.plan.GroupOf(plan.Subject{}, addr)
				}
			}
		}
		key := fmt.Sprintf("%q %v", u.groups, u.has)
		if alike[key] == nil {
			alike[key] = &Workload{units: []*unit{u}}
			s.workloads = append(s.workloads, alike[key])
		}
		names[key] = append(names[key], "node/"+node.Name)
		alike[key].Name = some(names[key], ", ")
	}
}
