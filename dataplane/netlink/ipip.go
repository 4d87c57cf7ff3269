package netlink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/ebpf"
	"github.com/fairlead-net/fairlead/plan/route"
)

// An ipip device is the kernel's, where the module is, and otherwise a pair of
// interfaces with BPF programs. Routes and what is on the wire are the same.

func ipipItem() item[string, route.IPIP] {
	return item[string, route.IPIP]{
		named: func(name string) string { return "link " + name },
		asked: func(name string, d route.IPIP) string {
			return fmt.Sprintf("link %s ipip local %s dev %s mtu %d", name, d.Local, d.Device, d.MTU)
		},
	}
}

// putIPIPs tells whether a device that was there was changed or made anew.
func (b *batch) putIPIPs() (disturbed bool, err error) {
	err = put(b, &b.ipips, ipipItem(), func(name string, want route.IPIP) error {
		have, there := b.ipips.Actual(name)
		if !there {
			return b.addIPIP(want)
		}
		disturbed = true
		if b.programmed(name) {
			return attachIPIP(want) // in place, also if the programs are of another version
		}
		if have.Local.IsValid() { // one of use
			mended := have
			mended.MTU, mended.Device, mended.Pods = want.MTU, want.Device, want.Pods
			if mended == want {
				return b.mendIPIP(want)
			}
		}
		// The kernel keeps the type of a device, and what it stands on.
		if err := b.removeIPIP(name); err != nil && !gone(err) {
			return err
		}
		b.ipips.Removed(name)
		return b.addIPIP(want)
	})
	return disturbed, err
}

func (b *batch) removeIPIPs() error {
	return remove(b, &b.ipips, ipipItem(), func(name string, _ route.IPIP) error { return b.removeIPIP(name) })
}

// The kernel's device copies the traffic class (RFC 2983), and has a time to
// live of its own: what expires inside must not expire on the way.
const (
	inheritTOS = 1
	ipipTTL    = 64
)

func (b *batch) addIPIP(want route.IPIP) error {
	b.pair = nil
	// Not bound to the uplink: where the node's address is on another interface
	// than its routes, those decide.
	attrs := rtnl.NewLinkAttrs()
	attrs.Name, attrs.MTU = want.Name, want.MTU
	device := &rtnl.Iptun{
		LinkAttrs: attrs, Local: want.Local.AsSlice(),
		PMtuDisc: 1, Ttl: ipipTTL, Tos: inheritTOS,
	}
	err := b.handle.LinkAdd(device)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return attachIPIP(want)
	}
	if err != nil {
		return fmt.Errorf("add the device: %w", err)
	}
	b.indexes[want.Name] = device.Index
	// Those of a pair that somebody has removed would take the packets first.
	if err := ebpf.RemoveFilters(want.Name); err != nil {
		return err
	}
	if err := b.handle.LinkSetUp(device); err != nil {
		// A device that is half made would be taken for a whole one.
		if undo := b.removeIPIP(want.Name); undo != nil {
			return fmt.Errorf("set the device up: %w (and remove it again: %v)", err, undo)
		}
		return fmt.Errorf("set the device up: %w", err)
	}
	return nil
}

func (b *batch) mendIPIP(want route.IPIP) error {
	index, err := b.index(want.Name)
	if err != nil {
		return err
	}
	device := &rtnl.Iptun{LinkAttrs: rtnl.LinkAttrs{Index: index, Name: want.Name}}
	if err := b.handle.LinkSetMTU(device, want.MTU); err != nil {
		return fmt.Errorf("set the MTU: %w", err)
	}
	if err := b.handle.LinkSetUp(device); err != nil {
		return fmt.Errorf("set the device up: %w", err)
	}
	return nil
}

// attachIPIP says of a kernel without the programs, too, that it supports no
// ipip.
func attachIPIP(want route.IPIP) error {
	err := ebpf.AttachIPIP(ebpf.IPIP{
		Name: want.Name, Uplink: want.Device, Local: want.Local, MTU: want.MTU, Pods: want.Pods,
	})
	if unsupported := ebpf.Supported(); err != nil && unsupported != nil {
		return fmt.Errorf("no module ipip, and %w: %w", unsupported, unix.EOPNOTSUPP)
	}
	return err
}

func (b *batch) removeIPIP(name string) error {
	if b.programmed(name) {
		delete(b.indexes, name)
		return ebpf.DetachIPIP(name)
	}
	index, err := b.index(name)
	if err != nil {
		return err
	}
	delete(b.indexes, name)
	return b.handle.LinkDel(&rtnl.Iptun{LinkAttrs: rtnl.LinkAttrs{Index: index}})
}

// programmed tells whether a device is a pair with programs.
func (b *batch) programmed(name string) bool {
	if b.pair == nil {
		link, err := b.handle.LinkByName(name)
		is := err == nil && link.Type() == "veth"
		b.pair = &is
	}
	return *b.pair
}

// observeIPIPs reads back our device.
func (b *batch) observeIPIPs(links []rtnl.Link) error {
	found := map[string]route.IPIP{}
	for _, link := range links {
		if name := link.Attrs().Name; name == route.IPIPDevice {
			seen, err := b.seenIPIP(link)
			if err != nil {
				return err
			}
			found[name] = seen
		}
	}
	b.ipips.Observe(found)
	return nil
}

// seenIPIP is a device as it is; one of no use has only its name.
func (p *Plane) seenIPIP(link rtnl.Link) (route.IPIP, error) {
	attrs := link.Attrs()
	seen := route.IPIP{Name: attrs.Name}
	if link.Type() == "veth" {
		attached, _, err := ebpf.Attached(attrs.Name)
		if err != nil {
			return seen, fmt.Errorf("read back %s: %w", attrs.Name, err)
		}
		seen.Device, seen.Local, seen.MTU, seen.Pods = attached.Uplink, attached.Local, attached.MTU, attached.Pods
		return seen, nil
	}
	device, ok := link.(*rtnl.Iptun)
	if !ok || device.Ttl != ipipTTL || device.Tos != inheritTOS || device.PMtuDisc != 1 || device.FlowBased || !unset(device.Remote) {
		return seen, nil
	}
	local, _ := netip.AddrFromSlice(device.Local)
	seen.Local, seen.MTU = local.Unmap(), attrs.MTU
	if want, ok := p.ipips.Wanted(attrs.Name); ok && attrs.ParentIndex == 0 {
		seen.Device, seen.Pods = want.Device, want.Pods // nothing of these is in the kernel's device
	}
	if attrs.Flags&net.FlagUp == 0 {
		seen.MTU = 0 // never what is wanted, so that it is mended
	}
	return seen, nil
}

// unset tells whether a device has no fixed outer destination.
func unset(ip net.IP) bool { return len(ip) == 0 || ip.IsUnspecified() }
