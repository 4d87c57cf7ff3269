package nftables

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// viewChange is what differs between two views, but for queries.
type viewChange struct {
	pods   iter.Seq[model.Change[netip.Addr, policy.Group]]
	ranges iter.Seq[model.Change[netip.Prefix, policy.Group]]
	cells  iter.Seq[model.Change[policy.Cell, policy.Row]]
	rows   iter.Seq[model.Change[policy.Row, *policy.Ports]]
}

// changeTo compares, each time that it is asked.
func (v *policyView) changeTo(next *policyView) viewChange {
	return viewChange{
		model.Diff(v.pods, next.pods), model.Diff(v.ranges, next.ranges), model.Diff(v.cells, next.cells), model.Diff(v.rows, next.rows),
	}
}

// found is the same, compared once: that takes longer than to read what was found.
func (c viewChange) found() viewChange {
	return viewChange{once(c.pods), once(c.ranges), once(c.cells), once(c.rows)}
}

func once[T any](all iter.Seq[T]) iter.Seq[T] { return slices.Values(slices.Collect(all)) }

// lengths are how long prefixes are: an address is looked for by each length, and
// there are few of them.
type lengths struct {
	of   model.Map[netip.Prefix, policy.Group]
	bits [len(model.Families)][]int // the longest first
}

// groupOf is the group of the smallest range that an address is in.
func (l *lengths) groupOf(addr netip.Addr, ranges model.Map[netip.Prefix, policy.Group]) policy.Group {
	if l.of != ranges {
		l.measure(ranges)
	}
	for _, bits := range l.bits[model.FamilyOf(addr)] {
		prefix, _ := addr.Prefix(bits)
		if group, ok := ranges.Get(prefix); ok {
			return group
		}
	}
	return policy.Others
}

func (l *lengths) measure(ranges model.Map[netip.Prefix, policy.Group]) {
	var some [len(model.Families)][129]bool
	for prefix := range ranges.All() {
		some[model.FamilyOf(prefix.Addr())][prefix.Bits()] = true
	}
	*l = lengths{of: ranges}
	for family := range some {
		for bits := len(some[family]) - 1; bits >= 0; bits-- {
			if some[family][bits] {
				l.bits[family] = append(l.bits[family], bits)
			}
		}
	}
}
