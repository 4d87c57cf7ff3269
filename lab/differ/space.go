package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// space is a network namespace of its own, without a link to the machine's.
type space struct{ handle netns.NsHandle }

func newSpace() (s *space, err error) {
	s = &space{}
	err = apart(func() error {
		if s.handle, err = netns.New(); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		if err := up("lo"); err != nil {
			return err
		}
		return settings(map[string]string{
			// Refusals are outcomes, each one; and a network of clients behind a node
			// without addresses there is no fault.
			"ipv4/icmp_ratelimit": "0", "ipv6/icmp/ratelimit": "0", "ipv4/icmp_msgs_per_sec": "100000", "ipv4/icmp_msgs_burst": "100000",
			"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
			"ipv4/conf/all/send_redirects": "0", "ipv4/conf/default/send_redirects": "0",
			"ipv6/conf/all/accept_ra": "0", "ipv6/conf/default/accept_ra": "0", "ipv6/conf/default/accept_dad": "0",
		})
	})
	return s, err
}

// do runs f in the namespace, on a thread of its own. Sockets that f opens stay
// in the namespace.
func (s *space) do(f func() error) error {
	return apart(func() error {
		if err := netns.Set(s.handle); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

func (s *space) close() { _ = s.handle.Close() }

// apart runs f on a thread that is not used again.
func apart(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// settings writes sysctls by path below /proc/sys/net. One that this kernel does
// not have for each namespace is the machine's, and stays.
func settings(all map[string]string) error {
	for path, value := range all {
		err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0)
		if err != nil && !os.IsNotExist(err) && !os.IsPermission(err) {
			return fmt.Errorf("set net/%s: %w", path, err)
		}
	}
	return nil
}

func up(device string) error {
	link, err := netlink.LinkByName(device)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", device, err)
	}
	return nil
}

// cable joins two namespaces. Each end knows the other's MAC, so that no packet
// waits for an answer of ARP.
func cable(from *space, device string, to *space, peer string, number byte) error {
	err := from.do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: device, MTU: 1500, HardwareAddr: hardware(number, 0)},
			PeerName:  peer, PeerHardwareAddr: hardware(number, 1), PeerNamespace: netlink.NsFd(int(to.handle)),
		})
	})
	if err != nil {
		return fmt.Errorf("make the link %s: %w", device, err)
	}
	if err := from.do(func() error { return up(device) }); err != nil {
		return err
	}
	return to.do(func() error { return up(peer) })
}

// hardware is the MAC of an end of a cable.
func hardware(number, end byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, end, 0, number} }

// assign gives addresses to a device.
func assign(device string, prefixes ...netip.Prefix) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	for _, prefix := range prefixes {
		addr := &netlink.Addr{IPNet: ipNet(prefix)}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
			if prefix.Addr() == secondAddress()[1] {
				addr.ValidLft = 1 << 20 // and preferred for 0 s: nothing leaves with it by itself
			}
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("give %s to %s: %w", prefix, device, err)
		}
	}
	return nil
}

// way leads to a range by a device: by a gateway there, or directly.
type way struct {
	to           netip.Prefix
	device       string
	via          netip.Addr // invalid: it is on the link
	source       netip.Addr // of what the namespace itself sends; invalid: the kernel's choice
	number, from byte       // the cable and its end where the neighbour is
}

func lead(ways ...way) error {
	for _, w := range ways {
		link, err := netlink.LinkByName(w.device)
		if err != nil {
			return fmt.Errorf("find %s: %w", w.device, err)
		}
		neighbor := w.to.Addr()
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(w.to), Scope: unix.RT_SCOPE_LINK}
		if w.via.IsValid() {
			neighbor = w.via
			route.Gw, route.Scope, route.Flags = w.via.AsSlice(), unix.RT_SCOPE_UNIVERSE, unix.RTNH_F_ONLINK
		}
		if w.source.IsValid() {
			route.Src = w.source.AsSlice()
		}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("lead %s by %s: %w", w.to, w.device, err)
		}
		err = netlink.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: unix.NUD_PERMANENT, IP: neighbor.AsSlice(), HardwareAddr: hardware(w.number, w.from),
		})
		if err != nil {
			return fmt.Errorf("name the neighbour %s on %s: %w", neighbor, w.device, err)
		}
	}
	return nil
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}

func host(addr netip.Addr) netip.Prefix { return model.HostPrefix(addr) }
