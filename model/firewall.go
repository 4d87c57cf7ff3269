package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// ForwardChain is a chain of another program's where the kernel forwards
// packets, that lets none pass which it does not accept. An accept of ours
// elsewhere does not override it.
type ForwardChain struct {
	Family string // ip, ip6 or inet, as nft has it
	Table  string
	Chain  string
}

func (c ForwardChain) String() string { return c.Family + " " + c.Table + " " + c.Chain }

// Compare orders chains for display.
func (c ForwardChain) Compare(other ForwardChain) int {
	return cmp.Or(cmp.Compare(c.Family, other.Family), cmp.Compare(c.Table, other.Table), cmp.Compare(c.Chain, other.Chain))
}

// ForwardPass says that a ForwardChain accepts certain packets of pods, whatever else is in
// them, before it drops the rest.
type ForwardPass struct {
	Chain ForwardChain
	Of    PassOf
	Pods  netip.Prefix // their addresses; of length 0: of all pods of the family
}

// PassOf is which packets pass.
type PassOf string

// Those that come through an interface of a pod are of this node's pods alone.
const (
	FromPods PassOf = "from"   // from pods, through their interfaces or wherever they come from
	ToPods   PassOf = "to"     // to pods
	BySource PassOf = "source" // from such addresses, through any interface
)

func (p ForwardPass) String() string { return fmt.Sprintf("%s: %s %s", p.Chain, p.Of, p.Pods) }

// Compare orders passes.
func (p ForwardPass) Compare(other ForwardPass) int {
	return cmp.Or(p.Chain.Compare(other.Chain), cmp.Compare(p.Of, other.Of), p.Pods.Compare(other.Pods))
}

// Firewalls are what others filter with on this node. They are immutable.
type Firewalls struct {
	Drops  []ForwardChain // sorted
	Passes []ForwardPass  // sorted
}

// Equal tells whether they say the same.
func (f *Firewalls) Equal(other *Firewalls) bool {
	return slices.Equal(f.Drops, other.Drops) && slices.Equal(f.Passes, other.Passes)
}

// ForeignFirewall is what is done about a ForwardChain.
type ForeignFirewall string

// What is done.
const (
	AcceptInForeign ForeignFirewall = "Accept" // where it is safe, pods' packets are accepted there by a rule of ours
	ReportForeign   ForeignFirewall = "Report" // users are told
	IgnoreForeign   ForeignFirewall = "Ignore" // nothing
)
