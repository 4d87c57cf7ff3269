package model

import "cmp"

// Problem is something that a user has to mend: it names the object and the
// field, says what is wrong and what to do. An error, in contrast, is ours.
// Problems are comparable, so that sets of them can be compared.
type Problem struct {
	Kind      string // of the object: Node, Network, Pod …
	Namespace string // empty for objects of the cluster
	Name      string
	Field     string // such as spec.podCIDRs; may be empty
	Reason    string // one CamelCase word, for conditions and Events
	Message   string // what is wrong, as a sentence without a full stop
	Remedy    string // what to do next
}

// Compare orders problems for display: by object, then by what is wrong.
func (p Problem) Compare(other Problem) int {
	return cmp.Or(
		cmp.Compare(p.Kind, other.Kind), cmp.Compare(p.Namespace, other.Namespace),
		cmp.Compare(p.Name, other.Name), cmp.Compare(p.Field, other.Field),
		cmp.Compare(p.Reason, other.Reason), cmp.Compare(p.Message, other.Message),
	)
}

// Object is the name a user would type: kind/name or kind/namespace/name.
func (p Problem) Object() string {
	if p.Namespace == "" {
		return p.Kind + "/" + p.Name
	}
	return p.Kind + "/" + p.Namespace + "/" + p.Name
}

func (p Problem) String() string {
	text := p.Object()
	if p.Field != "" {
		text += " " + p.Field
	}
	text += ": " + p.Message
	if p.Remedy != "" {
		text += "; " + p.Remedy
	}
	return text
}

// NodeWithoutPodCIDR is said by the node itself and by the controller, in the
// same words, so that it shows as one.
func NodeWithoutPodCIDR(node string) Problem {
	return Problem{
		Kind: "Node", Name: node, Field: "spec.podCIDRs", Reason: "NodeWithoutPodCIDR",
		Message: "the node has no range for its pods, so none can start",
		Remedy:  "run kube-controller-manager with --allocate-node-cidrs and --cluster-cidr",
	}
}

// NodeWithoutAddress is said like NodeWithoutPodCIDR.
func NodeWithoutAddress(node string) Problem {
	return Problem{
		Kind: "Node", Name: node, Field: "status.addresses", Reason: "NodeWithoutAddress",
		Message: "the node has no InternalIP, so its pods cannot be reached",
		Remedy:  "give its kubelet --node-ip",
	}
}

// RegisterAnew is how a node gets another range: a kubelet that runs does not notice that
// its Node object is gone (registrationCompleted, in Kubernetes' kubelet_node_status.go).
const RegisterAnew = "drain it, kubectl delete node NODE, then restart its kubelet, which registers it anew"
