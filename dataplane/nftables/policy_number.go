package nftables

import (
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

// use says that so many more have the number.
func (n *numbering[T]) use(thing T, more int) {
	if _, fixed := n.fixed[thing]; fixed {
		return
	}
	if n.uses[thing] += more; n.uses[thing] == 0 {
		delete(n.uses, thing)
		delete(n.taken, n.numbers[thing])
		delete(n.numbers, thing)
	}
}

// recount follows a change of what the kernel holds.
func (s *policies) recount(from, to policyView) {
	count := func(had, has bool, old, next policy.Group) {
		if has {
			s.groups.use(next, 1)
		}
		if had {
			s.groups.use(old, -1)
		}
	}
	for change := range model.Diff(from.pods, to.pods) {
		count(change.Had, change.Has, change.Old, change.New)
	}
	for change := range model.Diff(from.ranges, to.ranges) {
		count(change.Had, change.Has, change.Old, change.New)
	}
	for change := range model.Diff(from.cells, to.cells) {
		count(change.Had, change.Has, change.Key.Group, change.Key.Group)
	}
	for change := range model.Diff(from.rows, to.rows) {
		for _, rows := range []struct {
			there bool
			ports *policy.Ports
			more  int
		}{{change.Has, change.New, 1}, {change.Had, change.Old, -1}} {
			if !rows.there {
				continue
			}
			s.rows.use(change.Key, rows.more)
			for _, rule := range denials(rows.ports) {
				s.rules.use(rule, rows.more)
			}
		}
	}
	if from.rows != to.rows {
		s.rename()
	}
}

// rename says which rules have which numbers now. Those that had until then are
// known until the next time: a log may be read later.
func (s *policies) rename() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.former, s.names = s.names, map[uint32]policy.Rule{}
	for rule, number := range s.rules.numbers {
		s.names[number] = rule
	}
}
