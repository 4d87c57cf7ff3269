package nftables

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
	"github.com/fairlead-net/fairlead/plan/service"
)

// policyEdits are the elements that differ between what the kernel holds and
// what it is to hold next.
type policyEdits struct {
	*policies
	next           policyView
	removals, puts map[*nft.Set]pieces
}

func newPolicyEdits(s *policies, next policyView) *policyEdits {
	e := &policyEdits{policies: s, next: next, removals: map[*nft.Set]pieces{}, puts: map[*nft.Set]pieces{}}
	e.editMembers()
	e.editCells()
	e.editRows()
	e.editQueries()
	return e
}

// send puts them into a batch. What is removed goes first, since the kernel
// refuses another value of a key that it has.
func (e *policyEdits) send(b *batch) error {
	for _, set := range e.kernel() {
		if err := e.removals[set].send(b, set, (*nft.Conn).SetDeleteElements); err != nil {
			return fmt.Errorf("delete from set %s: %w", set.Name, err)
		}
	}
	for _, set := range e.kernel() {
		if err := e.puts[set].send(b, set, (*nft.Conn).SetAddElements); err != nil {
			return fmt.Errorf("add to set %s: %w", set.Name, err)
		}
	}
	return nil
}

func (e *policyEdits) remove(set *nft.Set, aside func(error), elements ...nft.SetElement) {
	for i := range elements {
		elements[i].Val = nil
	}
	e.removals[set] = append(e.removals[set], piece{elements, aside})
}

func (e *policyEdits) put(set *nft.Set, aside func(error), elements ...nft.SetElement) {
	e.puts[set] = append(e.puts[set], piece{elements, aside})
}

// editMembers changes who is in which group.
func (e *policyEdits) editMembers() {
	for change := range e.change.pods {
		set, aside := e.families[model.FamilyOf(change.Key)].pods, e.leave(change.Key)
		element := func(group policy.Group) nft.SetElement {
			return nft.SetElement{Key: change.Key.AsSlice(), Val: native(e.groups.of(group))}
		}
		if change.Had {
			e.remove(set, aside, element(change.Old))
		}
		if change.Has {
			e.put(set, aside, element(change.New))
		}
	}
	for change := range e.change.ranges {
		set, aside := e.families[model.FamilyOf(change.Key.Addr())].ranges, e.leave(change.Key)
		elements := func(group policy.Group) []nft.SetElement {
			both := interval(change.Key)
			both[0].Val = native(e.groups.of(group))
			return both
		}
		if change.Had {
			e.remove(set, aside, elements(change.Old)...)
		}
		if change.Has {
			e.put(set, aside, elements(change.New)...)
		}
	}
}

// editQueries changes which egress is judged before it is translated.
func (e *policyEdits) editQueries() {
	edit := func(before, after model.Map[policy.Query, struct{}], set func(*policyMaps) *nft.Set) {
		for change := range model.Diff(before, after) {
			q := change.Key
			element := nft.SetElement{Key: vipKey(service.VIP(q))}
			of := set(&e.families[model.FamilyOf(q.At.Addr())])
			if change.Had {
				e.remove(of, e.fail, element)
			} else {
				e.put(of, e.fail, element)
			}
		}
	}
	edit(e.held.queries, e.next.queries, func(m *policyMaps) *nft.Set { return m.queries })
	edit(e.held.asked, e.next.asked, func(m *policyMaps) *nft.Set { return m.asked })
}

// editCells changes what pods of this node say to groups.
func (e *policyEdits) editCells() {
	for change := range e.change.cells {
		key := change.Key
		m, aside := &e.families[model.FamilyOf(key.Address)], e.close(key.Subject)
		element := func(row policy.Row) nft.SetElement {
			return nft.SetElement{
				Key: append(native(e.groups.of(key.Group)), key.Address.AsSlice()...), Val: native(e.rows.of(row)),
			}
		}
		if change.Had {
			e.remove(m.cells[key.Direction], aside, element(change.Old))
		}
		if change.Has {
			e.put(m.cells[key.Direction], aside, element(change.New))
		}
		if key.Group == policy.Others && change.Had != change.Has {
			e.editItself(key.Subject)
		}
	}
}

// editItself follows a subject that comes or goes. Of a pod that does so in both
// directions at once, that of ingress tells.
func (e *policyEdits) editItself(subject policy.Subject) {
	had, has := [2]bool{}, [2]bool{}
	for _, direction := range model.Directions {
		cell := policy.Cell{Subject: policy.Subject{Direction: direction, Address: subject.Address}}
		_, had[direction] = e.held.cells.Get(cell)
		_, has[direction] = e.next.cells.Get(cell)
	}
	if subject.Direction == model.Egress && had[model.Ingress] != has[model.Ingress] {
		return
	}
	set, addr := e.families[model.FamilyOf(subject.Address)].itself, subject.Address.AsSlice()
	element := nft.SetElement{Key: append(addr, addr...)}
	switch before, after := had[0] || had[1], has[0] || has[1]; {
	case before && !after:
		e.remove(set, e.close(subject), element)
	case !before && after:
		e.put(set, e.close(subject), element)
	}
}

// editRows adds rows and removes them; they never change. The rules that deny
// come and go with them.
func (e *policyEdits) editRows() {
	rules := map[policy.Rule]int{}
	for change := range e.change.rows {
		if change.Had && change.Has {
			continue
		}
		ports, more, edit := change.New, 1, e.put
		if change.Had {
			ports, more, edit = change.Old, -1, e.remove
		}
		tally(rules, denials(ports), more)
		if change.Key == allowAll {
			continue
		}
		for _, element := range e.rowElements(e.rows.of(change.Key), ports) {
			edit(element.set, e.closeRow(change.Key), nft.SetElement{Key: element.key, KeyEnd: element.end, Val: element.value})
		}
	}
	for rule, more := range rules {
		before := e.rules.uses[rule]
		number := native(e.rules.of(rule))
		for _, set := range e.denied {
			switch {
			case before == 0 && more > 0:
				e.put(set, e.fail, nft.SetElement{Key: number, Val: number})
			case before > 0 && before+more == 0:
				e.remove(set, e.fail, nft.SetElement{Key: number})
			}
		}
	}
}

// decided is the number of a decision.
func (s *policies) decided(d policy.Decision) uint32 {
	if d.Accept {
		return 0
	}
	return s.rules.of(d.By)
}

// rowElements are those of a row.
func (s *policies) rowElements(row uint32, ports *policy.Ports) []element {
	number := func(d policy.Decision) []byte { return native(s.decided(d)) }
	all := []element{{set: s.defaults, key: native(row), value: number(ports.Default)}}
	split := splitPorts(ports)
	for _, p := range split.protocols {
		all = append(all, element{set: s.protocols, key: append(native(row), byte(p.Protocol), 0, 0, 0), value: number(p.Decision)})
	}
	for _, p := range split.single {
		key := appendPort(append(native(row), byte(p.Protocol), 0, 0, 0), p.From)
		all = append(all, element{set: s.ports, key: key, value: number(p.Decision)})
	}
	for _, p := range split.ranges {
		prefix := append(binary.BigEndian.AppendUint32(nil, row), byte(p.Protocol), 0, 0, 0)
		all = append(all, element{
			set: s.portRanges, key: appendPort(prefix[:len(prefix):len(prefix)], p.From), end: appendPort(prefix, p.To),
			value: number(p.Decision),
		})
	}
	return all
}

// close says what becomes of a subject if the kernel refuses an element: all of
// it is denied.
func (s *policies) close(subject policy.Subject) func(error) {
	return func(err error) {
		if s.closed[subject] != nil {
			s.stuck(err)
			return
		}
		if s.closed == nil {
			s.closed = map[policy.Subject]error{}
		}
		s.closed[subject], s.steps = err, nil
	}
}

func (s *policies) closeRow(row policy.Row) func(error) {
	return func(err error) {
		if s.left[row] != nil {
			s.stuck(err)
		}
		s.leaveOut(row, err)
		for cell, leads := range s.desired.cells.All() {
			if leads == row && s.closed[cell.Subject] == nil {
				s.close(cell.Subject)(err)
			}
		}
		s.steps = nil
	}
}

// leave says the same of an address or a prefix: it is in no group.
func (s *policies) leave(member any) func(error) {
	return func(err error) {
		s.leaveOut(member, err)
		var group policy.Group
		switch at := member.(type) {
		case netip.Addr:
			group, _ = s.desired.pods.Get(at)
		case netip.Prefix:
			group, _ = s.desired.ranges.Get(at)
		}
		s.closeLooser(group, err)
		s.steps = nil
	}
}

func (s *policies) leaveOut(what any, err error) {
	if s.left == nil {
		s.left = map[any]error{}
	}
	s.left[what] = err
}

// stuck says that the kernel refuses what was to deny, unless something else of
// the same step was refused, which is made anew.
func (s *policies) stuck(err error) {
	if len(s.steps) > 0 {
		s.fail(err)
	}
}

func (s *policies) fail(err error) { s.broken, s.steps = err, nil }

// refused implements mirror.
func (s *policies) refused(node string) (problems []model.Problem) {
	for subject, err := range s.closed {
		problems = append(problems, model.Problem{
			Kind: "Node", Name: node, Field: fmt.Sprintf("policy %s %s", subject.Address, subject.Direction), Reason: "KernelRefused",
			Message: fmt.Sprintf("the kernel refused an element of its nftables maps, so all %s of this pod is denied: %v", subject.Direction, why(err)),
			Remedy:  "see nft list table inet fairlead on the node, and report it with the output of fairlead status",
		})
	}
	for member, err := range s.left {
		if _, ok := member.(policy.Row); ok {
			continue // its pods are named
		}
		problems = append(problems, model.Problem{
			Kind: "Node", Name: node, Field: fmt.Sprintf("policy %s", member), Reason: "KernelRefused",
			Message: fmt.Sprintf("the kernel refused it as an element of its nftables maps, so policies do not know these addresses; pods that would allow them too much are denied all: %v", why(err)),
			Remedy:  "see nft list table inet fairlead on the node, and report it with the output of fairlead status",
		})
	}
	return problems
}
