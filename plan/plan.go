// Package plan computes what one node should look like from a snapshot of the
// cluster. It is pure: the same snapshot gives the same plan, on any machine,
// without root. It composes the planners of the features below it; they do not
// know each other.
package plan

import (
	"slices"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/antispoof"
	"github.com/fairlead-net/fairlead/plan/dns"
	"github.com/fairlead-net/fairlead/plan/firewall"
	"github.com/fairlead-net/fairlead/plan/hostport"
	"github.com/fairlead-net/fairlead/plan/masquerade"
	"github.com/fairlead-net/fairlead/plan/policy"
	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/plan/service"
)

// Node is the plan of one node. It is immutable. A part that is nil cannot be
// told from the snapshot (the node's own object may be missing): what is in
// the kernel stays as it is.
type Node struct {
	Name       string
	Revision   uint64 // of the snapshot
	Route      *route.Plan
	Masquerade *masquerade.Plan
	HostPort   *hostport.Plan
	AntiSpoof  *antispoof.Plan
	Service    *service.Plan
	Policy     *policy.Plan
	Firewall   *firewall.Plan
	DNS        *dns.Listen
	Problems   []model.Problem // of this node, sorted; those of the cluster are Cluster's

	routes *route.Plan // as planned; Route has the sysctls and addresses of others as well
}

// Compute plans a node. prev is the plan computed last for the same node, or
// nil: what did not change since is taken from it, so that the cost of a
// change does not follow the size of the cluster.
func Compute(prev *Node, snapshot *model.Snapshot, name string) *Node {
	if prev == nil {
		prev = &Node{}
	}
	node := &Node{Name: name, Revision: snapshot.Revision}
	if _, ok := snapshot.Nodes.Get(name); !ok {
		node.Problems = append(node.Problems, unknownNode(name))
	}
	var problems []model.Problem
	node.routes, problems = route.Compute(prev.routes, snapshot, name)
	node.Problems = append(node.Problems, problems...)
	node.Masquerade, problems = masquerade.Compute(prev.Masquerade, snapshot, name)
	node.Problems = append(node.Problems, problems...)
	node.HostPort, problems = hostport.Compute(prev.HostPort, snapshot, name)
	node.Problems = append(node.Problems, problems...)
	node.AntiSpoof = antispoof.Compute(prev.AntiSpoof, snapshot)
	node.Service, problems = service.Compute(prev.Service, snapshot, name)
	node.Problems = append(node.Problems, problems...)
	node.Policy, problems = policy.Compute(prev.Policy, snapshot, name)
	node.Problems = append(node.Problems, problems...)
	node.Firewall, problems = firewall.Compute(prev.Firewall, snapshot, name)
	node.Problems = append(node.Problems, problems...)
	node.DNS = dns.ComputeListen(prev.DNS, snapshot, name)
	node.Problems = append(node.Problems, dns.Problems(snapshot)...)
	node.Route = prev.Route
	if node.routes != prev.routes || node.HostPort != prev.HostPort || ofServices(node.Service) != ofServices(prev.Service) || node.DNS != prev.DNS {
		node.Route = withAddresses(withSysctls(node.routes, node.HostPort, ofServices(node.Service)), node.HostPort, node.DNS)
	}
	slices.SortFunc(node.Problems, model.Problem.Compare)
	return node
}

// withSysctls leaves to who carries out routing what host ports and Services
// need of it.
func withSysctls(routes *route.Plan, ports *hostport.Plan, services model.Map[string, string]) *route.Plan {
	if routes == nil || (ports == nil || ports.Sysctls.Len() == 0) && services.Len() == 0 {
		return routes
	}
	all := *routes
	if ports != nil {
		for path, value := range ports.Sysctls.All() {
			all.Sysctls = all.Sysctls.With(path, value)
		}
	}
	for path, value := range services.All() {
		all.Sysctls = all.Sysctls.With(path, value)
	}
	return &all
}

// withAddresses makes addresses of DNS the node's own, by routes of type local.
// What the node itself sends to them comes from its own address; else it would
// come from that of DNS, which no other node could answer.
func withAddresses(routes *route.Plan, ports *hostport.Plan, listen *dns.Listen) *route.Plan {
	if routes == nil || listen == nil || listen.Addresses.Len() == 0 {
		return routes
	}
	all := *routes
	for addr := range listen.Addresses.All() {
		local := route.Route{Local: true, Device: "lo"}
		if ports != nil {
			local.Source = ports.Own[model.FamilyOf(addr)]
		}
		all.Routes = all.Routes.With(model.HostPrefix(addr), local)
	}
	return &all
}

// ofServices are the sysctls that Services need.
func ofServices(p *service.Plan) (none model.Map[string, string]) {
	if p == nil {
		return none
	}
	return p.Sysctls
}

func unknownNode(name string) model.Problem {
	return model.Problem{
		Kind: "Node", Name: name, Reason: "NodeUnknown",
		Message: "the API server has no Node of this name, so this node's pod range is not known",
		Remedy:  "start the agent with the name that the kubelet registered (--node-name); kubectl get nodes lists them",
	}
}
