// Package policy plans which connections the pods of one node may have: those
// that NetworkPolicies and ClusterNetworkPolicies allow. It is pure.
//
// What a policy means is the API's to say: networking.k8s.io/v1, and
// policy.networking.k8s.io/v1alpha2 (network-policy-api).
//
// A connection is judged for each pod of this node at its ends: by its pod, the
// other end and the port, after the destination was translated and before the
// source is. Of all possible other ends, those that every policy of this node
// treats alike are a Group; what a pod says to a group is a Row, which many
// pods and groups share. So the plan grows neither with policies times pods nor
// with pods times pods.
package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/fairlead-net/fairlead/model"
)

// Plan says what the pods of one node may send and receive. It is immutable.
type Plan struct {
	// Groups are in which group an address is: first of pods, and of addresses that
	// policies name, and of others by ranges, no two of which overlap. Who is in
	// neither is of the group Others.
	Pods   model.Map[netip.Addr, Group]
	Ranges model.Map[netip.Prefix, Group]
	// Cells are what pods of this node that some policy restricts say to a group.
	// Each has a cell for Others, which is for all groups without one; a Subject
	// without that is not restricted. A cell for Itself is of a pod that calls
	// itself by a Service.
	Cells model.Map[Cell, Row]
	// Rows are all that Cells lead to.
	Rows model.Map[Row, *Ports]
	// Queries are judged for egress before their destination is translated, and
	// not after, since names are answered on each node, at addresses that no policy
	// means: their own address is one of Pods.
	Queries model.Map[Query, struct{}]
	// CutEstablished ends connections that this plan forbids.
	CutEstablished bool

	state
}

// Group names addresses that no policy of this node tells apart: by what
// chooses them, in a text for people.
type Group string

// Groups that are always there.
const (
	Others Group = ""       // nobody in particular
	Itself Group = "itself" // the pod that the cell is of
)

// Subject is a pod of this node in one direction.
type Subject struct {
	Direction model.Direction
	Address   netip.Addr
}

// Cell is where a group meets a pod of this node.
type Cell struct {
	Subject
	Group Group
}

func (c Cell) String() string {
	return fmt.Sprintf("policy %s %s %q", c.Address, c.Direction, string(c.Group))
}

// Row names Ports by what they say.
type Row string

// Ports say what becomes of connections, by the port of whom is called. They
// are immutable.
type Ports struct {
	// Ranges differ from Default: sorted by protocol and port, and no two overlap.
	Ranges  []PortRange
	Default Decision
}

// PortRange are ports of one protocol, both included. Of 0 to 65535, the
// protocol decides.
type PortRange struct {
	Protocol model.Protocol
	From, To uint16
	Decision Decision
}

// Decision is what becomes of a connection, and who says so.
type Decision struct {
	Accept bool
	By     Rule // the zero value of one that is accepted
}

// Rule is what decided: a rule of a policy, or the policies of a pod together,
// since none of them allows it.
type Rule struct {
	Tier   model.Tier
	Policy model.PolicyKey
	// Rule is its index in the direction, from 0, or Isolated. Of several policies
	// that isolate a pod, Policy is the first by name.
	Rule int
}

// Values of Rule.Rule that are no index.
const (
	Isolated = -1 // no rule allows what policies restrict
	Unknown  = -2 // what the pod may do is not known yet, so it may do nothing; Policy is the pod
)

func (r Rule) String() string {
	kind := "ClusterNetworkPolicy"
	if r.Tier == model.NamespaceTier {
		kind = "NetworkPolicy"
	}
	switch r.Rule {
	case Isolated:
		return kind + " " + r.Policy.String() + ": no rule allows it"
	case Unknown:
		if r.Policy == (model.PolicyKey{}) {
			return "the pod is not known yet"
		}
		return fmt.Sprintf("pod %s is not known yet", r.Policy)
	}
	return kind + " " + r.Policy.String() + ": rule " + strconv.Itoa(r.Rule+1)
}

// Decide looks up what becomes of a connection between a pod of this node and
// a peer; port is that of whom is called, 0 of protocols without ports. A pod
// that calls itself, by a Service, is its own peer. Data planes look up the
// same.
func (p *Plan) Decide(at Subject, peer netip.Addr, protocol model.Protocol, port uint16) Decision {
	row, restricted := p.Cells.Get(Cell{at, p.GroupOf(at, peer)})
	if !restricted {
		row, restricted = p.Cells.Get(Cell{at, Others})
	}
	if !restricted {
		return Decision{Accept: true}
	}
	ports, _ := p.Rows.Get(row)
	return ports.Decide(protocol, port)
}

// GroupOf is the group that a peer is in, for a pod of this node.
func (p *Plan) GroupOf(at Subject, peer netip.Addr) Group {
	if peer == at.Address {
		return Itself
	}
	if group, ok := p.Pods.Get(peer); ok {
		return group
	}
	for bits := peer.BitLen(); bits >= 0; bits-- {
		prefix, _ := peer.Prefix(bits)
		if group, ok := p.Ranges.Get(prefix); ok {
			return group
		}
	}
	return Others
}

// Decide looks up a port.
func (p *Ports) Decide(protocol model.Protocol, port uint16) Decision {
	for _, r := range p.Ranges {
		if r.Protocol == protocol && r.From <= port && port <= r.To {
			return r.Decision
		}
	}
	return p.Default
}

// Row is the name of the ports: their text, or the start of a long one.
func (p *Ports) Row() Row { return Row(brief(p.String())) }

// String is for people, sorted by protocol and port.
func (p *Ports) String() string {
	var text []byte
	var last Decision
	var lastText string // of last: one decision often has many ranges
	for i, r := range p.Ranges {
		if i == 0 || r.Decision != last {
			last, lastText = r.Decision, r.Decision.String()
		}
		text = append(append(text, r.Protocol.String()...), ' ')
		text = append(strconv.AppendUint(text, uint64(r.From), 10), '-')
		text = append(strconv.AppendUint(text, uint64(r.To), 10), ' ')
		text = append(append(text, lastText...), "; "...)
	}
	return string(append(text, p.Default.String()...))
}

func (d Decision) String() string {
	if d.Accept {
		return "accept"
	}
	return "deny by " + d.By.String()
}

// Equal tells whether nothing differs.
func (p *Ports) Equal(other *Ports) bool {
	return p.Default == other.Default && slices.Equal(p.Ranges, other.Ranges)
}
