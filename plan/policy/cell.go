package policy

import (
	"maps"
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// planCells says what pods of this node say to groups: new profiles to all that
// they tell apart, the others to groups that are new.
func (c *computation) planCells() {
	born, dead := c.bornAndDead()
	anew := map[*profile]struct{}{} // those that differ in cells alone
	for key, old := range c.profiles.base.All() {
		if len(born)+len(dead) == 0 {
			break
		}
		p, ok := c.profiles.get(key)
		if !ok || p != old {
			continue
		}
		if next := old.adjusted(c, born, dead); next != old {
			c.profiles.put(key, next)
			anew[next] = struct{}{}
		}
	}
	for _, p := range c.profiles.set {
		if _, filled := anew[p]; !filled {
			p.fill(c)
		}
	}
	for key := range c.profiles.changed() {
		c.holdRows(key)
	}
	c.planAllSubjects()
}

// holdRows counts a profile, too, as a user of its rows: a pod that is expected finds
// them there.
func (c *computation) holdRows(key profileKey) {
	old, _ := c.profiles.base.Get(key)
	next, _ := c.profiles.get(key)
	for _, d := range model.Directions {
		for change := range model.Diff(old.cellsOf(d), next.cellsOf(d)) {
			if change.Has {
				c.hold(change.New)
			}
			if change.Had {
				c.release(change.Old)
			}
		}
	}
}

// bornAndDead are the groups that came and went, with their members.
func (c *computation) bornAndDead() (born, dead map[Group]*group) {
	born, dead = map[Group]*group{}, map[Group]*group{}
	for name, g := range c.groups.set {
		if _, had := c.groups.base.Get(name); !had {
			born[name] = g
		}
	}
	for name := range c.groups.gone {
		if g, had := c.groups.base.Get(name); had {
			dead[name] = g
		}
	}
	return born, dead
}

// fill makes the cells of a profile that is new, before anybody else sees it.
func (p *profile) fill(c *computation) {
	for d := range p.sides {
		s := &p.sides[d]
		if !s.restricts() {
			continue
		}
		cells := draft[Group, Row]{}
		others := c.row(s, &group{}, false)
		cells.put(Others, others)
		for name, g := range c.told(s) {
			if made := c.row(s, g, false); made != others {
				cells.put(name, made)
			}
		}
		s.cells = cells.done()
	}
}

// told are the groups that a side tells apart; see tells.
func (c *computation) told(s *side) map[Group]*group {
	all := map[Group]*group{}
	tell := func(name Group) {
		if g, ok := c.groups.get(name); ok && s.tells(g) {
			all[name] = g
		}
	}
	for name := range s.peers {
		of, _ := c.among.get(name)
		for name := range of.All() {
			tell(name)
		}
	}
	if s.calls && c.nameserver != nil {
		for _, addr := range c.nameserver.pod.Addresses {
			if name, ok := c.pods.get(addr); ok {
				tell(name)
			}
		}
	}
	return all
}

// adjusted is the profile with cells for groups that were born, and without
// those of groups that died.
func (p *profile) adjusted(c *computation, born, dead map[Group]*group) *profile {
	next := *p
	for d := range p.sides {
		s := &next.sides[d]
		if !s.restricts() {
			continue
		}
		others, _ := s.cells.Get(Others)
		for name := range dead {
			s.cells = s.cells.Without(name)
		}
		for name, g := range born {
			if !s.tells(g) {
				continue
			}
			if made := c.row(s, g, false); made != others {
				s.cells = s.cells.With(name, made)
			}
		}
	}
	for d := range p.sides {
		if next.sides[d].cells != p.sides[d].cells {
			return &next
		}
	}
	return p
}

// said is what a side says to those whom the same rules fit.
type said struct {
	*side
	rules   string
	itself  bool
	shifted bool // there is one group of such
}

// row is what a side says to members of a group.
func (c *computation) row(s *side, g *group, itself bool) Row {
	rules, key := s.fit(g.members)
	as := said{s, key, itself, s.calls && g.shifts != nil}
	if row, known := c.said[as]; known {
		return row
	}
	ports := s.ports(rules, itself)
	if as.shifted {
		ports = ports.shifted(g.shifts)
	}
	row := ports.Row()
	c.made[row], c.said[as] = ports, row
	return row
}

// planAllSubjects gives each pod of this node the cells of its profile.
func (c *computation) planAllSubjects() {
	unknowns := map[model.PodKey]*profile{}
	for addr, s := range c.subjectsToPlan() {
		var p *profile
		switch {
		case s.pod != nil:
			p, _ = c.profiles.get(s.key)
		case s.profile != nil && s.profile.unknown == s.who && s.profile.pod == nil:
			p = s.profile // still unknown
		default:
			if p = unknowns[s.who]; p == nil {
				p = c.unknown(s.who)
				unknowns[s.who] = p
			}
		}
		_, again := c.touched[addr]
		_, changed := c.subjects.set[addr]
		if p != s.profile || again || changed {
			c.planSubjectCells(addr, s, p)
		}
	}
}

// subjectsToPlan are those whose cells may differ: all, if profiles changed.
func (c *computation) subjectsToPlan() map[netip.Addr]*subject {
	if len(c.profiles.set) > 0 {
		return maps.Collect(c.subjects.all())
	}
	some := maps.Clone(c.subjects.set)
	for addr := range c.touched {
		if s, ok := c.subjects.get(addr); ok {
			if some == nil {
				some = map[netip.Addr]*subject{}
			}
			some[addr] = s
		}
	}
	return some
}

// planSubjectCells gives an address the cells of a profile, and those of its pod
// that calls itself: they follow from what that is a member of.
func (c *computation) planSubjectCells(addr netip.Addr, s *subject, p *profile) {
	next := &subject{who: s.who, pod: s.pod, key: s.key, profile: p}
	if s.pod != nil && p.restricts() {
		members := c.membersOf(s.pod, addr)
		next.among = groupOf(members)
		if next.itself = s.itself; p != s.profile || s.among != next.among {
			next.itself = c.itselfOf(p, members)
		}
	}
	for _, d := range model.Directions {
		at := Subject{d, addr}
		c.planSide(at, s.cellsOf(d), p.sides[d].cells)
		c.planItself(at, s.itself[d], next.itself[d])
	}
	c.subjects.put(addr, next)
}

// itselfOf are the rows of pods of a profile that call themselves, and are members
// of the same; empty: that of others.
func (c *computation) itselfOf(p *profile, members []member) (rows [len(model.Directions)]Row) {
	for d := range p.sides {
		side := &p.sides[d]
		if others, ok := side.cells.Get(Others); ok {
			if made := c.row(side, &group{members: members}, true); made != others {
				rows[d] = made
			}
		}
	}
	return rows
}

// planSide changes the cells of an address from those of one profile to those
// of the next.
func (c *computation) planSide(at Subject, old, next model.Map[Group, Row]) {
	for change := range model.Diff(old, next) {
		if change.Has {
			c.cells.put(Cell{at, change.Key}, change.New)
			c.hold(change.New)
		} else {
			c.cells.remove(Cell{at, change.Key})
		}
		if change.Had {
			c.release(change.Old)
		}
	}
}

func (c *computation) planItself(at Subject, old, next Row) {
	if old == next {
		return
	}
	if next != "" {
		c.cells.put(Cell{at, Itself}, next)
		c.hold(next)
	} else {
		c.cells.remove(Cell{at, Itself})
	}
	if old != "" {
		c.release(old)
	}
}

// hold and release count who leads to a row.
func (c *computation) hold(to Row) {
	c.rowUsers.add(to, 1)
	ports, known := c.before.Rows.Get(to)
	if !known {
		ports = c.made[to]
	}
	c.rows.put(to, ports)
}

func (c *computation) release(from Row) {
	if c.rowUsers.add(from, -1) == 0 {
		c.rows.remove(from)
	}
}
