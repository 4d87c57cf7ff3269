package world

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// hardwareAddr is a port's MAC address, the same after each boot. The second
// half of the first byte marks it as local and unicast.
func hardwareAddr(world, machine, iface string) net.HardwareAddr {
	h := sha256.Sum256([]byte(world + "/" + machine + "/" + iface))
	mac := h[:6]
	mac[0] = mac[0]&0xf0 | 0x02
	return mac
}

// portName names the fabric's side of a port. No segment has a dot in its name.
func portName(machine, iface string) string {
	name := machine + "." + iface
	if len(name) < unix.IFNAMSIZ {
		return name
	}
	h := sha256.Sum256([]byte(name))
	return "p." + hex.EncodeToString(h[:6])
}

func writeSysctls(values map[string]string) error {
	for key, value := range values {
		if !strings.HasPrefix(key, "net/") {
			continue
		}
		if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl: %w", err)
		}
	}
	return nil
}

// makeSegments makes the fabric: bridges without addresses, STP or snooping.
func makeSegments(segments []Segment) error {
	// Neither family: a segment is a wire and says nothing itself.
	if err := writeSysctls(map[string]string{
		"net/ipv6/conf/all/disable_ipv6":     "1",
		"net/ipv6/conf/default/disable_ipv6": "1",
	}); err != nil {
		return err
	}
	for _, s := range segments {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = s.Name, s.MTU
		snoop := false
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snoop}); err != nil {
			return fmt.Errorf("make segment %s: %w", s.Name, err)
		}
		if err := setUp(s.Name); err != nil {
			return err
		}
	}
	return nil
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// makeNetwork gives the calling process's network namespace the machine's
// ports, addresses and routes.
func makeNetwork(r *record, m Machine) error {
	forward := "0"
	if m.Forward {
		forward = "1"
	}
	// IPv4 settings of a new namespace are copies of the host's.
	if err := writeSysctls(map[string]string{
		"net/ipv4/ip_forward":             forward,
		"net/ipv6/conf/all/forwarding":    forward,
		"net/ipv4/conf/all/rp_filter":     "0",
		"net/ipv4/conf/default/rp_filter": "0",
	}); err != nil {
		return err
	}
	if err := setUp("lo"); err != nil {
		return err
	}
	if len(m.Ports) > 0 {
		ns, err := r.World.openNetns(fabricName)
		if err != nil {
			return err
		}
		defer ns.Close()
		for _, p := range m.Ports {
			if err := plug(r, m.Name, p, ns); err != nil {
				return fmt.Errorf("plug %s into segment %s: %w", p.Interface, p.Segment, err)
			}
		}
	}
	if err := addRoutes(m); err != nil {
		return err
	}
	return writeSysctls(m.Sysctls)
}

// addRoutes adds a machine's routes.
func addRoutes(m Machine) error {
	routes := m.Routes
	for _, via := range m.Gateways {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if via.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		routes = append(routes[:len(routes):len(routes)], Route{Destination: all, Via: via})
	}
	for _, rt := range routes {
		if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(rt.Destination), Gw: rt.Via.AsSlice()}); err != nil {
			return fmt.Errorf("add route %s via %s: %w", rt.Destination, rt.Via, err)
		}
	}
	return nil
}

// ipNet is a prefix with its host bits kept, as netlink wants it.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// plug makes a port: a veth pair made here with its peer in the fabric, so that
// neither end is ever seen on the host. Faults of the last boot last.
func plug(r *record, machine string, p Port, fabricNS *os.File) error {
	name := portName(machine, p.Interface)
	h, err := netlink.NewHandleAt(netns.NsHandle(fabricNS.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("reach the fabric: %w", err)
	}
	defer h.Close()
	// The kernel removes the devices of a dead machine in its own time.
	if old, err := h.LinkByName(name); err == nil {
		if err := h.LinkDel(old); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove the port of the last boot: %w", err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = p.Interface, p.MTU
	attrs.HardwareAddr = hardwareAddr(r.World.Name, machine, p.Interface)
	bridge, err := h.LinkByName(p.Segment)
	if err != nil {
		return fmt.Errorf("find segment: %w", err)
	}
	if i := slices.IndexFunc(r.Segments, func(s Segment) bool { return s.Name == p.Segment }); i >= 0 && attrs.MTU == 0 {
		attrs.MTU = r.Segments[i].MTU // not the bridge's, which follows its ports
	}
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = name, netlink.NsFd(fabricNS.Fd())
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth: %w", err)
	}
	peer, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find port: %w", err)
	}
	if err := h.LinkSetMaster(peer, bridge); err != nil {
		return fmt.Errorf("join segment: %w", err)
	}
	f, err := fabric{&r.World}.faults()
	if err != nil {
		return err
	}
	if err := applyPort(h, peer, f); err != nil {
		return err
	}
	return address(p, f.Rate[name])
}

// address brings a port up with its addresses and the limit of its rate, if any.
func address(p Port, bitsPerSecond uint64) error {
	conf := "net/ipv6/conf/" + p.Interface + "/"
	// Addresses are fixed and unique: the world is up when boot returns, not a
	// second of duplicate address detection later.
	// And others learn at once that an address has a new card, as from machines
	// that have asked for theirs.
	if err := writeSysctls(map[string]string{
		conf + "accept_ra": "0", conf + "accept_dad": "0", conf + "ndisc_notify": "1",
		"net/ipv4/conf/" + p.Interface + "/arp_notify": "1",
	}); err != nil {
		return err
	}
	link, err := netlink.LinkByName(p.Interface)
	if err != nil {
		return fmt.Errorf("find interface: %w", err)
	}
	if err := limitRate(&netlink.Handle{}, link, bitsPerSecond); err != nil {
		return err
	}
	for _, a := range p.Addresses {
		addr := &netlink.Addr{IPNet: ipNet(a)}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	return setUp(p.Interface)
}
