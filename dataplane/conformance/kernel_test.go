package conformance_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	nft "github.com/google/nftables"
	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/dataplane/conformance"
	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/dataplane/netlink"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

func TestKernel(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Subject { return newKernel(t) })
}

// planes are several data planes, each for its part of a plan.
type planes []dataplane.Dataplane

func (p planes) Apply(ctx context.Context, node *plan.Node) (problems []model.Problem, err error) {
	for _, plane := range p {
		found, failed := plane.Apply(ctx, node)
		problems = append(problems, found...)
		err = errors.Join(err, failed)
	}
	return problems, err
}

func (p planes) Forget() {
	for _, plane := range p {
		if forgetter, ok := plane.(dataplane.Forgetter); ok {
			forgetter.Forget()
		}
	}
}

// kernel is the machine's own, in a network namespace. What devices lead to is
// in another one.
type kernel struct {
	t       testing.TB
	outside *netnstest.Namespace
	monitor int // a netlink socket
}

func newKernel(t testing.TB) *kernel {
	outside := netnstest.New(t)
	netnstest.Enter(t)
	k := &kernel{t: t, outside: outside}
	k.monitor = k.subscribe()
	return k
}

func (k *kernel) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *kernel) Start() dataplane.Dataplane { return startPlanes(k.t) }

func startPlanes(t testing.TB) dataplane.Dataplane {
	routing, err := netlink.New()
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(routing.Close)
	return planes{nftables.New(), routing}
}

func (k *kernel) Sysctl(path string) string {
	value, err := os.ReadFile("/proc/sys/" + path)
	k.must(err)
	return strings.TrimSpace(string(value))
}

func (k *kernel) AddDevice(name string, addresses ...netip.Prefix) {
	attrs := rtnl.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, 1500
	veth := &rtnl.Veth{LinkAttrs: attrs, PeerName: name, PeerNamespace: rtnl.NsFd(k.outside.Handle)}
	k.must(rtnl.LinkAdd(veth))
	k.outside.Do(func() {
		link, err := rtnl.LinkByName(name)
		if err == nil {
			err = rtnl.LinkSetUp(link)
		}
		if err != nil {
			k.t.Error(err)
		}
	})
	for _, prefix := range addresses {
		k.must(rtnl.AddrAdd(veth, &rtnl.Addr{IPNet: ipNet(prefix), Flags: flags(prefix)}))
	}
	k.must(rtnl.LinkSetUp(veth))
}

func flags(prefix netip.Prefix) int {
	if prefix.Addr().Is6() {
		return unix.IFA_F_NODAD
	}
	return 0
}

func (k *kernel) RemoveDevice(name string) {
	link, err := rtnl.LinkByName(name)
	k.must(err)
	k.must(rtnl.LinkDel(link))
}

func (k *kernel) AddForeignRoute(destination netip.Prefix, device string) {
	k.must(rtnl.RouteAdd(k.foreignRoute(destination, device)))
}

func (k *kernel) RemoveForeignRoute(destination netip.Prefix) {
	entry := k.foreignRoute(destination, "lo")
	entry.LinkIndex = 0
	k.must(rtnl.RouteDel(entry))
}

func (k *kernel) foreignRoute(destination netip.Prefix, device string) *rtnl.Route {
	link, err := rtnl.LinkByName(device)
	k.must(err)
	entry := &rtnl.Route{
		Dst: ipNet(destination), LinkIndex: link.Attrs().Index,
		Scope: rtnl.SCOPE_LINK, Protocol: unix.RTPROT_STATIC,
	}
	if destination.Addr().Is6() {
		entry.Priority = 1
	}
	return entry
}

func (k *kernel) Lookup(packet plan.Packet) plan.Hop {
	options := &rtnl.RouteGetOptions{FIBMatch: true}
	if packet.Source.IsValid() {
		options.SrcAddr = packet.Source.AsSlice()
	}
	found, err := rtnl.RouteGetWithOptions(packet.Destination.AsSlice(), options)
	switch {
	case errors.Is(err, unix.EHOSTUNREACH):
		return plan.Hop{}
	case errors.Is(err, unix.ENETUNREACH):
		return plan.Hop{Reachable: true}
	}
	k.must(err)
	if found[0].Protocol != netlink.Protocol {
		return plan.Hop{Reachable: true}
	}
	link, err := rtnl.LinkByIndex(found[0].LinkIndex)
	k.must(err)
	hop := plan.Hop{
		Reachable: true,
		Device:    link.Attrs().Name,
		Via:       addrOf(found[0].Gw),
		MTU:       found[0].MTU,
	}
	if !strings.HasPrefix(hop.Device, route.VXLANPrefix) {
		return hop
	}
	observed := k.Observed().Route
	mac, _ := observed.Neighbors.Get(route.Neighbor{Device: hop.Device, Address: hop.Via})
	hop.Remote, _ = observed.FDB.Get(route.Station{Device: hop.Device, MAC: mac})
	return hop
}

// Foreign are the routes, addresses and tables that are not ours.
func (k *kernel) Foreign() string {
	var lines []string
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		entries, err := rtnl.RouteList(nil, family)
		k.must(err)
		for _, entry := range entries {
			if entry.Protocol != netlink.Protocol && !prefixOf(entry.Dst).Addr().IsLinkLocalUnicast() {
				lines = append(lines, "route "+entry.String())
			}
		}
	}
	tables, err := (&nft.Conn{}).ListTables()
	k.must(err)
	for _, table := range tables {
		if table.Name != nftables.TableName {
			lines = append(lines, "table "+table.Name)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (k *kernel) Observed() *plan.Node {
	links, err := rtnl.LinkList()
	k.must(err)
	names := map[int]string{}
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	seen := &route.Plan{}
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, route.VXLANPrefix) {
			k.observeTunnel(seen, link.(*rtnl.Vxlan), names)
		}
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		filter := &rtnl.Route{Protocol: netlink.Protocol}
		entries, err := rtnl.RouteListFiltered(family, filter, rtnl.RT_FILTER_PROTOCOL|rtnl.RT_FILTER_TABLE)
		k.must(err)
		for _, entry := range entries {
			is := route.Route{Unreachable: true}
			if entry.Type != unix.RTN_UNREACHABLE {
				is = route.Route{
					Local:  entry.Type == unix.RTN_LOCAL,
					Device: names[entry.LinkIndex],
					Via:    addrOf(entry.Gw),
					OnLink: entry.Flags&unix.RTNH_F_ONLINK != 0,
					Source: addrOf(entry.Src),
					MTU:    entry.MTU,
				}
			}
			seen.Routes = seen.Routes.With(prefixOf(entry.Dst), is)
		}
	}
	node := &plan.Node{Route: seen}
	k.observeTable(node)
	return node
}

func (k *kernel) observeTunnel(seen *route.Plan, link *rtnl.Vxlan, names map[int]string) {
	if link.Learning || link.Flags&net.FlagUp == 0 {
		k.t.Fatalf("%s learns or is down: %+v", link.Name, link)
	}
	assigned, err := os.ReadFile("/sys/class/net/" + link.Name + "/addr_assign_type")
	// NET_ADDR_SET; /sys is of the namespace that mounted it, so there may be none.
	if err == nil && strings.TrimSpace(string(assigned)) != "3" {
		k.t.Fatalf("the MAC of %s is of type %s", link.Name, assigned)
	}
	seen.VXLANs = seen.VXLANs.With(link.Name, route.VXLAN{
		Name: link.Name, VNI: uint32(link.VxlanId), Port: uint16(link.Port),
		Device: names[link.VtepDevIndex], Local: addrOf(link.SrcAddr),
		MTU: link.MTU, MAC: model.MAC(link.HardwareAddr),
	})
	addresses, err := rtnl.AddrList(link, rtnl.FAMILY_ALL)
	k.must(err)
	for _, address := range addresses {
		key := route.Address{Device: link.Name, Prefix: prefixOf(address.IPNet)}
		seen.Addresses = seen.Addresses.With(key, struct{}{})
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		entries, err := rtnl.NeighList(link.Index, family)
		k.must(err)
		for _, entry := range entries {
			switch {
			case family == unix.AF_BRIDGE:
				station := route.Station{Device: link.Name, MAC: model.MAC(entry.HardwareAddr)}
				seen.FDB = seen.FDB.With(station, addrOf(entry.IP))
			case entry.State == rtnl.NUD_PERMANENT:
				neighbor := route.Neighbor{Device: link.Name, Address: addrOf(entry.IP)}
				seen.Neighbors = seen.Neighbors.With(neighbor, model.MAC(entry.HardwareAddr))
			}
		}
	}
}

// subscribe opens a socket that hears what changes.
func (k *kernel) subscribe() int {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	k.must(err)
	k.t.Cleanup(func() { _ = unix.Close(socket) })
	k.must(unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
	var groups uint32
	for _, group := range []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	} {
		groups |= 1 << (group - 1)
	}
	k.must(unix.Bind(socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}))
	return socket
}

func (k *kernel) Changes() (changes []string) {
	links, err := rtnl.LinkList()
	k.must(err)
	ours := map[uint32]string{}
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, route.VXLANPrefix) {
			ours[uint32(link.Attrs().Index)] = link.Attrs().Name
		}
	}
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(k.monitor, buffer, 0)
		if errors.Is(err, unix.EAGAIN) {
			return changes
		}
		k.must(err)
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		k.must(err)
		for _, message := range messages {
			if change := changeOf(message, ours); change != "" {
				changes = append(changes, change)
			}
		}
	}
}

// changeOf is empty for what is not ours, or is the kernel's own doing.
func changeOf(message syscall.NetlinkMessage, ours map[uint32]string) string {
	data := message.Data
	switch message.Header.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		const protocol, length = 5, 1 // in struct rtmsg
		if data[protocol] != byte(netlink.Protocol) {
			return ""
		}
		verb := "add"
		if message.Header.Type == unix.RTM_DELROUTE {
			verb = "remove"
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&message)
		if err != nil {
			return err.Error()
		}
		for _, attribute := range attributes {
			if attribute.Attr.Type == unix.RTA_DST {
				return fmt.Sprintf("%s route %s", verb, netip.PrefixFrom(addrOf(attribute.Value), int(data[length])))
			}
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if data[0] == unix.AF_INET6 && message.Header.Type == unix.RTM_NEWADDR {
			return "" // the kernel repeats it later, when duplicate address detection is over
		}
		if device := ours[binary.NativeEndian.Uint32(data[4:])]; device != "" {
			return "change address on " + device
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		const state = 8 // in struct ndmsg
		device := ours[binary.NativeEndian.Uint32(data[4:])]
		if device != "" && data[state]&rtnl.NUD_PERMANENT != 0 {
			return "change neighbor on " + device
		}
	case unix.RTM_DELLINK:
		if device := ours[binary.NativeEndian.Uint32(data[4:])]; device != "" {
			return "remove link " + device
		}
	}
	return ""
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}
}

func addrOf(ip []byte) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

func prefixOf(n *net.IPNet) netip.Prefix {
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}
