package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// planPeers makes matcher and blocks of the peers that are asked for now, and
// finds the pods that those choose which came or went.
func (c *computation) planPeers() {
	ported := false
	var come, gone []*peers     // of those with blocks
	var choose, chosen []*peers // that come, and that are gone, of those that choose pods
	var named []*peers
	hosts := false
	for name := range c.users.changed() {
		n, _ := c.users.get(name)
		p, had := c.peers.base.Get(name)
		if n == 0 {
			c.peers.remove(name)
		}
		if had == (n > 0) {
			continue
		}
		to, pods := &gone, &chosen
		if !had {
			p, _ = c.peers.get(name)
			to, pods = &come, &choose
		}
		if p.domain != "" {
			named = append(named, p)
		}
		hosts = hosts || p.nodes != nil
		if p.pods != nil || p.anyone {
			*pods = append(*pods, p)
		}
		if len(p.blocks) > 0 {
			*to = append(*to, p)
			ported = ported || len(p.names) > 0
		}
	}
	if len(choose)+len(chosen) > 0 {
		c.matcher = c.matcher.with(choose, chosen)
		if c.owners.base.Len() > 0 {
			c.comeBack(choose)
			c.eachChosen(choose, c.touch)
			c.leave(chosen)
		}
	}
	if len(named) > 0 {
		c.planDomains(named)
	}
	if len(come)+len(gone) > 0 {
		c.planBlocks(come, gone, ported)
	}
	c.planHosts(hosts)
}

func (c *computation) allPeers() (all []*peers) {
	for _, p := range c.peers.all() {
		all = append(all, p)
	}
	return sorted(all)
}

// eachChosen visits all pods that some peers choose. What is known of labels is
// remembered where peers are many; of a few, it takes longer than to ask them.
func (c *computation) eachChosen(some []*peers, visit func(*model.Pod)) {
	const few = 16
	if len(some) == 0 {
		return
	}
	by := newMatcher().with(some, nil)
	search := by.search(c.labelsOf)
	var asked, found []*peers
	look := func(name string, of *space) {
		if search.nobody(name) {
			return
		}
		if labels := c.labelsOf(name); len(some) <= few {
			asked = asked[:0]
			for _, p := range some {
				if p.anyone || p.pods.namespaces.Matches(labels) {
					asked = append(asked, p)
				}
			}
		}
		for _, pod := range of.pods.All() {
			if len(some) <= few {
				if slices.ContainsFunc(asked, func(p *peers) bool { return p.chooses(pod) }) {
					visit(pod)
				}
			} else if found = search.choosing(pod, found[:0]); len(found) > 0 {
				visit(pod)
			}
		}
	}
	if names, told := c.spacesOf(by); told {
		for _, name := range names {
			if of, ok := c.spaces.get(name); ok {
				look(name, of)
			}
		}
		return
	}
	for name, of := range c.spaces.all() {
		look(name, of)
	}
}

// planBlocks cuts again what lies in the blocks that came and went.
func (c *computation) planBlocks(come, gone []*peers, ported bool) {
	before := c.blocks
	c.blocks = before.with(come, gone)
	var changed []netip.Prefix
	for _, p := range slices.Concat(come, gone) {
		for _, block := range p.blocks {
			changed = append(changed, block.within)
		}
	}
	changed = outermost(changed)
	again := changed
	if len(changed) > c.ranges.base.Len()/8 {
		again = []netip.Prefix{model.AllOf(model.IPv4), model.AllOf(model.IPv6)}
	}
	known := map[string]Group{}
	for _, prefix := range again {
		c.recut(prefix, before, known)
	}
	for prefix, next := range c.ranges.set {
		old, had := c.ranges.base.Get(prefix)
		if had && old == next {
			continue
		}
		c.join(next, 1, func() group { return group{members: bareMembers(c.blocks.of(prefix.Addr()))} })
		if had {
			c.join(old, -1, nil)
		}
	}
	for prefix := range c.ranges.gone {
		if old, had := c.ranges.base.Get(prefix); had {
			c.join(old, -1, nil)
		}
	}
	c.touchWithin(changed, ported)
}

// outermost are the prefixes that do not lie in others of them.
func outermost(all []netip.Prefix) (some []netip.Prefix) {
	slices.SortFunc(all, netip.Prefix.Compare)
	for _, prefix := range all {
		if n := len(some); n == 0 || !some[n-1].Overlaps(prefix) {
			some = append(some, prefix)
		}
	}
	return some
}

// recut makes the ranges of a prefix anew, or of the range that it is part of.
// Those around it may differ from what they should be only where another prefix
// is still to be recut.
func (c *computation) recut(prefix netip.Prefix, before *blocks, known map[string]Group) {
	within, whole := prefix, false
	for bits := prefix.Bits(); bits >= 0 && !whole; bits-- {
		within, _ = prefix.Addr().Prefix(bits)
		_, whole = c.ranges.get(within)
	}
	if whole {
		c.ranges.remove(within)
	} else {
		within = prefix
		for _, old := range before.cuts(within, known) {
			c.ranges.remove(old.Prefix)
		}
	}
	made := c.blocks.cuts(within, known)
	for _, cut := range made {
		c.ranges.put(cut.Prefix, cut.group)
	}
	for len(made) == 1 && made[0].Prefix == within && within.Bits() > 0 {
		above, _ := within.Addr().Prefix(within.Bits() - 1)
		lower, upper := halves(above)
		first, one := c.ranges.get(lower)
		second, other := c.ranges.get(upper)
		if !one || !other || first != second {
			return
		}
		c.ranges.remove(lower)
		c.ranges.remove(upper)
		c.ranges.put(above, first)
		made[0].Prefix, within = above, above
	}
}

// touchWithin looks again at pods in some prefixes. Those that nothing but
// addresses chooses are in the ranges' groups anyway, unless ports have names.
func (c *computation) touchWithin(prefixes []netip.Prefix, ported bool) {
	const few = 16 // to ask one by one
	within := func(addr netip.Addr) bool {
		return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	if len(prefixes) > few {
		blocks := newBlocks([]*peers{{name: "changed", blocks: asBlocks(prefixes)}})
		within = func(addr netip.Addr) bool { return len(blocks.of(addr)) > 0 }
	}
	touch := func(addr netip.Addr) {
		if within(addr) {
			c.touched[addr] = struct{}{}
		}
	}
	if ported {
		for addr := range c.owners.base.All() {
			touch(addr)
		}
	}
	if !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return slices.ContainsFunc(c.before.reach[:], p.Overlaps) }) {
		return // blocks are mostly of the world outside
	}
	for addr := range c.pods.base.All() {
		touch(addr)
	}
	for addr := range c.subjects.base.All() {
		touch(addr)
	}
}

// reached is what all addresses lie in that a plan puts into groups or restricts, by
// family: those of before, too, since to look too far costs time alone.
func (c *computation) reached() [len(model.Families)]netip.Prefix {
	reach := c.before.reach
	widen := func(addr netip.Addr) {
		within := &reach[model.FamilyOf(addr)]
		if !within.IsValid() {
			*within = model.HostPrefix(addr)
		}
		for within.Bits() > 0 && !within.Contains(addr) {
			*within = netip.PrefixFrom(within.Addr(), within.Bits()-1).Masked()
		}
	}
	for addr := range c.pods.set {
		widen(addr)
	}
	for addr := range c.subjects.set {
		widen(addr)
	}
	return reach
}

func asBlocks(prefixes []netip.Prefix) []block {
	all := make([]block, len(prefixes))
	for i, prefix := range prefixes {
		all[i] = block{within: prefix}
	}
	return all
}

// join counts who is in a group.
func (c *computation) join(g Group, by int, of func() group) {
	c.grown[g] += by
	if _, known := c.formed[g]; by > 0 && !known {
		c.formed[g] = of()
	}
}

// planGroups finds the groups of the addresses that were touched.
func (c *computation) planGroups() {
	c.signer = c.matcher.search(c.labelsOf)
	for addr := range c.touched {
		if _, late := c.later.get(addr); late {
			c.later.remove(addr)
		}
		var next Group
		var of group
		if pod, ok := c.owners.get(addr); ok {
			var own bool
			of.members, own = sign(c.blocks, c.signer, pod, addr)
			if own {
				next = groupOf(of.members)
			}
			if of.shifts = c.nameserver.shiftsOf(pod); of.shifts != nil {
				next = Group(brief(fmt.Sprintf("%s (%s)", groupOf(of.members), of.shifts)))
			}
		} else if members := c.ownMembers(addr); members != nil {
			of.members, next = members, groupOf(members)
		}
		old, _ := c.pods.base.Get(addr)
		switch {
		case old == next:
			continue
		case next == Others:
			c.pods.remove(addr)
		default:
			c.pods.put(addr, next)
			c.join(next, 1, func() group { return of })
		}
		if old != Others {
			c.join(old, -1, nil)
		}
	}
	for name, by := range c.grown {
		old, had := c.groups.base.Get(name)
		next := c.formed[name]
		if had {
			next = *old
		}
		next.size += by
		if next.size == 0 {
			c.groups.remove(name)
			c.list(name, next.members, false)
		} else if by != 0 {
			c.groups.put(name, &next)
			if !had {
				c.list(name, next.members, true)
			}
		}
	}
}

// list notes or forgets who the members of a group are.
func (c *computation) list(name Group, members []member, on bool) {
	for _, m := range members {
		of, _ := c.among.get(m.name)
		if on {
			of = of.With(name, struct{}{})
		} else {
			of = of.Without(name)
		}
		if of.Len() == 0 {
			c.among.remove(m.name)
		} else {
			c.among.put(m.name, of)
		}
	}
}

// ownMembers are what an address is a member of that is no pod's; nil if it is as
// its range.
func (c *computation) ownMembers(addr netip.Addr) []member {
	var names []string
	if resolved, ok := c.snapshot.Resolved.Get(addr); ok {
		names = resolved.Names
	}
	at, _ := c.hosts.get(addr)
	return c.unowned().own(names, at, addr)
}

// sign tells what a pod is a member of, sorted by name; own is whether others
// with addresses in the same range are not.
func sign(b *blocks, by *search, pod *model.Pod, addr netip.Addr) (members []member, own bool) {
	ranged := b.of(addr)
	all := sorted(append(by.choosing(pod, nil), ranged...))
	own = len(all) != len(ranged)
	members = make([]member, len(all))
	for i, p := range all {
		members[i] = p.member(pod)
		own = own || members[i].ports != nil
	}
	return members, own
}

// membersOf are what a pod that calls itself is a member of.
func (c *computation) membersOf(pod *model.Pod, addr netip.Addr) []member {
	if !isPeer(pod) {
		resolved, _ := c.snapshot.Resolved.Get(addr)
		at, _ := c.hosts.get(addr)
		return c.unowned().members(resolved, at, addr)
	}
	members, _ := sign(c.blocks, c.signer, pod, addr)
	return members
}
