package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// blocks say of which peers an address is one, for all blocks of all peers.
// They are immutable.
//
// Of two prefixes, one lies in the other or they do not overlap. So the longest
// prefix that an address is in says it all.
type blocks struct {
	at      map[netip.Prefix][]*peers // sorted by name
	lengths [len(model.Families)][]int
}

// blockOf is a block of peers.
type blockOf struct {
	*peers
	number int
}

func newBlocks(all []*peers) *blocks {
	b := &blocks{at: map[netip.Prefix][]*peers{}}
	in, out := map[netip.Prefix][]blockOf{}, map[netip.Prefix][]blockOf{}
	note := func(prefix netip.Prefix) {
		if _, known := b.at[prefix]; known {
			return
		}
		b.at[prefix] = nil
		family := model.FamilyOf(prefix.Addr())
		if !slices.Contains(b.lengths[family], prefix.Bits()) {
			b.lengths[family] = append(b.lengths[family], prefix.Bits())
		}
	}
	for _, p := range all {
		for i := range p.blocks {
			of := blockOf{p, i}
			note(p.blocks[i].within)
			in[p.blocks[i].within] = append(in[p.blocks[i].within], of)
			for _, except := range p.blocks[i].except {
				note(except)
				out[except] = append(out[except], of)
			}
		}
	}
	for _, family := range model.Families {
		slices.SortFunc(b.lengths[family], func(x, y int) int { return cmp.Compare(y, x) })
	}
	for prefix := range b.at {
		b.at[prefix] = b.judge(prefix, in, out)
	}
	return b
}

// judge finds the peers whose blocks a prefix lies in and whose exceptions it
// does not.
func (b *blocks) judge(prefix netip.Prefix, in, out map[netip.Prefix][]blockOf) (all []*peers) {
	var within []blockOf
	excepted := map[blockOf]struct{}{}
	for _, bits := range b.lengths[model.FamilyOf(prefix.Addr())] {
		if bits > prefix.Bits() {
			continue
		}
		around, _ := prefix.Addr().Prefix(bits)
		within = append(within, in[around]...)
		for _, of := range out[around] {
			excepted[of] = struct{}{}
		}
	}
	for _, of := range within {
		if _, is := excepted[of]; !is {
			all = append(all, of.peers)
		}
	}
	return sorted(all)
}

// sorted sorts peers by name, and leaves out repetitions.
func sorted(all []*peers) []*peers {
	slices.SortFunc(all, func(x, y *peers) int { return strings.Compare(x.name, y.name) })
	return slices.CompactFunc(all, func(x, y *peers) bool { return x.name == y.name })
}

// of are the peers that an address is one of, sorted.
func (b *blocks) of(addr netip.Addr) []*peers {
	for _, bits := range b.lengths[model.FamilyOf(addr)] {
		prefix, _ := addr.Prefix(bits)
		if all, ok := b.at[prefix]; ok {
			return all
		}
	}
	return nil
}

// cut are addresses of the same group.
type cut struct {
	netip.Prefix
	group Group
	peers []*peers
}

// cuts are all addresses that are in a block, in prefixes that do not overlap.
func (b *blocks) cuts() (all []cut) {
	var inside [len(model.Families)][]netip.Prefix
	for prefix := range b.at {
		family := model.FamilyOf(prefix.Addr())
		inside[family] = append(inside[family], prefix)
	}
	groups := map[string]Group{}
	for _, family := range model.Families {
		slices.SortFunc(inside[family], netip.Prefix.Compare)
		everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if family == model.IPv6 {
			everything = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		all = b.cut(cut{Prefix: everything}, inside[family], groups, all)
	}
	return all
}

// cut appends the cuts of a prefix, in which all others lie that are given,
// sorted.
func (b *blocks) cut(at cut, inside []netip.Prefix, groups map[string]Group, all []cut) []cut {
	if len(inside) > 0 && inside[0] == at.Prefix {
		at.peers = b.at[at.Prefix]
		at.group = groupOfPeers(at.peers, groups)
		inside = inside[1:]
	}
	if len(inside) == 0 {
		if len(at.peers) > 0 {
			all = append(all, at)
		}
		return all
	}
	lower, upper := at, at
	lower.Prefix, upper.Prefix = halves(at.Prefix)
	first := slices.IndexFunc(inside, func(p netip.Prefix) bool { return upper.Contains(p.Addr()) })
	if first < 0 {
		first = len(inside)
	}
	from := len(all)
	all = b.cut(lower, inside[:first], groups, all)
	all = b.cut(upper, inside[first:], groups, all)
	if made := all[from:]; len(made) == 2 && made[0].Prefix == lower.Prefix && made[1].Prefix == upper.Prefix && made[0].group == made[1].group {
		made[0].Prefix = at.Prefix
		all = all[:from+1]
	}
	return all
}

// groupOfPeers is the group of an address that is no pod's.
func groupOfPeers(all []*peers, known map[string]Group) Group {
	if len(all) == 0 {
		return Others
	}
	var key strings.Builder
	for _, p := range all {
		key.WriteString(p.name)
		key.WriteByte('\n')
	}
	group, ok := known[key.String()]
	if !ok {
		group = groupOf(bareMembers(all))
		known[key.String()] = group
	}
	return group
}

// bareMembers are those of an address that is no pod's, and so has no named ports.
func bareMembers(all []*peers) []member {
	members := make([]member, len(all))
	for i, p := range all {
		members[i] = member{peers: p}
	}
	return members
}

// halves cuts a prefix in two.
func halves(p netip.Prefix) (lower, upper netip.Prefix) {
	bits := p.Bits()
	bytes := p.Addr().AsSlice()
	bytes[bits/8] |= 0x80 >> (bits % 8)
	addr, _ := netip.AddrFromSlice(bytes)
	return netip.PrefixFrom(p.Addr(), bits+1), netip.PrefixFrom(addr, bits+1)
}
