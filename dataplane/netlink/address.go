package netlink

import (
	"net"
	"net/netip"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/plan/route"
)

func addressItem() item[route.Address, struct{}] {
	return item[route.Address, struct{}]{
		named: func(a route.Address) string { return "address " + a.Prefix.String() },
		asked: func(a route.Address, _ struct{}) string {
			return "address " + a.Prefix.String() + " dev " + a.Device
		},
	}
}

func (b *batch) putAddresses() error {
	return put(b, &b.addresses, addressItem(), func(a route.Address, _ struct{}) error {
		address, err := b.address(a)
		if err != nil {
			return err
		}
		return b.handle.AddrReplace(nil, address)
	})
}

func (b *batch) removeAddresses() error {
	return remove(b, &b.addresses, addressItem(), func(a route.Address, _ struct{}) error {
		address, err := b.address(a)
		if err != nil {
			return err
		}
		return b.handle.AddrDel(nil, address)
	})
}

func (b *batch) address(a route.Address) (*rtnl.Addr, error) {
	index, err := b.index(a.Device)
	if err != nil {
		return nil, err
	}
	address := &rtnl.Addr{
		IPNet:     ipNet(a.Prefix),
		LinkIndex: index,
		// All routes are ours to make.
		Flags: unix.IFA_F_NOPREFIXROUTE,
	}
	if a.Prefix.Addr().Is6() {
		// Nobody on a tunnel would answer that the address is taken, and until
		// it is known to be free no route can have it as its source.
		address.Flags |= unix.IFA_F_NODAD
	}
	return address, nil
}

// observeAddresses reads back the addresses of our devices. Link-local ones are
// the kernel's.
func (b *batch) observeAddresses(ours map[int]string) error {
	var addresses []rtnl.Addr
	err := dump("addresses", func() (err error) {
		addresses, err = b.handle.AddrList(nil, rtnl.FAMILY_ALL)
		return err
	})
	if err != nil {
		return err
	}
	found := map[route.Address]struct{}{}
	for _, address := range addresses {
		device, ok := ours[address.LinkIndex]
		prefix := prefixOf(address.IPNet)
		if ok && !prefix.Addr().IsLinkLocalUnicast() {
			found[route.Address{Device: device, Prefix: prefix}] = struct{}{}
		}
	}
	b.addresses.Observe(found)
	return nil
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}
}

// prefixOf converts from the library; it is invalid for nil.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
