// Package masquerade plans which packets of pods leave with their node's
// address: those from a pod of this node to an address that is no pod's. That
// includes other nodes: the network between them need not know pods. It is
// pure.
package masquerade

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Plan says what to masquerade. It is immutable.
type Plan struct {
	Pods    model.Map[netip.Prefix, struct{}] // sources: the pods of this node; empty: masquerade nothing
	Cluster model.Map[netip.Prefix, struct{}] // destinations that are left alone: all pods; no two overlap

	// What the next plan is made from.
	nodes   model.Map[string, *model.Node]
	holders model.Map[netip.Prefix, int] // how many nodes have this range
	lengths model.Map[length, int]       // how many ranges have this length
}

// length is a prefix length in one family. As long as a family has only one,
// no two of its ranges can overlap.
type length struct {
	family model.Family
	bits   int
}

// Compute plans masquerading on one node. prev is the last plan or nil, and is
// returned if the snapshot does not say enough for another.
func Compute(prev *Plan, snapshot *model.Snapshot, name string) *Plan {
	self, ok := snapshot.Nodes.Get(name)
	if !ok || snapshot.Network == nil {
		return prev
	}
	next := &Plan{}
	if prev != nil {
		*next = *prev
	}
	next.Pods = model.Map[netip.Prefix, struct{}]{}
	for _, prefix := range self.PodCIDRs {
		if snapshot.Network.Masquerade.On[model.FamilyOf(prefix.Addr())] {
			next.Pods = next.Pods.With(prefix, struct{}{})
		}
	}
	overlaps := false
	for change := range model.Diff(next.nodes, snapshot.Nodes) {
		if change.Has {
			overlaps = next.add(change.New.PodCIDRs) || overlaps
		}
		if change.Had {
			overlaps = next.remove(change.Old.PodCIDRs) || overlaps
		}
	}
	if overlaps {
		next.Cluster = cover(next.holders)
	}
	next.nodes = snapshot.Nodes
	return next
}

// add and remove tell whether the ranges may overlap, so that Cluster has to be
// made anew.
func (p *Plan) add(prefixes []netip.Prefix) (overlaps bool) {
	for _, prefix := range prefixes {
		holders, _ := p.holders.Get(prefix)
		p.holders = p.holders.With(prefix, holders+1)
		if holders == 0 {
			p.Cluster = p.Cluster.With(prefix, struct{}{})
			overlaps = p.count(prefix, 1) || overlaps
		}
	}
	return overlaps
}

func (p *Plan) remove(prefixes []netip.Prefix) (overlaps bool) {
	for _, prefix := range prefixes {
		holders, _ := p.holders.Get(prefix)
		if holders > 1 {
			p.holders = p.holders.With(prefix, holders-1)
			continue
		}
		p.holders = p.holders.Without(prefix)
		p.Cluster = p.Cluster.Without(prefix)
		overlaps = p.count(prefix, -1) || overlaps
	}
	return overlaps
}

func (p *Plan) count(prefix netip.Prefix, by int) (overlaps bool) {
	at := length{model.FamilyOf(prefix.Addr()), prefix.Bits()}
	before := p.distinct(at.family)
	n, _ := p.lengths.Get(at)
	if n+by == 0 {
		p.lengths = p.lengths.Without(at)
	} else {
		p.lengths = p.lengths.With(at, n+by)
	}
	return before > 1 || p.distinct(at.family) > 1
}

func (p *Plan) distinct(family model.Family) (lengths int) {
	for at := range p.lengths.All() {
		if at.family == family {
			lengths++
		}
	}
	return lengths
}

// cover is the ranges that lie in no other.
func cover(holders model.Map[netip.Prefix, int]) model.Map[netip.Prefix, struct{}] {
	var prefixes []netip.Prefix
	for prefix := range holders.All() {
		prefixes = append(prefixes, prefix)
	}
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits())
	})
	var cover model.Map[netip.Prefix, struct{}]
	var last netip.Prefix
	for _, prefix := range prefixes {
		if last.IsValid() && last.Overlaps(prefix) {
			continue
		}
		cover, last = cover.With(prefix, struct{}{}), prefix
	}
	return cover
}
