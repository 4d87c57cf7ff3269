package policy

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// planPeers makes matcher and blocks of the peers that are asked for now, and
// finds the pods that those choose which came or went.
func (c *computation) planPeers() {
	changed, choose, block, ported := newMatcher(), false, false, false
	for name, p := range c.peers.set {
		n, _ := c.users.get(name)
		_, had := c.peers.base.Get(name)
		if n == 0 {
			c.peers.remove(name)
		}
		if had == (n > 0) {
			continue
		}
		changed.add(p)
		choose = choose || p.pods != nil || p.anyone
		block = block || len(p.blocks) > 0
		ported = ported || len(p.blocks) > 0 && len(p.names) > 0
	}
	if !choose && !block {
		return
	}
	c.matcher = newMatcher()
	var blocked []*peers
	for _, p := range c.allPeers() {
		c.matcher.add(p)
		if len(p.blocks) > 0 {
			blocked = append(blocked, p)
		}
	}
	if choose && c.before.from.Pods.Len() > 0 {
		c.touchChosen(changed)
	}
	if block {
		c.touchWithin(c.planBlocks(blocked), ported)
	}
}

func (c *computation) allPeers() (all []*peers) {
	for name := range c.peers.base.All() {
		if p, ok := c.peers.get(name); ok {
			all = append(all, p)
		}
	}
	for name, p := range c.peers.set {
		if _, had := c.peers.base.Get(name); !had {
			all = append(all, p)
		}
	}
	return sorted(all)
}

// touchChosen looks again at all pods that some peers choose.
func (c *computation) touchChosen(by *matcher) {
	search := by.search(c.labelsOf)
	var found []*peers
	look := func(name string, of *space) {
		if search.nobody(name) {
			return
		}
		for _, pod := range of.pods.All() {
			if found = search.choosing(pod, found[:0]); len(found) > 0 {
				c.touch(pod)
			}
		}
	}
	for name := range c.spaces.base.All() {
		if of, ok := c.spaces.get(name); ok {
			look(name, of)
		}
	}
	for name, of := range c.spaces.set {
		if _, had := c.spaces.base.Get(name); !had {
			look(name, of)
		}
	}
}

// planBlocks cuts the blocks, and returns the ranges that are others now.
func (c *computation) planBlocks(of []*peers) (changed []netip.Prefix) {
	c.blocks = newBlocks(of)
	next := map[netip.Prefix]struct{}{}
	for _, cut := range c.blocks.cuts() {
		next[cut.Prefix] = struct{}{}
		old, had := c.ranges.base.Get(cut.Prefix)
		if had && old == cut.group {
			continue
		}
		c.join(cut.group, 1, func() []member { return bareMembers(cut.peers) })
		if had {
			c.join(old, -1, nil)
		}
		c.ranges.put(cut.Prefix, cut.group)
		changed = append(changed, cut.Prefix)
	}
	for prefix, old := range c.ranges.base.All() {
		if _, stays := next[prefix]; !stays {
			c.join(old, -1, nil)
			c.ranges.remove(prefix)
			changed = append(changed, prefix)
		}
	}
	return changed
}

// touchWithin looks again at pods in some ranges. Those that nothing but
// addresses chooses are in the ranges' groups anyway, unless ports have names.
func (c *computation) touchWithin(ranges []netip.Prefix, ported bool) {
	if len(ranges) == 0 {
		return
	}
	within := newBlocks([]*peers{{name: "changed", blocks: asBlocks(ranges)}})
	if ported {
		for addr := range c.owners.base.All() {
			if len(within.of(addr)) > 0 {
				c.touched[addr] = struct{}{}
			}
		}
	}
	for addr := range c.pods.base.All() {
		if len(within.of(addr)) > 0 {
			c.touched[addr] = struct{}{}
		}
	}
	for addr := range c.subjects.base.All() {
		if len(within.of(addr)) > 0 {
			c.touched[addr] = struct{}{}
		}
	}
}

func asBlocks(ranges []netip.Prefix) []block {
	all := make([]block, len(ranges))
	for i, prefix := range ranges {
		all[i] = block{within: prefix}
	}
	return all
}

// join counts who is in a group.
func (c *computation) join(g Group, by int, members func() []member) {
	c.grown[g] += by
	if _, known := c.formed[g]; by > 0 && !known {
		c.formed[g] = members()
	}
}

// planGroups finds the groups of the addresses that were touched.
func (c *computation) planGroups() {
	c.signer = c.matcher.search(c.labelsOf)
	for addr := range c.touched {
		var next Group
		var members []member
		if pod, ok := c.owners.get(addr); ok {
			var own bool
			if members, own = sign(c.blocks, c.signer, pod, addr); own {
				next = groupOf(members)
			}
		}
		old, _ := c.pods.base.Get(addr)
		switch {
		case old == next:
			continue
		case next == Others:
			c.pods.remove(addr)
		default:
			c.pods.put(addr, next)
			c.join(next, 1, func() []member { return members })
		}
		if old != Others {
			c.join(old, -1, nil)
		}
	}
	for name, by := range c.grown {
		old, had := c.groups.base.Get(name)
		next := group{members: c.formed[name], size: by}
		if had {
			next.members, next.size = old.members, old.size+by
		}
		if next.size == 0 {
			c.groups.remove(name)
		} else if by != 0 {
			c.groups.put(name, &next)
		}
	}
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
		return bareMembers(c.blocks.of(addr))
	}
	members, _ := sign(c.blocks, c.signer, pod, addr)
	return members
}
