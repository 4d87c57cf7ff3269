// Package policy says for people what policies mean: why a connection is allowed
// or not, who reaches whom, what a pod may do, and what a change would do. It is
// pure, and decides nothing that plan/policy has not decided: all it needs is a
// snapshot of what the API server knows, and no node is asked.
//
// What its functions return belongs to the caller; all may be called
// concurrently.
package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/policy"
)

// world is a cluster as its policies see it: a plan of some of its pods, as if
// they were all of one node. What a policy says does not depend on where pods
// are, but for the node itself.
type world struct {
	snapshot *model.Snapshot
	plan     *plan.Plan
}

// Untold says why there is no answer, and what to do.
type Untold struct {
	What string
	Next string
}

func (u *Untold) Error() string { return u.What }

// newWorld plans pods that have addresses and a network of their own.
func newWorld(from *model.Snapshot, pods []*model.Pod) (*world, error) {
	if !from.PoliciesKnown {
		return nil, &Untold{"the snapshot does not have the policies of the cluster: its node had not read them yet", "take another one, when the node is ready"}
	}
	s := *from
	s.Attachments = model.Map[model.AttachmentKey, *model.Attachment]{}
	for _, pod := range pods {
		here := *pod
		here.Node = "" // any
		s.Pods = s.Pods.With(here.PodKey, &here)
		a := &model.Attachment{
			AttachmentKey: model.AttachmentKey{ContainerID: pod.String()}, Pod: pod.PodKey, UID: pod.UID, Addresses: pod.Addresses,
		}
		s.Attachments = s.Attachments.With(a.AttachmentKey, a)
	}
	planned, _ := plan.Compute(nil, &s, "")
	return &world{from, planned}, nil
}

// connected tells whether a pod has an address and a network of its own.
func connected(pod *model.Pod) bool {
	return !pod.HostNetwork && !pod.Finished && len(pod.Addresses) > 0
}

// labelsOf are those of a namespace.
func labelsOf(s *model.Snapshot, namespace string) model.Labels {
	if n, ok := s.Namespaces.Get(namespace); ok {
		return n.Labels
	}
	return model.LabelsOf(map[string]string{namespaceName: namespace})
}

// namespaceName is the label that the API server gives each namespace.
const namespaceName = "kubernetes.io/metadata.name"

// isolating are the NetworkPolicies that isolate a pod, sorted.
func isolating(s *model.Snapshot, pod *model.Pod, d model.Direction) (names []string) {
	for key, p := range s.Policies.All() {
		if key.Namespace == pod.Namespace && p.Isolates[d] && p.Pods.Matches(pod.Labels) {
			names = append(names, key.String())
		}
	}
	slices.Sort(names)
	return names
}

// podAt is the pod that an address belongs to: of several the first by name, as
// plans have it; nil if there is none.
func podAt(s *model.Snapshot, addr netip.Addr) (found *model.Pod) {
	for _, pod := range s.Pods.All() {
		if connected(pod) && slices.Contains(pod.Addresses, addr) && (found == nil || cmp.Compare(pod.String(), found.String()) < 0) {
			found = pod
		}
	}
	return found
}

// nodeAt is the node that has an address; nil if none has.
func nodeAt(s *model.Snapshot, addr netip.Addr) *model.Node {
	if all := nodesAt(s, addr); len(all) > 0 {
		return all[0]
	}
	return nil
}

// nodesAt are all that have it, sorted.
func nodesAt(s *model.Snapshot, addr netip.Addr) (all []*model.Node) {
	for _, node := range s.Nodes.All() {
		if slices.Contains(node.Addresses, addr) || slices.Contains(node.External, addr) {
			all = append(all, node)
		}
	}
	slices.SortFunc(all, func(a, b *model.Node) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
