package preflight

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// others are the names of DaemonSets of networks.
var others = map[string]string{
	"kube-flannel-ds": "flannel", "canal": "Canal", "calico-node": "Calico", "cilium": "Cilium", "weave-net": "Weave",
	"kube-router": "kube-router", "antrea-agent": "Antrea", "aws-node": "the AWS VPC CNI", "ovnkube-node": "OVN-Kubernetes",
	"kindnet": "kindnet", "azure-cni": "the Azure CNI",
}

// Cluster judges a cluster.
func Cluster(s *kube.Survey) []Finding {
	r := &report{}
	if older(s.Version, oldestKubernetes) {
		r.add("kubernetes", Fail, "the API server is "+s.Version, "Fairlead needs Kubernetes "+oldestKubernetes+" or newer, for its admission policies", "upgrade the cluster")
	} else {
		r.ok("kubernetes", "%s", s.Version)
	}
	nodes(r, s)
	ranges(r, s)
	networks(r, s)
	switch s.KubeProxy {
	case "none":
		r.ok("services", "no kube-proxy; Fairlead serves Services")
	case "unknown":
		r.add("services", Warn, "the configuration of kube-proxy could not be read", "in mode ipvs it has the addresses of Services on an interface of each node, where host ports of pods are then, too", "nothing, in any other mode; it may go when Fairlead is there (docs/service.md)")
	case "ipvs":
		r.add("services", Warn, "kube-proxy in mode ipvs", "it has the addresses of Services on an interface of each node, where host ports of pods are then, too", "take kube-proxy away when Fairlead is there (docs/service.md)")
	default:
		r.ok("services", "kube-proxy in mode %s, which may stay or go: Fairlead serves Services, too", s.KubeProxy)
	}
	if len(s.Lacking) > 0 {
		r.add("rights", Fail, "this user may not: "+strings.Join(s.Lacking, ", "), "deploy/fairlead.yaml makes such objects", "install as a user with the ClusterRole cluster-admin")
	} else {
		r.ok("rights", "this user may install")
	}
	return r.findings
}

func nodes(r *report, s *kube.Survey) {
	old, windows, agents := []string{}, []string{}, 0
	for _, node := range s.Nodes {
		switch {
		case node.OS != "" && node.OS != "linux":
			windows = append(windows, node.Node.Name)
			continue
		case node.NoAgent: // whatever runs there
			continue
		case older(node.Kernel, oldestKernel):
			old = append(old, node.Node.Name+" ("+node.Kernel+")")
		}
		agents++
	}
	if len(old) > 0 {
		r.add("kernel", Fail, "old kernels: "+strings.Join(old, ", "), "Fairlead needs Linux "+oldestKernel+" or newer", "install newer kernels there, or keep agents away: kubectl label node NAME fairlead.io/agent=none")
	} else {
		r.ok("kernel", "Linux %s or newer on all nodes that get an agent", oldestKernel)
	}
	if len(windows) > 0 {
		r.add("os", Warn, "not Linux: "+strings.Join(windows, ", "), "they get no agent", "run another network there")
	}
	r.ok("nodes", "%d, %d of which get an agent", len(s.Nodes), agents)
}

// ranges judges the ranges of pods, with the words of the controller.
func ranges(r *report, s *kube.Survey) {
	snapshot := &model.Snapshot{Network: model.DefaultNetwork()}
	for _, node := range s.Nodes {
		snapshot.Nodes = snapshot.Nodes.With(node.Node.Name, node.Node)
	}
	problems := plan.Cluster(snapshot)
	for _, node := range s.Nodes {
		for _, prefix := range node.Node.PodCIDRs {
			for _, other := range s.Nodes {
				if slices.ContainsFunc(other.Node.Addresses, prefix.Contains) {
					problems = append(problems, model.Problem{
						Kind: "Node", Name: node.Node.Name, Field: "spec.podCIDRs",
						Message: fmt.Sprintf("%s, the range of its pods, has the address of node %s", prefix, other.Node.Name),
						Remedy:  "give kube-controller-manager another --cluster-cidr, then, of each node: " + model.RegisterAnew,
					})
				}
			}
		}
	}
	const most = 10
	for i, problem := range problems {
		if i == most {
			r.add("ranges", Fail, fmt.Sprintf("and %d more of the kind", len(problems)-most), "", "")
			break
		}
		r.add("ranges", Fail, strings.TrimSuffix("node "+problem.Name+" "+problem.Field, " ")+": "+problem.Message, "its pods get no addresses, or are not reached", problem.Remedy)
	}
	if len(problems) == 0 {
		r.ok("ranges", "each node has a range for its pods, and none overlap")
	}
}

func networks(r *report, s *kube.Survey) {
	found := false
	for _, set := range s.DaemonSets {
		name := set[strings.LastIndexByte(set, '/')+1:]
		if name == "fairlead-agent" {
			r.ok("installed", "Fairlead is there already")
		}
		network := others[name]
		if network == "" {
			continue
		}
		found = true
		next := "take it away first; pods are to be made anew then"
		if network == "flannel" {
			next = "move node by node: docs/install.md tells how"
		}
		r.add("network", Fail, fmt.Sprintf("%s runs (DaemonSet %s)", network, set), "two networks on a node get in each other's way", next)
	}
	if !found {
		r.ok("network", "no other is known to run")
	}
}
