package plan

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// Cluster names what is wrong with the cluster as a whole, sorted. One
// controller says it, once, instead of every node. What nodes lack that have no
// agent is not its concern, but no two nodes may have one range.
func Cluster(snapshot *model.Snapshot) []model.Problem {
	var problems []model.Problem
	owners := map[netip.Prefix][]string{}
	for _, node := range snapshot.Nodes.All() {
		if len(node.PodCIDRs) == 0 && node.WithoutAgent() == "" {
			problems = append(problems, model.NodeWithoutPodCIDR(node.Name))
		}
		if len(node.Addresses) == 0 && node.WithoutAgent() == "" {
			problems = append(problems, model.NodeWithoutAddress(node.Name))
		}
		for _, prefix := range node.PodCIDRs {
			owners[prefix] = append(owners[prefix], node.Name)
		}
	}
	for prefix, nodes := range owners {
		if len(nodes) > 1 {
			problems = append(problems, sharedRange(prefix, nodes))
		}
	}
	problems = append(problems, nested(owners)...)
	problems = append(problems, apart(snapshot)...)
	slices.SortFunc(problems, model.Problem.Compare)
	return problems
}

// apart names the nodes without IPv4, if there are some without IPv6: those
// cannot send to each other.
func apart(snapshot *model.Snapshot) (problems []model.Problem) {
	var only [len(model.Families)][]string
	for _, node := range snapshot.Nodes.All() {
		if node.WithoutAgent() != "" {
			continue
		}
		v4, v6 := node.Address(model.IPv4).IsValid(), node.Address(model.IPv6).IsValid()
		switch {
		case v4 && !v6:
			only[model.IPv4] = append(only[model.IPv4], node.Name)
		case v6 && !v4:
			only[model.IPv6] = append(only[model.IPv6], node.Name)
		}
	}
	if len(only[model.IPv4]) == 0 {
		return nil
	}
	for _, name := range only[model.IPv6] {
		problems = append(problems, model.Problem{
			Kind: "Node", Name: name, Field: "status.addresses", Reason: "NoCommonFamily",
			Message: fmt.Sprintf("the node has only IPv6 addresses and %s only IPv4 (and %d more), so their pods cannot reach each other",
				slices.Min(only[model.IPv4]), len(only[model.IPv4])-1),
			Remedy: "give their kubelets --node-ip with an address of each family",
		})
	}
	return problems
}

// nested names the ranges that lie in another node's: what is sent to their pods
// is right, and of the greater range some addresses are never reached.
func nested(owners map[netip.Prefix][]string) (problems []model.Problem) {
	prefixes := slices.SortedFunc(maps.Keys(owners), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits())
	})
	var around []netip.Prefix // those that the current one may lie in
	for _, prefix := range prefixes {
		around = slices.DeleteFunc(around, func(outer netip.Prefix) bool { return !outer.Overlaps(prefix) })
		for _, outer := range around {
			inner, owner := slices.Min(owners[prefix]), slices.Min(owners[outer])
			if inner == owner {
				continue
			}
			problems = append(problems, model.Problem{
				Kind: "Node", Name: inner, Field: "spec.podCIDRs", Reason: "PodCIDROverlap",
				Message: fmt.Sprintf("%s lies in %s, the range of node %s, whose pods in it are not reached", prefix, outer, owner),
				Remedy:  "of each node that should not have it: " + model.RegisterAnew,
			})
		}
		around = append(around, prefix)
	}
	return problems
}

func sharedRange(prefix netip.Prefix, nodes []string) model.Problem {
	slices.Sort(nodes)
	return model.Problem{
		Kind: "Node", Name: nodes[1], Field: "spec.podCIDRs", Reason: "PodCIDRShared",
		Message: fmt.Sprintf("%s is the range of several nodes (%s); only %s is reached", prefix, strings.Join(nodes, ", "), nodes[0]),
		Remedy:  "of each node that should not have it: " + model.RegisterAnew,
	}
}
