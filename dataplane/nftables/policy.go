package nftables

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// policies are the sets and maps that say what pods may send and receive: see
// docs/adr/0008. What a lookup finds is kept as the priority of the packet
// until the next one, as with Services.
type policies struct {
	families                               [len(model.Families)]policyMaps
	ports, portRanges, protocols, defaults *nft.Set                        // of rows
	denied                                 [len(model.Directions)]*nft.Set // by rule, with counters

	desired, applied policyView   // what plans say
	whole            bool         // the kernel holds all of applied
	held             policyView   // what the kernel holds
	cut              bool         // connections that are forbidden end: see addMidstream
	steps            []policyView // what it is to hold next, up to desired
	change           viewChange   // what the next one changes
	moves            int          // how many groups were made to get there; see transition

	groups numbering[policy.Group]
	rows   numbering[policy.Row]
	rules  numbering[policy.Rule]

	subjects map[policy.Subject]struct{} // those with cells in the kernel
	lengths  lengths                     // of ranges

	closed map[policy.Subject]error // what the kernel has refused during this Apply: these deny all
	left   map[any]error            // the same of addresses, prefixes and rows, which are left out
	broken error                    // it refuses what must be there

	mu            sync.Mutex
	names, former map[uint32]policy.Rule // rules, by their numbers: now, and until a moment ago
}

// policyView is what the maps hold, in the words of a plan.
type policyView struct {
	pods   model.Map[netip.Addr, policy.Group]
	ranges model.Map[netip.Prefix, policy.Group]
	cells  model.Map[policy.Cell, policy.Row]
	rows   model.Map[policy.Row, *policy.Ports]
	// queries are judged before they are translated, and those of asked not after.
	// They differ while the plan's queries change: meanwhile both is done.
	queries, asked model.Map[policy.Query, struct{}]
}

// policyMaps are those of a family.
type policyMaps struct {
	family       model.Family
	pods, ranges *nft.Set                        // address: group
	cells        [len(model.Directions)]*nft.Set // group and pod of this node: row
	itself       *nft.Set                        // pods that have rows, twice: as both ends of a connection

	queries, asked *nft.Set // of policyView
}

// Numbers that are always the same. A decision is 0, or that of a rule that
// denies.
const (
	groupOthers = 0
	groupItself = 1
	rowAll      = 1 // all is accepted; no map has it
	rowNone     = 2 // in the place of the row for others: nothing is restricted
)

// allowAll is the row that accepts all.
var allowAll = (&policy.Ports{Default: policy.Decision{Accept: true}}).Row()

// unrestricted is the row for others of a subject that nothing restricts any
// more, until its cells are gone.
const unrestricted policy.Row = "unrestricted"

func (s *policies) init() {
	s.names = map[uint32]policy.Rule{}
	row := nft.TypeClassID
	port := nft.MustConcatSetType(row, nft.TypeInetProto, nft.TypeInetService)
	mapOf := func(name, comment string, key nft.SetDatatype) *nft.Set {
		return &nft.Set{Name: name, Comment: comment, IsMap: true, KeyType: key, DataType: nft.TypeClassID}
	}
	s.ports = mapOf("policy-ports", "row and port: the rule that denies, 0:0 of none", port)
	s.portRanges = mapOf("policy-port-ranges", "the same for ranges", port)
	s.protocols = mapOf("policy-protocols", "the same for all other ports", nft.MustConcatSetType(row, nft.TypeInetProto))
	s.defaults = mapOf("policy-rows", "the same for all else", row)
	s.portRanges.Interval, s.portRanges.Concatenation = true, true
	for _, direction := range model.Directions {
		s.denied[direction] = &nft.Set{
			Name: "policy-denied-" + direction.String(), Comment: "what rules deny, and the mark that logs have of it",
			IsMap: true, Counter: true, KeyType: nft.TypeClassID, DataType: nft.TypeMark,
		}
	}
	for _, family := range model.Families {
		s.families[family] = newPolicyMaps(family)
	}
	s.forget()
}

func newPolicyMaps(family model.Family) policyMaps {
	suffix, address := [...]string{"4", "6"}[family], []nft.SetDatatype{nft.TypeIPAddr, nft.TypeIP6Addr}[family]
	mapOf := func(name, comment string, key nft.SetDatatype) *nft.Set {
		return &nft.Set{Name: name + suffix, Comment: comment, IsMap: true, KeyType: key, DataType: nft.TypeClassID}
	}
	m := policyMaps{
		family: family,
		pods:   mapOf("policy-pods", "in which group pods are", address),
		ranges: mapOf("policy-ranges", "in which group other addresses are", address),
		itself: &nft.Set{
			Name: "policy-itself" + suffix, Comment: "pods of this node that reach themselves",
			KeyType: nft.MustConcatSetType(address, address),
		},
	}
	m.ranges.Interval = true
	query := nft.MustConcatSetType(address, nft.TypeInetProto, nft.TypeInetService)
	m.queries = &nft.Set{Name: "policy-queries" + suffix, Comment: "DNS: egress is judged before it is translated", KeyType: query}
	m.asked = &nft.Set{Name: "policy-asked" + suffix, Comment: "DNS: egress is not judged after that", KeyType: query}
	cell := nft.MustConcatSetType(nft.TypeClassID, address)
	m.cells[model.Ingress] = mapOf("policy-ingress", "group and pod of this node: row", cell)
	m.cells[model.Egress] = mapOf("policy-egress", "group and pod of this node: row", cell)
	return m
}

// kernel implements mirror.
func (s *policies) kernel() []*nft.Set {
	sets := []*nft.Set{s.ports, s.portRanges, s.protocols, s.defaults}
	sets = append(sets, s.denied[:]...)
	for i := range s.families {
		m := &s.families[i]
		sets = append(append(sets, m.pods, m.ranges, m.itself, m.queries, m.asked), m.cells[:]...)
	}
	return sets
}

// Desire says what should be.
func (s *policies) Desire(plan *policy.Plan) {
	s.desired, s.cut = policyView{plan.Pods, plan.Ranges, plan.Cells, plan.Rows, plan.Queries, plan.Queries}, plan.CutEstablished
}

// Pending is 0 if nothing differs.
func (s *policies) Pending() int {
	if s.whole && s.applied == s.desired {
		return 0
	}
	return 1
}

// more tells whether the kernel holds only a step of what should be.
func (s *policies) more() bool { return len(s.steps) > 0 }

// create adds the sets and the chains, and all that there should be, which
// nobody sees before it is whole.
func (s *policies) create(b *batch) error {
	if s.broken != nil {
		return s.broken
	}
	for _, set := range s.kernel() {
		s.describe(b, set)
		if err := b.AddSet(set, nil); err != nil {
			return fmt.Errorf("add set %s: %w", set.Name, err)
		}
	}
	s.steps = []policyView{s.goal()}
	if err := s.addChains(b); err != nil {
		return err
	}
	s.change = s.held.changeTo(&s.steps[0])
	edits := newPolicyEdits(s, s.steps[0])
	return edits.send(b)
}

func (s *policies) describe(b *batch, set *nft.Set) {
	switch {
	case set == s.defaults || slices.Contains(s.denied[:], set):
		b.describe(set, described{hostKey: true, hostData: true})
	case set.IsMap:
		b.describe(set, described{hostData: true})
	}
}

// update sends the next step.
func (s *policies) update(b *batch) error {
	if s.broken != nil {
		return s.broken
	}
	if len(s.steps) == 0 {
		if s.Pending() == 0 {
			return nil
		}
		s.steps = s.transition(s.goal())
	}
	if len(s.steps) == 0 {
		return nil
	}
	s.change = s.held.changeTo(&s.steps[0]).found()
	edits := newPolicyEdits(s, s.steps[0])
	return edits.send(b)
}

// goal is what should be, but for what the kernel has refused.
func (s *policies) goal() policyView {
	goal := s.desired
	for at := range s.left {
		switch at := at.(type) {
		case netip.Addr:
			goal.pods = goal.pods.Without(at)
		case netip.Prefix:
			goal.ranges = goal.ranges.Without(at)
		case policy.Row:
			goal.rows = goal.rows.Without(at)
		}
	}
	if len(s.closed) == 0 {
		return goal
	}
	for cell := range s.desired.cells.All() {
		if s.closed[cell.Subject] != nil {
			goal.cells = goal.cells.Without(cell)
		}
	}
	for subject := range s.closed {
		none := &policy.Ports{Default: policy.Decision{By: policy.Rule{
			Policy: model.PolicyKey{Name: subject.Address.String()}, Rule: policy.Unknown,
		}}}
		goal.rows = goal.rows.With(none.Row(), none)
		goal.cells = goal.cells.With(policy.Cell{Subject: subject}, none.Row())
	}
	return goal
}

// settle says that the kernel has taken what create or update sent.
func (s *policies) settle() {
	if len(s.steps) > 0 {
		s.recount(s.change)
		s.held, s.steps, s.change = s.steps[0], s.steps[1:], viewChange{}
	}
	s.applied, s.whole = s.desired, len(s.steps) == 0 && len(s.closed) == 0 && len(s.left) == 0
}

// forget says that the kernel holds nothing. Numbers begin anew: no packet carries
// one from table to table.
func (s *policies) forget() {
	s.groups = newNumbering(map[policy.Group]uint32{policy.Others: groupOthers, policy.Itself: groupItself})
	s.rows = newNumbering(map[policy.Row]uint32{allowAll: rowAll, unrestricted: rowNone})
	s.rules = newNumbering[policy.Rule](nil)
	s.subjects = map[policy.Subject]struct{}{}
	s.unname()
	s.applied, s.whole, s.held, s.steps, s.change = policyView{}, false, policyView{}, nil, viewChange{}
}

// retry gives what was put aside another chance.
func (s *policies) retry() {
	if len(s.closed) > 0 || len(s.left) > 0 || s.broken != nil {
		s.closed, s.left, s.broken, s.steps = nil, nil, nil, nil
	}
}
