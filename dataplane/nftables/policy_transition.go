package nftables

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// A packet is judged by several lookups, and while a transaction is carried out
// some of them find what was before it, and the later ones what is after it.
// Neither of both may make of it what it is not in the one nor in the other. So a
// change is carried out in steps. Each changes, in the order in which packets
// look, at most one thing that they may have met, and adds what nobody leads to
// until then:
//
//  0. rows with ranges of ports
//  1. pods that come to a group or change it, and cells of groups that are new
//  2. ranges of addresses
//  3. pods that leave to the group of their range
//  4. cells of groups that others are in
//  5. cells for others, and cells that go
//  6. whoever had to wait
//  7. what nobody leads to any more goes
//
// What is judged before it is translated is the first of all to go, and the last
// to come; while that changes, both is judged, which neither allows what one of
// them forbids, nor forbids what both allow.
//
// Most changes are one step. Who comes to a group whose cells change at the same
// time waits in a group of its own, whose cells say at once what is to be.

// transition is what the steps are made from.
type transition struct {
	*policies
	from, goal policyView
	change     viewChange // from one to the other

	// others is what is to become of the cells for Others that differ, of subjects
	// that had one.
	others map[policy.Subject]policy.Row
	// come are subjects that have no cells yet.
	come []policy.Subject
	// unsettled are groups that may have members, and cells that differ.
	unsettled map[policy.Group]bool
	ready     map[policy.Group]bool         // what settled has found
	waiting   map[policy.Group]policy.Group // where to wait for a group
	spare     map[policy.Cell]policy.Row    // cells of groups that are new or waited in, until nobody waits
	next      policyView                    // the step that is being made
	steps     []policyView
}

// transition returns the steps to a goal, without those that change nothing.
func (s *policies) transition(goal policyView) []policyView {
	t := transition{
		policies: s, from: s.held, goal: goal, change: s.held.changeTo(&goal).found(), next: s.held,
		others: map[policy.Subject]policy.Row{}, unsettled: map[policy.Group]bool{}, waiting: map[policy.Group]policy.Group{},
		ready: map[policy.Group]bool{}, spare: map[policy.Cell]policy.Row{},
	}
	t.unask()
	t.addRanged()
	t.compare()
	ranges := t.newRanges()
	stayed := t.placePods(ranges != t.from.ranges)
	t.add()
	if ranges != t.from.ranges {
		t.step()
		t.next.ranges = ranges
		t.step()
	}
	if stayed {
		t.placePods(false)
	}
	t.step()
	t.settleCells()
	t.next.pods, t.next.ranges = goal.pods, goal.ranges
	t.step()
	t.next.cells, t.next.rows = goal.cells, goal.rows
	t.step()
	t.next.queries = goal.queries
	t.step()
	t.next.asked = goal.asked
	t.step()
	return t.steps
}

func (t *transition) step() {
	before := t.from
	if n := len(t.steps); n > 0 {
		before = t.steps[n-1]
	}
	if t.next != before {
		t.steps = append(t.steps, t.next)
	}
}

// addRanged adds rows that have ranges of ports before anybody leads to them: the
// kernel makes such ranges known some 100 µs after all else of a transaction
// (nf_tables_commit), and what is not found among them is of all other ports.
func (t *transition) addRanged() {
	for change := range t.change.rows {
		if !change.Had && len(splitPorts(change.New).ranges) > 0 {
			t.next.rows = t.next.rows.With(change.Key, change.New)
		}
	}
	t.step()
}

// unask makes what stops being judged before translation be judged after it.
func (t *transition) unask() {
	both := t.from.asked
	for change := range model.Diff(t.from.asked, t.goal.asked) {
		if !change.Has {
			both = both.Without(change.Key)
		}
	}
	t.next.asked = both
	t.step()
	t.next.queries = both
	t.step()
}

// compare looks at the cells that differ.
func (t *transition) compare() {
	for change := range t.change.cells {
		switch key := change.Key; {
		case key.Group == policy.Others && !change.Had:
			t.come = append(t.come, key.Subject)
		case key.Group == policy.Others:
			t.others[key.Subject] = unrestricted
			if change.Has {
				t.others[key.Subject] = change.New
			}
		case key.Group != policy.Others && t.groups.used(key.Group) && t.restricted(key.Subject):
			t.unsettled[key.Group] = true
		}
	}
}

// restricted tells whether packets look for a subject's cells already.
func (t *transition) restricted(subject policy.Subject) bool {
	_, ok := t.from.cells.Get(policy.Cell{Subject: subject})
	return ok
}

// settled tells whether a group says already what it is to say, or nobody is in
// it yet.
func (t *transition) settled(group policy.Group) bool {
	ready, known := t.ready[group]
	if !known {
		ready = t.settles(group)
		t.ready[group] = ready
	}
	return ready
}

func (t *transition) settles(group policy.Group) bool {
	if group != policy.Others && !t.groups.used(group) {
		return true
	}
	if t.unsettled[group] {
		return false
	}
	for subject := range t.others {
		if _, own := t.goal.cells.Get(policy.Cell{Subject: subject, Group: group}); !own || group == policy.Others {
			return false
		}
	}
	return true
}

// to is where to go first on the way to a group.
func (t *transition) to(group policy.Group) policy.Group {
	if t.settled(group) {
		return group
	}
	if t.waiting[group] == "" {
		t.moves++
		t.waiting[group] = policy.Group(fmt.Sprintf("%s (%d)", group, t.moves))
	}
	return t.waiting[group]
}

// placePods puts pods into their groups. Those whose group cannot take them yet wait,
// also those that leave for good. Who leaves to the group of its range stays, if stay
// is set, until that is what it is to be.
func (t *transition) placePods(stay bool) (stayed bool) {
	t.next.pods = t.goal.pods
	for change := range t.change.pods {
		group := change.New
		if !change.Has {
			group = t.lengths.groupOf(change.Key, t.goal.ranges)
		}
		switch {
		case !t.settled(group):
			t.next.pods = t.next.pods.With(change.Key, t.to(group))
		case !change.Has && stay:
			t.next.pods = t.next.pods.With(change.Key, change.Old)
			stayed = true
		}
	}
	return stayed
}

// newRanges are the ranges as they are to be, and those for addresses that wait
// to be of nobody's.
func (t *transition) newRanges() model.Map[netip.Prefix, policy.Group] {
	ranges := t.goal.ranges
	var gone, come []netip.Prefix
	for change := range t.change.ranges {
		switch {
		case !change.Has:
			gone = append(gone, change.Key)
		case !change.Had || change.Old != change.New:
			come = append(come, change.Key)
			ranges = ranges.With(change.Key, t.to(change.New))
		}
	}
	if len(gone) > 0 && !t.settled(policy.Others) {
		for _, prefix := range uncovered(gone, come) {
			ranges = ranges.With(prefix, t.to(policy.Others))
		}
	}
	return ranges
}

// add adds what nobody leads to yet: rows, cells of groups without members, which
// say all that differs, and cells of pods that nothing restricts yet.
func (t *transition) add() {
	t.next.rows = t.goal.rows
	for change := range t.change.rows {
		if !change.Has {
			t.next.rows = t.next.rows.With(change.Key, change.Old) // until nobody leads to it
		}
	}
	for change := range t.change.cells {
		key := change.Key
		if change.Has && key.Group != policy.Others && (!t.groups.used(key.Group) || !t.restricted(key.Subject)) {
			t.next.cells = t.next.cells.With(key, change.New)
		}
	}
	t.sayWaiting()
	if len(t.others) == 0 {
		return
	}
	for group := range t.newGroups() {
		for subject, row := range t.others {
			cell := policy.Cell{Subject: subject, Group: group}
			if _, own := t.next.cells.Get(cell); !own {
				t.addSpare(cell, row)
			}
		}
	}
}

func (t *transition) addSpare(cell policy.Cell, row policy.Row) {
	t.next.cells = t.next.cells.With(cell, row)
	t.spare[cell] = row
}

// sayWaiting gives groups where others wait the cells that they wait for.
func (t *transition) sayWaiting() {
	for group, where := range t.waiting {
		if group == policy.Others {
			continue
		}
		say := func(subject policy.Subject) {
			if row, ok := t.goal.cells.Get(policy.Cell{Subject: subject, Group: group}); ok {
				t.addSpare(policy.Cell{Subject: subject, Group: where}, row)
			}
		}
		for subject := range t.subjects {
			say(subject)
		}
		for _, subject := range t.come {
			say(subject)
		}
	}
}

// newGroups are those that nobody was in before.
func (t *transition) newGroups() map[policy.Group]struct{} {
	all := map[policy.Group]struct{}{}
	for _, group := range t.waiting {
		all[group] = struct{}{}
	}
	note := func(group policy.Group, has bool) {
		if has && !t.groups.used(group) {
			all[group] = struct{}{}
		}
	}
	for change := range t.change.pods {
		note(change.New, change.Has)
	}
	for change := range t.change.ranges {
		note(change.New, change.Has)
	}
	delete(all, policy.Others)
	return all
}

// settleCells changes the cells of groups that others are in, and then those for
// Others.
func (t *transition) settleCells() {
	for change := range t.change.cells {
		if change.Has && change.Key.Group != policy.Others {
			t.next.cells = t.next.cells.With(change.Key, change.New)
		}
	}
	t.step()
	// What was added for a while stays until nobody waits.
	t.next.cells = t.goal.cells
	for cell, row := range t.spare {
		t.next.cells = t.next.cells.With(cell, row)
	}
	for change := range t.change.cells {
		if change.Key.Group == policy.Others && !change.Has {
			t.next.cells = t.next.cells.With(change.Key, unrestricted)
		}
	}
	t.step()
}

// uncovered are pieces of prefixes that others, which do not overlap, leave.
func uncovered(prefixes, by []netip.Prefix) (left []netip.Prefix) {
	slices.SortFunc(by, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	for _, prefix := range prefixes {
		left = append(left, cut(prefix, by)...)
	}
	return left
}

// cut is for others that are sorted.
func cut(prefix netip.Prefix, by []netip.Prefix) []netip.Prefix {
	from, _ := slices.BinarySearchFunc(by, prefix, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	if from > 0 && by[from-1].Overlaps(prefix) || from < len(by) && by[from].Addr() == prefix.Addr() && by[from].Bits() <= prefix.Bits() {
		return nil
	}
	if from == len(by) || !by[from].Overlaps(prefix) {
		return []netip.Prefix{prefix}
	}
	low := netip.PrefixFrom(prefix.Addr(), prefix.Bits()+1)
	high := netip.PrefixFrom(after(low), prefix.Bits()+1)
	return append(cut(low, by), cut(high, by)...)
}
