package nftables

import (
	"errors"
	"fmt"
	"slices"

	nft "github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
)

// elements are the entries of a part of the plan as those of sets or maps of
// the table.
type elements[K, V comparable] struct {
	dataplane.Delta[K, V]
	sets   []*nft.Set
	encode func(K, V) (set int, _ []nft.SetElement) // an entry: in which of the sets, and what of it
	named  func(K) string                           // in the words of plan.Text
	aside  map[K]error                              // what the kernel has refused during this Apply
}

// mirror is elements of any type.
type mirror interface {
	kernel() []*nft.Set
	create(b *batch) error
	update(b *batch) error
	settle()
	forget()
	retry()
	refused(node string) []model.Problem
	Pending() int
}

func (e *elements[K, V]) kernel() []*nft.Set { return e.sets }

// create adds the sets with all that they should hold.
func (e *elements[K, V]) create(b *batch) error {
	for _, set := range e.sets {
		if err := b.AddSet(set, nil); err != nil {
			return fmt.Errorf("add set %s: %w", set.Name, err)
		}
	}
	return e.update(b)
}

// update changes the elements that differ. It deletes first, in the same
// transaction: the kernel refuses an interval that overlaps one that it still
// has, and a key that has another value; and packets see all or nothing anyway.
func (e *elements[K, V]) update(b *batch) error {
	puts, removals := make([]pieces, len(e.sets)), make([]pieces, len(e.sets))
	for key, value := range e.Removals() {
		e.add(removals, key, value, true)
	}
	for key, value := range e.Puts() {
		if e.aside[key] != nil {
			continue
		}
		if old, ok := e.Actual(key); ok {
			e.add(removals, key, old, true)
		}
		e.add(puts, key, value, false)
	}
	for i, set := range e.sets {
		if err := removals[i].send(b, set, (*nft.Conn).SetDeleteElements); err != nil {
			return fmt.Errorf("delete from set %s: %w", set.Name, err)
		}
	}
	for i, set := range e.sets {
		if err := puts[i].send(b, set, (*nft.Conn).SetAddElements); err != nil {
			return fmt.Errorf("add to set %s: %w", set.Name, err)
		}
	}
	return nil
}

func (e *elements[K, V]) add(to []pieces, key K, value V, bare bool) {
	set, encoded := e.encode(key, value)
	if bare {
		for i := range encoded {
			encoded[i].Val = nil
		}
	}
	to[set] = append(to[set], piece{encoded, func(err error) {
		if e.aside == nil {
			e.aside = map[K]error{}
		}
		e.aside[key] = err
	}})
}

// settle says that the kernel has taken what create or update sent.
func (e *elements[K, V]) settle() {
	for key, value := range e.Puts() {
		if e.aside[key] == nil {
			e.Did(key, value)
		}
	}
	for key := range e.Removals() {
		e.Removed(key)
	}
}

// forget says that the kernel holds nothing.
func (e *elements[K, V]) forget() { e.Observe(nil) }

// retry gives what was put aside another chance.
func (e *elements[K, V]) retry() { e.aside = nil }

func (e *elements[K, V]) refused(node string) (problems []model.Problem) {
	for key, err := range e.aside {
		if _, wanted := e.Wanted(key); wanted {
			problems = append(problems, model.Problem{
				Kind: "Node", Name: node, Field: e.named(key), Reason: "KernelRefused",
				Message: fmt.Sprintf("the kernel refused it as an element of its nftables set: %v", why(err)),
				Remedy:  "see nft list table inet fairlead on the node, and report it with the output of fairlead status",
			})
		}
	}
	return problems
}

// why says what a refusal means where the kernel's word for it is about files.
func why(err error) error {
	if errors.Is(err, unix.ENFILE) {
		return fmt.Errorf("there is no room for it (%w)", err)
	}
	return err
}

// literal adds a set that one rule has to itself.
func (b *batch) literal(of nft.SetDatatype, values ...nft.SetElement) (*nft.Set, error) {
	const first = 1000 // above the numbers of other sets
	b.literals++
	set := &nft.Set{
		Table: ourTable(), ID: first + b.literals, Name: "__set%d", Anonymous: true, Constant: true,
		KeyType: of,
	}
	b.elements = append(b.elements, nil)
	if err := b.AddSet(set, values); err != nil {
		return nil, fmt.Errorf("add a set of values: %w", err)
	}
	return set, nil
}

// piece is an entry, and what puts it aside.
type piece struct {
	encoded []nft.SetElement
	aside   func(error)
}

type pieces []piece

// send packs as many entries into a message as the batch says. The library makes
// the message, its body is made here.
func (p pieces) send(b *batch, set *nft.Set, send func(*nft.Conn, *nft.Set, []nft.SetElement) error) error {
	b = b.holds(set)
	for part := range slices.Chunk(p, b.most) {
		var aside func(error)
		if b.most == oneByOne {
			aside = part[0].aside
		}
		if err := send(b.Conn, set, nil); err != nil {
			return err
		}
		if b.bodies == nil {
			b.bodies = map[int][]byte{}
		}
		b.bodies[len(b.elements)] = elementsMessage(set, part)
		b.elements = append(b.elements, aside)
	}
	return nil
}
