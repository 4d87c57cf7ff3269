package model

import (
	"net/netip"
	"slices"
)

// Namespace is what policies choose namespaces by.
type Namespace struct {
	Name   string
	Labels Labels
}

// ContainerPort is a port of a pod that has a name.
type ContainerPort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Direction is that of connections, as a pod sees it.
type Direction uint8

// The directions.
const (
	Ingress Direction = iota // to the pod
	Egress                   // from it
)

// Directions are both.
var Directions = [...]Direction{Ingress, Egress}

func (d Direction) String() string { return [...]string{"ingress", "egress"}[d] }

// PolicyKey names a policy. The namespace of a ClusterNetworkPolicy is empty.
type PolicyKey struct{ Namespace, Name string }

func (k PolicyKey) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// Policy is a NetworkPolicy (networking.k8s.io/v1). It isolates the pods that it
// selects, in its directions: what no rule of any such policy allows is denied.
type Policy struct {
	PolicyKey
	Pods     Selector // of its namespace
	Isolates [len(Directions)]bool
	Rules    [len(Directions)][]PolicyRule // of directions that it isolates; each allows
}

// PolicyRule fits a connection if one of its peers and one of its ports do.
type PolicyRule struct {
	// Anyone and AnyPort say that the rule names none. A list is then empty; an
	// empty list without them fits nothing, as when all in it was not understood.
	Anyone  bool
	Peers   []Peer
	AnyPort bool // and every protocol, those without ports too
	Ports   []PolicyPort
}

// Peer is who is at the other end: pods, or addresses, or addresses that have names,
// or nodes.
type Peer struct {
	// Namespaces and Pods choose pods. Of a peer that chooses pods, neither is nil:
	// where a NetworkPolicy means its own namespace, that is by its name
	// (kubernetes.io/metadata.name). Of all other peers, both are.
	Namespaces, Pods *Selector
	Block            netip.Prefix   // masked
	Except           []netip.Prefix // within Block; masked
	// Domain is a name of the outside, or *. and a name; see Domains. It means the
	// addresses that a Snapshot's Resolved say, but for those of pods.
	Domain string
	// Nodes chooses nodes: their addresses, which pods of the host network share,
	// but for those that a pod has to itself.
	Nodes *Selector
}

// PolicyPort is some ports of one protocol, those of the pod that is called:
// those from From to To, or that of its containers that has the Name.
type PolicyPort struct {
	Protocol Protocol
	Name     string // empty: the port is by number
	From, To uint16 // 0 and 65535: all
}

// Tier is when a policy is asked. Tiers are asked in this order.
type Tier uint8

// The tiers. Those of NetworkPolicies is between the two of
// ClusterNetworkPolicies.
const (
	AdminTier Tier = iota
	NamespaceTier
	BaselineTier
)

func (t Tier) String() string { return [...]string{"Admin", "NetworkPolicy", "Baseline"}[t] }

// ClusterPolicy is a ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2):
// of its rules, the first that fits decides.
type ClusterPolicy struct {
	Name             string
	Tier             Tier
	Priority         int32     // within the tier, the lower one is asked first; of equals, that whose name sorts first
	Namespaces, Pods *Selector // both have to choose the pod; neither is nil
	Rules            [len(Directions)][]ClusterRule
}

// Action is what a rule of a ClusterNetworkPolicy does.
type Action uint8

// The actions.
const (
	Accept Action = iota
	Deny
	Pass // to the next tier
)

func (a Action) String() string { return [...]string{"Accept", "Deny", "Pass"}[a] }

// ClusterRule is one of a ClusterNetworkPolicy.
type ClusterRule struct {
	Name   string // may be empty
	Action Action
	PolicyRule
}

// Equal tells whether nothing differs.
func (n *Namespace) Equal(other *Namespace) bool { return *n == *other }

// Equal tells whether nothing differs.
func (p *Policy) Equal(other *Policy) bool {
	if p.PolicyKey != other.PolicyKey || !p.Pods.Equal(&other.Pods) || p.Isolates != other.Isolates {
		return false
	}
	for _, d := range Directions {
		if !slices.EqualFunc(p.Rules[d], other.Rules[d], func(a, b PolicyRule) bool { return a.Equal(&b) }) {
			return false
		}
	}
	return true
}

// Equal tells whether nothing differs.
func (r *PolicyRule) Equal(other *PolicyRule) bool {
	return r.Anyone == other.Anyone && r.AnyPort == other.AnyPort && slices.Equal(r.Ports, other.Ports) &&
		slices.EqualFunc(r.Peers, other.Peers, func(a, b Peer) bool { return a.Equal(&b) })
}

// Equal tells whether nothing differs.
func (p *Peer) Equal(other *Peer) bool {
	return p.Namespaces.Equal(other.Namespaces) && p.Pods.Equal(other.Pods) &&
		p.Block == other.Block && slices.Equal(p.Except, other.Except) && p.Domain == other.Domain && p.Nodes.Equal(other.Nodes)
}

// Equal tells whether nothing differs.
func (p *ClusterPolicy) Equal(other *ClusterPolicy) bool {
	if p.Name != other.Name || p.Tier != other.Tier || p.Priority != other.Priority ||
		!p.Namespaces.Equal(other.Namespaces) || !p.Pods.Equal(other.Pods) {
		return false
	}
	for _, d := range Directions {
		if !slices.EqualFunc(p.Rules[d], other.Rules[d], func(a, b ClusterRule) bool {
			return a.Name == b.Name && a.Action == b.Action && a.PolicyRule.Equal(&b.PolicyRule)
		}) {
			return false
		}
	}
	return true
}
