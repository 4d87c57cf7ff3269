package model

import "cmp"

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

// Firewalls are what others filter with on this node. They are immutable.
type Firewalls struct {
	Drops []ForwardChain // sorted
}

// ForeignFirewall is what is done about a ForwardChain.
type ForeignFirewall string

// What is done.
const (
	AcceptInForeign ForeignFirewall = "Accept" // where it is safe, pods' packets are accepted there by a rule of ours
	ReportForeign   ForeignFirewall = "Report" // users are told
)
