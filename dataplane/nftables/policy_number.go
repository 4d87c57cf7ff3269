package nftables

import (
	"iter"
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// numbering gives things numbers, which they keep while they are used. A number
// that is free again is the last to be given again: a packet that is on its way
// may still carry it.
type numbering[T comparable] struct {
	numbers map[T]uint32
	taken   map[uint32]struct{}
	uses    map[T]int // of those that are not fixed
	fixed   map[T]uint32
	last    uint32
}

func newNumbering[T comparable](fixed map[T]uint32) numbering[T] {
	n := numbering[T]{numbers: map[T]uint32{}, taken: map[uint32]struct{}{}, uses: map[T]int{}, fixed: fixed}
	for _, number := range fixed {
		n.last = max(n.last, number)
		n.taken[number] = struct{}{}
	}
	return n
}

// of is the number of a thing, which is a new one if it has none.
func (n *numbering[T]) of(thing T) uint32 {
	if number, ok := n.fixed[thing]; ok {
		return number
	}
	number, ok := n.numbers[thing]
	if !ok {
		for n.last++; n.isTaken(n.last); n.last++ {
		}
		number = n.last
		n.numbers[thing], n.taken[number] = number, struct{}{}
	}
	return number
}

func (n *numbering[T]) isTaken(number uint32) bool {
	_, taken := n.taken[number]
	return taken
}

// used tells whether something in the kernel has the number of a thing.
func (n *numbering[T]) used(thing T) bool {
	_, fixed := n.fixed[thing]
	return fixed || n.uses[thing] > 0
}

// use says how many more, or less, have the numbers of things, all at once: what
// goes in one place and comes in another keeps its number.
func (n *numbering[T]) use(more map[T]int) {
	for thing, more := range more {
		if _, fixed := n.fixed[thing]; fixed {
			continue
		}
		if n.uses[thing] += more; n.uses[thing] == 0 {
			delete(n.uses, thing)
			delete(n.taken, n.numbers[thing])
			delete(n.numbers, thing)
		}
	}
}

// recount follows a change of what the kernel holds.
func (s *policies) recount(changed viewChange) {
	groups, rows, rules := map[policy.Group]int{}, map[policy.Row]int{}, map[policy.Rule]int{}
	count(groups, changed.pods, func(_ netip.Addr, group policy.Group) policy.Group { return group })
	count(groups, changed.ranges, func(_ netip.Prefix, group policy.Group) policy.Group { return group })
	count(groups, changed.cells, func(cell policy.Cell, _ policy.Row) policy.Group { return cell.Group })
	count(rows, changed.rows, func(row policy.Row, _ *policy.Ports) policy.Row { return row })
	for change := range changed.cells {
		switch {
		case change.Key.Group != policy.Others:
		case change.Has:
			s.subjects[change.Key.Subject] = struct{}{}
		default:
			delete(s.subjects, change.Key.Subject)
		}
	}
	other := false
	for change := range changed.rows {
		other = true
		if change.Had {
			tally(rules, denials(change.Old), -1)
		}
		if change.Has {
			tally(rules, denials(change.New), 1)
		}
	}
	s.groups.use(groups)
	s.rows.use(rows)
	if other {
		s.rename(rules)
	}
}

// unname says that the numbers of rules begin anew.
func (s *policies) unname() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.names) > 0 { // it was not said before, of the same table
		s.former, s.names = s.names, map[uint32]policy.Rule{}
	}
}

// count adds how many more have what an entry has a number of.
func count[K, V comparable, T comparable](more map[T]int, changes iter.Seq[model.Change[K, V]], of func(K, V) T) {
	for change := range changes {
		if change.Had {
			more[of(change.Key, change.Old)]--
		}
		if change.Has {
			more[of(change.Key, change.New)]++
		}
	}
}

func tally[T comparable](more map[T]int, all []T, by int) {
	for _, one := range all {
		more[one] += by
	}
}

// rename says how many more, or less, have the numbers of rules, and which rules have
// which numbers then. Those that go are known until the next time: a log may be read
// later. Those of a table that was replaced are, until the time after it is filled.
func (s *policies) rename(more map[policy.Rule]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.names) > 0 || s.former == nil {
		s.former = map[uint32]policy.Rule{}
	}
	for rule := range more {
		if number, ok := s.rules.numbers[rule]; ok {
			delete(s.names, number)
			s.former[number] = rule
		}
	}
	s.rules.use(more)
	for rule := range more {
		if number, ok := s.rules.numbers[rule]; ok {
			s.names[number] = rule
		}
	}
}
