package netlink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/plan/route"
)

// noAddressGeneration is IN6_ADDR_GEN_MODE_NONE: the device gets no link-local
// address, and so no neighbour discovery, which would lead nowhere on it.
const noAddressGeneration = 1

func vxlanItem() item[string, route.VXLAN] {
	return item[string, route.VXLAN]{
		named: func(name string) string { return "link " + name },
		asked: func(name string, v route.VXLAN) string {
			return fmt.Sprintf("link %s vxlan id %d dstport %d local %s dev %s mtu %d address %s",
				name, v.VNI, v.Port, v.Local, v.Device, v.MTU, v.MAC)
		},
	}
}

// putVXLANs tells whether a device that was there was changed or made anew. What
// was on it may have gone: the kernel drops the neighbours of a device whose MAC
// changes, permanent ones as well.
func (b *batch) putVXLANs() (disturbed bool, err error) {
	err = put(b, &b.vxlans, vxlanItem(), func(name string, want route.VXLAN) error {
		have, there := b.vxlans.Actual(name)
		if !there {
			return b.addVXLAN(want)
		}
		disturbed = true
		mended := have
		mended.MTU, mended.MAC = want.MTU, want.MAC
		if mended == want {
			return b.mendVXLAN(have, want)
		}
		// The kernel cannot change the rest of a device that is in use.
		if err := b.removeVXLAN(name); err != nil && !gone(err) {
			return err
		}
		b.vxlans.Removed(name)
		return b.addVXLAN(want)
	})
	return disturbed, err
}

func (b *batch) removeVXLANs() error {
	return remove(b, &b.vxlans, vxlanItem(), func(name string, _ route.VXLAN) error {
		return b.removeVXLAN(name)
	})
}

func (b *batch) addVXLAN(want route.VXLAN) error {
	uplink, err := b.index(want.Device)
	if err != nil {
		return err
	}
	attrs := rtnl.NewLinkAttrs()
	attrs.Name = want.Name
	attrs.MTU = want.MTU
	// Given at creation, so that the kernel calls it set by an administrator:
	// systemd's MACAddressPolicy replaces any other.
	attrs.HardwareAddr = net.HardwareAddr(want.MAC[:])
	device := &rtnl.Vxlan{
		LinkAttrs:    attrs,
		VxlanId:      int(want.VNI),
		VtepDevIndex: uplink,
		SrcAddr:      want.Local.AsSlice(),
		Port:         int(want.Port),
	}
	if err := b.handle.LinkAdd(device); err != nil {
		return fmt.Errorf("add the device: %w", err)
	}
	b.indexes[want.Name] = device.Index
	if err := b.startVXLAN(device); err != nil {
		// A device that is half made would be taken for a whole one.
		if undo := b.removeVXLAN(want.Name); undo != nil {
			return fmt.Errorf("%w (and remove it again: %v)", err, undo)
		}
		return err
	}
	return nil
}

// startVXLAN suppresses link-local addresses before the device is up, which is
// when the kernel would make them.
func (b *batch) startVXLAN(device rtnl.Link) error {
	err := b.handle.LinkSetIP6AddrGenMode(device, noAddressGeneration)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) { // a kernel without IPv6 makes none
		return fmt.Errorf("set addrgenmode none: %w", err)
	}
	if err := b.handle.LinkSetUp(device); err != nil {
		return fmt.Errorf("set the device up: %w", err)
	}
	return nil
}

func (b *batch) mendVXLAN(have, want route.VXLAN) error {
	index, err := b.index(want.Name)
	if err != nil {
		return err
	}
	device := &rtnl.Vxlan{LinkAttrs: rtnl.LinkAttrs{Index: index, Name: want.Name}}
	if have.MTU != want.MTU {
		if err := b.handle.LinkSetMTU(device, want.MTU); err != nil {
			return fmt.Errorf("set the MTU: %w", err)
		}
	}
	if have.MAC != want.MAC {
		if err := b.handle.LinkSetHardwareAddr(device, want.MAC[:]); err != nil {
			return fmt.Errorf("set the MAC: %w", err)
		}
	}
	return b.startVXLAN(device)
}

func (b *batch) removeVXLAN(name string) error {
	index, err := b.index(name)
	if err != nil {
		return err
	}
	delete(b.indexes, name)
	return b.handle.LinkDel(&rtnl.Vxlan{LinkAttrs: rtnl.LinkAttrs{Index: index}})
}

// observeVXLANs reads back our devices. names are of all network interfaces.
func (b *batch) observeVXLANs(links []rtnl.Link, names map[int]string) {
	found := map[string]route.VXLAN{}
	for _, link := range links {
		name := link.Attrs().Name
		if strings.HasPrefix(name, route.VXLANPrefix) {
			found[name] = seenVXLAN(link, names)
		}
	}
	b.vxlans.Observe(found)
}

// seenVXLAN is a device as it is; one of no use has only its name.
func seenVXLAN(link rtnl.Link, names map[int]string) route.VXLAN {
	attrs := link.Attrs()
	device, ok := link.(*rtnl.Vxlan)
	if !ok || device.Learning || device.FlowBased || device.GBP || device.Proxy ||
		device.L2miss || device.L3miss || device.Group != nil || len(attrs.HardwareAddr) != 6 {
		return route.VXLAN{Name: attrs.Name}
	}
	local, _ := netip.AddrFromSlice(device.SrcAddr)
	seen := route.VXLAN{
		Name:   attrs.Name,
		VNI:    uint32(device.VxlanId),
		Port:   uint16(device.Port),
		Device: names[device.VtepDevIndex],
		Local:  local.Unmap(),
		MTU:    attrs.MTU,
		MAC:    [6]byte(attrs.HardwareAddr),
	}
	if attrs.Flags&net.FlagUp == 0 {
		seen.MTU = 0 // never what is wanted, so that it is mended
	}
	return seen
}
