package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// Cluster names what is wrong with the cluster as a whole, sorted. One
// controller says it, once, instead of every node.
func Cluster(snapshot *model.Snapshot) []model.Problem {
	var problems []model.Problem
	owners := map[netip.Prefix][]string{}
	for _, node := range snapshot.Nodes.All() {
		if len(node.PodCIDRs) == 0 {
			problems = append(problems, model.Problem{
				Kind: "Node", Name: node.Name, Field: "spec.podCIDRs", Reason: "NodeWithoutPodCIDR",
				Message: "the node has no range for its pods, so none can start",
				Remedy:  "run kube-controller-manager with --allocate-node-cidrs and --cluster-cidr",
			})
		}
		if len(node.Addresses) == 0 {
			problems = append(problems, model.Problem{
				Kind: "Node", Name: node.Name, Field: "status.addresses", Reason: "NodeWithoutAddress",
				Message: "the node has no InternalIP, so its pods cannot be reached",
				Remedy:  "give its kubelet --node-ip",
			})
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
	slices.SortFunc(problems, model.Problem.Compare)
	return problems
}

func sharedRange(prefix netip.Prefix, nodes []string) model.Problem {
	slices.Sort(nodes)
	return model.Problem{
		Kind: "Node", Name: nodes[1], Field: "spec.podCIDRs", Reason: "PodCIDRShared",
		Message: fmt.Sprintf("%s is the range of several nodes (%s); only %s is reached", prefix, strings.Join(nodes, ", "), nodes[0]),
		Remedy:  "delete the Node objects that should not have it; their kubelets register again and get another",
	}
}
