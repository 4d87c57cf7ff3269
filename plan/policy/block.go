package policy

import (
	mathbits "math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// blocks say of which peers an address is one, for all blocks of all peers.
// They are immutable: those that differ in a few share the rest.
//
// Of two prefixes, one lies in the other or they do not overlap. So prefixes
// form a tree, and the way to an address meets all that it is in.
type blocks struct{ roots [len(model.Families)]*fork }

// fork is a prefix of a tree. It holds something, or has two halves in which
// there is something.
type fork struct {
	netip.Prefix
	in, out []blockOf // the blocks that are this, and those of which it is an exception
	halves  [2]*fork
	made    *edit // by whom
}

// edit makes blocks. What it has made itself, it may change.
type edit struct{ _ byte }

// blockOf is a block of peers.
type blockOf struct {
	*peers
	number int
}

func newBlocks(all []*peers) *blocks { return (&blocks{}).with(all, nil) }

// with returns the blocks with those of some peers, and without those of others.
func (b *blocks) with(come, gone []*peers) *blocks {
	next, by := *b, &edit{}
	for _, p := range come {
		next.each(p, by, func(of blockOf, to *[]blockOf) { *to = append((*to)[:len(*to):len(*to)], of) })
	}
	for _, p := range gone {
		next.each(p, by, func(of blockOf, to *[]blockOf) {
			*to = slices.DeleteFunc(slices.Clone(*to), func(other blockOf) bool { return other == of })
		})
	}
	return &next
}

// each changes all that the blocks of some peers are at.
func (b *blocks) each(p *peers, by *edit, change func(blockOf, *[]blockOf)) {
	for i := range p.blocks {
		of := blockOf{p, i}
		root := &b.roots[model.FamilyOf(p.blocks[i].within.Addr())]
		*root = (*root).with(p.blocks[i].within, by, func(f *fork) { change(of, &f.in) })
		for _, except := range p.blocks[i].except {
			root := &b.roots[model.FamilyOf(except.Addr())]
			*root = (*root).with(except, by, func(f *fork) { change(of, &f.out) })
		}
	}
}

// with returns the tree in which a prefix is changed.
func (f *fork) with(prefix netip.Prefix, by *edit, change func(*fork)) *fork {
	switch {
	case f == nil:
		f = &fork{Prefix: prefix, made: by}
		change(f)
		return f
	case !f.Contains(prefix.Addr()) || f.Bits() > prefix.Bits():
		above := &fork{Prefix: around(f.Prefix, prefix), made: by}
		above.halves[half(f.Addr(), above.Bits())] = f
		return above.with(prefix, by, change)
	case f.made != by:
		next := *f
		next.made = by
		f = &next
	}
	if f.Prefix == prefix {
		change(f)
	} else {
		below := &f.halves[half(prefix.Addr(), f.Bits())]
		*below = (*below).with(prefix, by, change)
	}
	return f.needed()
}

// needed is what is left of a fork: itself, its only half, or nothing.
func (f *fork) needed() *fork {
	switch {
	case len(f.in) > 0 || len(f.out) > 0 || f.halves[0] != nil && f.halves[1] != nil:
		return f
	case f.halves[0] != nil:
		return f.halves[0]
	}
	return f.halves[1]
}

// around is the longest prefix that two are in.
func around(a, b netip.Prefix) netip.Prefix {
	x, y := a.Addr().AsSlice(), b.Addr().AsSlice()
	bits := min(a.Bits(), b.Bits())
	for i := range x {
		if x[i] != y[i] {
			bits = min(bits, 8*i+mathbits.LeadingZeros8(x[i]^y[i]))
			break
		}
	}
	prefix, _ := a.Addr().Prefix(bits)
	return prefix
}

// half tells in which half of a prefix of so many bits an address is.
func half(addr netip.Addr, bits int) int {
	if addr.Is4() {
		bytes := addr.As4()
		return int(bytes[bits/8] >> (7 - bits%8) & 1)
	}
	bytes := addr.As16()
	return int(bytes[bits/8] >> (7 - bits%8) & 1)
}

// path is what was met on the way to an address.
type path struct{ in, out []blockOf }

func (p *path) meet(f *fork) {
	p.in = append(p.in[:len(p.in):len(p.in)], f.in...)
	p.out = append(p.out[:len(p.out):len(p.out)], f.out...)
}

// peers are those whose blocks were met and whose exceptions were not, sorted.
func (p *path) peers() (all []*peers) {
	for _, of := range p.in {
		if !slices.Contains(p.out, of) {
			all = append(all, of.peers)
		}
	}
	return sorted(all)
}

// to follows the way to a prefix, which it does not meet, and returns what lies
// in that.
func (b *blocks) to(prefix netip.Prefix) (met path, inside *fork) {
	f := b.roots[model.FamilyOf(prefix.Addr())]
	for f != nil && f.Bits() < prefix.Bits() && f.Contains(prefix.Addr()) {
		met.meet(f)
		f = f.halves[half(prefix.Addr(), f.Bits())]
	}
	if f == nil || !prefix.Contains(f.Addr()) || f.Bits() < prefix.Bits() {
		return met, nil
	}
	return met, f
}

// sorted sorts peers by name, and leaves out repetitions.
func sorted(all []*peers) []*peers {
	slices.SortFunc(all, func(x, y *peers) int { return strings.Compare(x.name, y.name) })
	return slices.CompactFunc(all, func(x, y *peers) bool { return x.name == y.name })
}

// of are the peers that an address is one of, sorted.
func (b *blocks) of(addr netip.Addr) []*peers {
	met, at := b.to(model.HostPrefix(addr))
	if at != nil {
		met.meet(at)
	}
	return met.peers()
}

// cut are addresses of the same group.
type cut struct {
	netip.Prefix
	group Group
	peers []*peers
}

// cuts are all addresses of a prefix that are in a block, in prefixes that do not
// overlap.
func (b *blocks) cuts(of netip.Prefix, groups map[string]Group) []cut {
	met, inside := b.to(of)
	at := cut{Prefix: of, peers: met.peers()}
	at.group = groupOfPeers(at.peers, groups)
	return inside.cut(at, met, groups, nil)
}

// cut appends the cuts of a prefix, in which the fork lies with all that is below
// it.
func (f *fork) cut(at cut, met path, groups map[string]Group, all []cut) []cut {
	var below [2]*fork
	switch {
	case f != nil && f.Prefix == at.Prefix:
		if len(f.in) > 0 || len(f.out) > 0 {
			met.meet(f)
			at.peers = met.peers()
			at.group = groupOfPeers(at.peers, groups)
		}
		below = f.halves
	case f != nil:
		below[half(f.Addr(), at.Bits())] = f
	}
	if below == [2]*fork{} {
		if len(at.peers) > 0 {
			all = append(all, at)
		}
		return all
	}
	from, lower, upper := len(all), at, at
	lower.Prefix, upper.Prefix = halves(at.Prefix)
	all = below[0].cut(lower, met, groups, all)
	all = below[1].cut(upper, met, groups, all)
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
