package nftables

import (
	"fmt"
	"net/netip"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
)

// prefixSet is a set of prefixes that do not overlap. In the kernel it is one
// interval set for each family, its name followed by 4 or 6.
type prefixSet struct {
	dataplane.Delta[netip.Prefix, struct{}]
	name    string
	comment string
	id      uint32 // of the IPv4 set; the next is of the IPv6 set. A set of a batch is named by it
}

func (s *prefixSet) of(family model.Family) *nft.Set {
	set := &nft.Set{
		Table: ourTable(), Name: s.name + "4", ID: s.id, Comment: s.comment,
		KeyType: nft.TypeIPAddr, Interval: true,
	}
	if family == model.IPv6 {
		set.Name, set.ID, set.KeyType = s.name+"6", s.id+1, nft.TypeIP6Addr
	}
	return set
}

// create adds the sets with all that they should hold.
func (s *prefixSet) create(conn *nft.Conn) error {
	for _, family := range model.Families {
		if err := conn.AddSet(s.of(family), nil); err != nil {
			return fmt.Errorf("add set %s: %w", s.of(family).Name, err)
		}
	}
	return s.update(conn)
}

// update changes the elements that differ. It deletes first, in the same
// transaction: the kernel refuses an interval that overlaps one that it still
// has, and packets see all or nothing anyway.
func (s *prefixSet) update(conn *nft.Conn) error {
	var puts, removals [len(model.Families)][]nft.SetElement
	for prefix := range s.Removals() {
		family := model.FamilyOf(prefix.Addr())
		removals[family] = append(removals[family], interval(prefix)...)
	}
	for prefix := range s.Puts() {
		family := model.FamilyOf(prefix.Addr())
		puts[family] = append(puts[family], interval(prefix)...)
	}
	for _, family := range model.Families {
		set := s.of(family)
		if err := inPieces(set, removals[family], conn.SetDeleteElements); err != nil {
			return fmt.Errorf("delete from set %s: %w", set.Name, err)
		}
		if err := inPieces(set, puts[family], conn.SetAddElements); err != nil {
			return fmt.Errorf("add to set %s: %w", set.Name, err)
		}
	}
	return nil
}

// settle says that the kernel has taken what create or update sent.
func (s *prefixSet) settle() {
	for prefix := range s.Puts() {
		s.Did(prefix, struct{}{})
	}
	for prefix := range s.Removals() {
		s.Removed(prefix)
	}
}

// inPieces keeps each list below the 64 KiB that the length of a netlink
// attribute can say.
func inPieces(set *nft.Set, elements []nft.SetElement, send func(*nft.Set, []nft.SetElement) error) error {
	const most = 512
	for len(elements) > 0 {
		n := min(most, len(elements))
		if err := send(set, elements[:n]); err != nil {
			return err
		}
		elements = elements[n:]
	}
	return nil
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
