package nftables

import (
	"net/netip"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/model"
)

// prefixes are elements that are prefixes, no two of which overlap: in the
// kernel, an interval set for each family.
type prefixes = elements[netip.Prefix, struct{}]

func newPrefixes(name, comment, named string) prefixes {
	return prefixes{
		sets: perFamily(name, comment, func(set *nft.Set, address nft.SetDatatype) {
			set.KeyType, set.Interval = address, true
		}),
		encode: func(prefix netip.Prefix, _ struct{}) (int, []nft.SetElement) {
			return int(model.FamilyOf(prefix.Addr())), interval(prefix)
		},
		named: func(prefix netip.Prefix) string { return named + " " + prefix.String() },
	}
}

// perFamily are two sets or maps of our table, their names followed by 4 and 6.
func perFamily(name, comment string, complete func(set *nft.Set, address nft.SetDatatype)) []*nft.Set {
	sets := []*nft.Set{{Name: name + "4"}, {Name: name + "6"}}
	for family, address := range []nft.SetDatatype{nft.TypeIPAddr, nft.TypeIP6Addr} {
		sets[family].Comment = comment
		complete(sets[family], address)
	}
	return sets
}

// interval is a prefix as elements of an interval set: its first address and
// the first one after it, unless it reaches the end of the address space.
func interval(prefix netip.Prefix) []nft.SetElement {
	prefix = prefix.Masked()
	elements := []nft.SetElement{{Key: prefix.Addr().AsSlice()}}
	if end := after(prefix); end.IsValid() {
		elements = append(elements, nft.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
	return elements
}

// after is the first address above a prefix, invalid if there is none.
func after(prefix netip.Prefix) netip.Addr {
	last := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(last)
	return addr.Next()
}
