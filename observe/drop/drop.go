// Package drop says of packets that policies have denied whose they were, and
// which rule denied them: as a Record, which people and programs read, and in the
// words of the Elastic Common Schema. It is pure but for File; the packets
// are read by others. A Ring and a File may be used concurrently.
package drop

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// Record is a packet that a policy has denied. As JSON its fields only grow.
type Record struct {
	Time        time.Time      `json:"time"` // by the clock of the node; no two of a node are the same
	Node        string         `json:"node"`
	Direction   string         `json:"direction"` // ingress or egress, of the pod that the policy is for; empty if Unfound
	Source      End            `json:"source"`
	Destination End            `json:"destination"`       // after the address of a Service was translated
	Protocol    string         `json:"protocol"`          // TCP, UDP, SCTP, ICMP, ICMPv6, or a number
	ICMP        *ICMP          `json:"icmp,omitempty"`    // of such a packet
	Called      netip.AddrPort `json:"called,omitzero"`   // what the client has called, if it was translated
	Service     string         `json:"service,omitempty"` // NAMESPACE/NAME, that has this address, or that of Destination
	Policy      *Policy        `json:"policy,omitempty"`  // nil: the rule is gone, and nobody knows it any more
	Nearest     *Nearest       `json:"nearest,omitempty"` // rule that would have allowed it with the least change
	Unfound     bool           `json:"unfound,omitempty"` // policies were being changed, and what they say of it was not found: nothing denies it
}

// End is one of a connection.
type End struct {
	Address   netip.Addr        `json:"address"`
	Port      uint16            `json:"port,omitempty"`
	Namespace string            `json:"namespace,omitempty"` // of the pod; empty: no pod has the address
	Pod       string            `json:"pod,omitempty"`
	Node      string            `json:"node,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	UID       string            `json:"-"`
}

// ICMP is a kind of message.
type ICMP struct {
	Type uint8 `json:"type"`
	Code uint8 `json:"code"`
}

// Policy is what denied: one of its rules, or that none allows it.
type Policy struct {
	Kind      string `json:"kind"` // NetworkPolicy, ClusterNetworkPolicy or, of one that is not known yet, Pod
	Tier      string `json:"tier,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Rule      int    `json:"rule,omitempty"`  // of the direction, from 1; 0: no rule allows it
	Field     string `json:"field,omitempty"` // of that rule, such as spec.ingress[0]
}

// Nearest is a rule that allows something else.
type Nearest struct {
	Policy
	Differs string `json:"differs"` // what keeps it from this one
}

func (e End) String() string {
	if e.Pod == "" {
		return e.Address.String()
	}
	return e.Namespace + "/" + e.Pod
}

// Object is kind and name, as NetworkPolicy shop/deny-all.
func (p Policy) Object() string {
	return p.Kind + " " + model.PolicyKey{Namespace: p.Namespace, Name: p.Name}.String()
}

func (p Policy) String() string {
	if p.Rule > 0 {
		return p.Object() + ", " + p.RuleName()
	}
	return p.Object()
}

// RuleName is the field of the rule as its manifest has it: spec.ingress[0]. One
// of an agent that does not say it has its number.
func (p Policy) RuleName() string {
	if p.Field == "" {
		return fmt.Sprintf("rule %d", p.Rule)
	}
	return p.Field
}

// Subject is the pod whose policies have denied the packet, and Peer the other
// end.
func (r *Record) Subject() End {
	if r.Direction == model.Egress.String() {
		return r.Source
	}
	return r.Destination
}

// Peer is the end that is not the Subject.
func (r *Record) Peer() End {
	if r.Direction == model.Egress.String() {
		return r.Destination
	}
	return r.Source
}

// Port is what was called, in words: 80/TCP, or ICMP type 8.
func (r *Record) Port() string {
	switch {
	case r.ICMP != nil:
		return fmt.Sprintf("%s type %d", r.Protocol, r.ICMP.Type)
	case r.Destination.Port == 0:
		return r.Protocol
	}
	return fmt.Sprintf("%d/%s", r.Destination.Port, r.Protocol)
}

// Why says which rule denied it, in the words of policy.Explanation.
func (r *Record) Why() string {
	var text strings.Builder
	switch p := r.Policy; {
	case r.Unfound:
		return "policies were being changed, and what they say of it was not found; whoever sends it again is answered. If this goes on: fairlead status"
	case p == nil:
		text.WriteString("denied by a policy that has gone")
	case p.Kind == kindPod:
		text.WriteString("what the pod may do is not known yet")
	case p.Rule == 0:
		text.WriteString("default deny by " + p.Object())
	default:
		text.WriteString("denied by " + p.String())
	}
	text.WriteString(", direction " + r.Direction)
	if r.Nearest != nil {
		fmt.Fprintf(&text, "; nearest allow: %s, %s", r.Nearest.Policy, r.Nearest.Differs)
	}
	return text.String()
}

// Is tells whether one of the ends is a pod of these names. Empty ones fit all.
func (r *Record) Is(namespace, pod string) bool {
	fits := func(e End) bool {
		return (namespace == "" || e.Namespace == namespace) && (pod == "" || e.Pod == pod)
	}
	return fits(r.Source) || fits(r.Destination)
}
