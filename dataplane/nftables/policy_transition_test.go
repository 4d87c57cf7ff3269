package nftables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// TestTransition: whenever one of its lookups is the first that finds the next
// step, a packet becomes what it was before the change, or what it is after it.
func TestTransition(t *testing.T) {
	worlds := uint64(500)
	if testing.Short() {
		worlds = 150
	}
	longest, waited := 0, 0
	for seed := range worlds {
		w := policyWorld{rand.New(rand.NewPCG(seed, 7))}
		var s policies
		s.init()
		for change := range 8 {
			goal := w.view(s.held)
			from, steps := s.held, s.transition(goal)
			for i, step := range steps {
				for _, mixed := range mixtures(s.held, step) {
					before, after := from.says(mixed.subject, mixed.peer), goal.says(mixed.subject, mixed.peer)
					if mixed.row != before && mixed.row != after {
						t.Fatalf("seed %d change %d step %d of %d, before lookup %d: %s of %s is %q; before the change %q, after it %q",
							seed, change, i+1, len(steps), mixed.lookup, mixed.subject, mixed.peer, mixed.row, before, after)
					}
					if _, there := step.rows.Get(mixed.row); !there && mixed.row != allowAll {
						t.Fatalf("seed %d change %d step %d: a packet may be on the way to row %q, which is gone", seed, change, i+1, mixed.row)
					}
				}
				kept := map[policy.Group]uint32{}
				for _, group := range groupsOf(step) {
					kept[group] = s.groups.of(group) // as its elements have it
				}
				s.recount(s.held.changeTo(&step))
				s.held = step
				for group, number := range kept {
					if s.groups.of(group) != number {
						t.Fatalf("seed %d change %d step %d: group %q lost its number", seed, change, i+1, group)
					}
				}
			}
			longest, waited = max(longest, len(steps)), max(waited, s.moves)
			if s.held != goal && (s.held.pods.Len() != goal.pods.Len() || s.held.ranges.Len() != goal.ranges.Len() ||
				s.held.cells != goal.cells || s.held.rows.Len() != goal.rows.Len()) {
				t.Fatalf("seed %d change %d ends elsewhere", seed, change)
			}
			if n := len(s.groups.numbers); n > len(w.groups()) {
				t.Fatalf("seed %d change %d: %d groups have numbers", seed, change, n)
			}
		}
	}
	if longest < 6 || waited == 0 {
		t.Errorf("the longest change has %d steps, and %d groups were waited for: that shows too little", longest, waited)
	}
}

// policyWorld makes random views.
type policyWorld struct{ *rand.Rand }

func (w policyWorld) groups() []policy.Group { return []policy.Group{"a", "b", "c", "d"} }

func peers() (all []netip.Addr) {
	for n := range byte(8) {
		all = append(all, netip.AddrFrom4([4]byte{10, 0, 0, n}))
	}
	return all
}

func subjects() (all []policy.Subject) {
	for _, addr := range peers()[:2] {
		all = append(all, policy.Subject{Direction: model.Ingress, Address: addr})
	}
	return all
}

// view is like another one, but for some things.
func (w policyWorld) view(v policyView) policyView {
	group := func() policy.Group { return w.groups()[w.IntN(4)] }
	for _, addr := range peers() {
		switch w.IntN(8) {
		case 0:
			v.pods = v.pods.Without(addr)
		case 1:
			v.pods = v.pods.With(addr, group())
		}
	}
	if w.IntN(3) == 0 {
		v.ranges = model.Map[netip.Prefix, policy.Group]{}
		w.cut(&v, netip.MustParsePrefix("10.0.0.0/29"))
	}
	for _, subject := range subjects() {
		switch w.IntN(6) {
		case 0:
			for _, group := range append(w.groups(), policy.Others, policy.Itself) {
				v.cells = v.cells.Without(policy.Cell{Subject: subject, Group: group})
			}
		case 1, 2, 3:
			v.cells = v.cells.With(policy.Cell{Subject: subject}, w.row())
			for _, group := range append(w.groups(), policy.Itself) {
				switch cell := (policy.Cell{Subject: subject, Group: group}); w.IntN(3) {
				case 0:
					v.cells = v.cells.With(cell, w.row())
				case 1:
					v.cells = v.cells.Without(cell)
				}
			}
		}
	}
	rows := v.rows
	v.rows = model.Map[policy.Row, *policy.Ports]{}
	for _, row := range v.cells.All() {
		ports, there := rows.Get(row)
		if !there {
			ports = &policy.Ports{Default: denyBy(string(row))}
		}
		v.rows = v.rows.With(row, ports)
	}
	return v
}

func (w policyWorld) row() policy.Row {
	return append([]policy.Row{allowAll}, "r1", "r2", "r3", "r4")[w.IntN(5)]
}

// cut puts some halves of halves of a prefix into groups.
func (w policyWorld) cut(v *policyView, prefix netip.Prefix) {
	switch w.IntN(4) {
	case 0:
		v.ranges = v.ranges.With(prefix, w.groups()[w.IntN(4)])
	case 1, 2:
		if prefix.Bits() < 32 {
			low := netip.PrefixFrom(prefix.Addr(), prefix.Bits()+1)
			w.cut(v, low)
			w.cut(v, netip.PrefixFrom(after(low), prefix.Bits()+1))
		}
	}
}

// groupsOf are those that a view has elements of.
func groupsOf(v policyView) (all []policy.Group) {
	for _, group := range v.pods.All() {
		all = append(all, group)
	}
	for _, group := range v.ranges.All() {
		all = append(all, group)
	}
	for cell := range v.cells.All() {
		all = append(all, cell.Group)
	}
	return all
}

type mixture struct {
	subject policy.Subject
	peer    netip.Addr
	lookup  int // the first that finds what is after it
	row     policy.Row
}

const lookups = 5

func mixtures(before, after policyView) (all []mixture) {
	for _, subject := range subjects() {
		for _, peer := range peers() {
			for lookup := range lookups + 1 {
				all = append(all, mixture{subject, peer, lookup, decided(before, after, subject, peer, lookup)})
			}
		}
	}
	return all
}

// decided is the row that a packet finds as it does in the kernel, if its
// lookups from one on find what is after a change.
func decided(before, after policyView, at policy.Subject, peer netip.Addr, change int) policy.Row {
	view := func(lookup int) *policyView {
		if lookup < change {
			return &before
		}
		return &after
	}
	others, restricted := view(0).cells.Get(policy.Cell{Subject: at})
	if !restricted || others == unrestricted {
		return allowAll
	}
	group, known := policy.Itself, peer == at.Address
	if !known {
		group, known = view(1).pods.Get(peer)
	}
	for bits := 32; bits >= 0 && !known; bits-- {
		prefix, _ := peer.Prefix(bits)
		group, known = view(2).ranges.Get(prefix)
	}
	if !known {
		return others
	}
	row, ok := view(3).cells.Get(policy.Cell{Subject: at, Group: group})
	if !ok {
		row, ok = view(4).cells.Get(policy.Cell{Subject: at})
	}
	switch {
	case !ok:
		return "unfound"
	case row == unrestricted:
		return allowAll
	default:
		return row
	}
}

// says is what the view means, as Plan.Decide says it.
func (v *policyView) says(at policy.Subject, peer netip.Addr) policy.Row {
	plan := policy.Plan{Pods: v.pods, Ranges: v.ranges}
	others, restricted := v.cells.Get(policy.Cell{Subject: at})
	if !restricted {
		return allowAll
	}
	if row, ok := v.cells.Get(policy.Cell{Subject: at, Group: plan.GroupOf(at, peer)}); ok {
		return row
	}
	return others
}

// TestUncovered compares with a look at each address.
func TestUncovered(t *testing.T) {
	for seed := range uint64(500) {
		w := policyWorld{rand.New(rand.NewPCG(seed, 8))}
		var one, other policyView
		w.cut(&one, netip.MustParsePrefix("10.0.0.0/29"))
		w.cut(&other, netip.MustParsePrefix("10.0.0.0/29"))
		left := uncovered(prefixesOf(one), prefixesOf(other))
		for _, addr := range peers() {
			in := func(prefixes []netip.Prefix) (n int) {
				for _, prefix := range prefixes {
					if prefix.Contains(addr) {
						n++
					}
				}
				return n
			}
			want := 0
			if in(prefixesOf(one)) == 1 && in(prefixesOf(other)) == 0 {
				want = 1
			}
			if in(left) != want {
				t.Fatalf("%v without %v is %v", prefixesOf(one), prefixesOf(other), left)
			}
		}
	}
}

func prefixesOf(v policyView) (all []netip.Prefix) {
	for prefix := range v.ranges.All() {
		all = append(all, prefix)
	}
	return all
}

// TestSplitPorts: the maps find of every port what the row says, and ranges are
// left only where they must be.
func TestSplitPorts(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 9))
		ports := randomPorts(random)
		split := splitPorts(ports)
		for _, protocol := range []model.Protocol{1, model.TCP, model.UDP} {
			for port := range 1 << 16 {
				got := ports.Default
				for _, kind := range [][]policy.PortRange{split.protocols, split.ranges, split.single} {
					if at := slices.IndexFunc(kind, func(r policy.PortRange) bool {
						return r.Protocol == protocol && int(r.From) <= port && port <= int(r.To)
					}); at >= 0 {
						got = kind[at].Decision
					}
				}
				if want := ports.Decide(protocol, uint16(port)); got != want {
					t.Fatalf("seed %d: %s %d of %v is %v, want %v", seed, protocol, port, ports, got, want)
				}
			}
		}
	}
	single := policy.Ports{Ranges: []policy.PortRange{
		{Protocol: model.TCP, To: 79, Decision: denyBy("a")}, {Protocol: model.TCP, From: 81, To: 65535, Decision: denyBy("a")},
	}, Default: accept}
	if split := splitPorts(&single); fmt.Sprint(len(split.single), len(split.ranges), len(split.protocols)) != "1 0 1" {
		t.Errorf("all ports but one are %+v", split)
	}
}

func randomPorts(random *rand.Rand) *policy.Ports {
	decisions := []policy.Decision{accept, denyBy("a"), denyBy("b")}
	p := &policy.Ports{Default: decisions[random.IntN(3)]}
	for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
		next := random.IntN(3)
		for range random.IntN(5) {
			last := next + random.IntN(2)*random.IntN(100)
			if random.IntN(6) == 0 {
				last = mostPort
			}
			d := decisions[random.IntN(3)]
			if d != p.Default {
				p.Ranges = append(p.Ranges, policy.PortRange{Protocol: protocol, From: uint16(next), To: uint16(last), Decision: d})
			}
			if next = last + 1 + random.IntN(3); next > mostPort {
				break
			}
		}
	}
	return p
}

// TestTransitionOfQueries: at each moment, egress of a query is judged before it
// is translated or after that, though a packet may meet two steps.
func TestTransitionOfQueries(t *testing.T) {
	q := policy.Query{Protocol: model.UDP, At: netip.MustParseAddrPort("10.96.0.10:53")}
	var with policyView
	with.queries = with.queries.With(q, struct{}{})
	with.asked = with.queries
	for _, change := range [][2]policyView{{{}, with}, {with, {}}} {
		var s policies
		s.init()
		s.held = change[0]
		views := append([]policyView{change[0]}, s.transition(change[1])...)
		if len(views) != 3 {
			t.Errorf("%d steps", len(views)-1)
		}
		for i := range views {
			_, first := views[i].queries.Get(q)
			_, left := views[min(i+1, len(views)-1)].asked.Get(q)
			if !first && left {
				t.Errorf("before step %d, a query is not judged, and after it no more", i+1)
			}
		}
	}
}
