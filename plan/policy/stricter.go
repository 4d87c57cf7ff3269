package policy

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Stricter tells whether this plan may forbid a connection that could be there,
// since a former plan allowed it. It is true more often than it has to be, but
// not for pods that come, to this node or to another, and get what they are
// allowed. What a former plan that is nil allowed, is not known.
func (p *Plan) Stricter(former *Plan) bool {
	if former == nil || p.Ranges != former.Ranges || p.Queries != former.Queries {
		return true
	}
	if p.tidies(former) {
		return false
	}
	if p.forgets(former) || p.profiles != former.profiles && p.lapsed() {
		return true // what Keeps allows is in no cell
	}
	c := comparison{former, p, map[[2]Row]bool{}}
	for change := range model.Diff(former.Cells, p.Cells) {
		if former.knows(change.Key.Address) && c.stricter(change.Key.Subject, change.Key.Group, change.Key.Group) {
			return true
		}
	}
	return c.movedToStricter()
}

// tidies tells whether nothing differs that plans are made from.
func (p *Plan) tidies(former *Plan) bool {
	return p.from != nil && former.from != nil && alike(p.from, former.from) && p.nameserver == former.nameserver && p.idle == former.idle
}

// lapsed tells whether there are addresses to which names do not lead any more.
func (p *Plan) lapsed() bool {
	if p.from == nil {
		return false
	}
	for _, resolved := range p.from.Resolved.All() {
		if len(resolved.Lapsed) > 0 {
			return true
		}
	}
	return false
}

// forgets tells whether this plan does not know any more that a name led somewhere.
func (p *Plan) forgets(former *Plan) bool {
	if p.from == nil || former.from == nil {
		return false
	}
	for change := range model.Diff(former.from.Resolved, p.from.Resolved) {
		if !change.Had {
			continue
		}
		for _, name := range change.Old.Lapsed {
			if !change.Has || !slices.Contains(change.New.Lapsed, name) && !slices.Contains(change.New.Names, name) {
				return true
			}
		}
	}
	return false
}

// knows tells whether a pod of this node had an address. A plan that was not
// computed does not tell.
func (p *Plan) knows(addr netip.Addr) bool {
	_, known := p.claims.Get(addr)
	return known || p.from == nil
}

// comparison is of two plans.
type comparison struct {
	former, next *Plan
	seen         map[[2]Row]bool // whether the second forbids what the first allows
}

// movedToStricter looks at addresses that are in other groups now, and at what
// all pods of this node say to those.
func (c *comparison) movedToStricter() bool {
	var subjects []Subject
	moves := map[[2]Group]bool{}
	for change := range model.Diff(c.former.Pods, c.next.Pods) {
		move := [2]Group{c.former.GroupOf(Subject{}, change.Key), c.next.GroupOf(Subject{}, change.Key)}
		if moves[move] {
			continue
		}
		moves[move] = true
		if subjects == nil {
			subjects = c.restricted()
		}
		for _, at := range subjects {
			if c.stricter(at, move[0], move[1]) {
				return true
			}
		}
	}
	return false
}

// restricted are those that say anything, which have a cell for Others.
func (c *comparison) restricted() (all []Subject) {
	for cell := range c.next.Cells.All() {
		if cell.Group == Others {
			all = append(all, cell.Subject)
		}
	}
	return all
}

// stricter compares what is said to who was in one group and is in another.
func (c *comparison) stricter(at Subject, was, is Group) bool {
	before, after := c.former.row(at, was), c.next.row(at, is)
	if before == after || after == "" {
		return false
	}
	stricter, seen := c.seen[[2]Row{before, after}]
	if !seen {
		stricter = c.next.ports(after).forbids(c.former.ports(before))
		c.seen[[2]Row{before, after}] = stricter
	}
	return stricter
}

// row is what a pod of this node says to a group; empty: nothing restricts it.
func (p *Plan) row(at Subject, group Group) Row {
	row, ok := p.Cells.Get(Cell{at, group})
	if !ok {
		row, _ = p.Cells.Get(Cell{at, Others})
	}
	return row
}

func (p *Plan) ports(row Row) *Ports {
	if ports, ok := p.Rows.Get(row); ok {
		return ports
	}
	return &Ports{Default: Decision{Accept: true}}
}

// forbids tells whether there is a port that former ports accept and these do
// not.
func (p *Ports) forbids(former *Ports) bool {
	differ := func(protocol model.Protocol, port uint16) bool {
		return former.Decide(protocol, port).Accept && !p.Decide(protocol, port).Accept
	}
	if former.Default.Accept && !p.Default.Accept {
		return true // there is always a protocol of which no range is
	}
	for _, ports := range []*Ports{former, p} {
		for _, r := range ports.Ranges {
			if differ(r.Protocol, 0) || differ(r.Protocol, r.From) || r.To < 65535 && differ(r.Protocol, r.To+1) {
				return true
			}
		}
	}
	return false
}
