package udptunnel

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// world is a number of nodes, each with one pod, on a router between them:
//
//	pod 10.1.N.2 ── 10.1.N.1 node N 10.0.N.2 ── 10.0.N.1 router
//	    fd01:N::2   fd01:N::1       fd00:N::2   fd00:N::1
type world struct {
	t      testing.TB
	router *machine
	nodes  []*node
}

type machine struct {
	t testing.TB
	*netnstest.Namespace
	*netlink.Handle
}

type node struct {
	*machine
	pod    *machine
	number int
}

const testPort = 8285

func newMachine(t testing.TB) *machine {
	t.Helper()
	namespace := netnstest.New(t)
	handle, err := netlink.NewHandleAt(namespace.Handle, unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(handle.Close)
	m := &machine{t, namespace, handle}
	m.sysctl("net/ipv4/ip_forward", "1")
	m.sysctl("net/ipv6/conf/all/forwarding", "1")
	return m
}

// newWorld makes nodes on links of this MTU. The router sees datagrams one by
// one if apart: its links take no super-packets.
func newWorld(t testing.TB, nodes, mtu int, apart bool) *world {
	t.Helper()
	w := &world{t: t, router: newMachine(t)}
	for i := range nodes {
		n := &node{machine: newMachine(t), pod: newMachine(t), number: i + 1}
		w.nodes = append(w.nodes, n)
		join(t, n.machine, "eth0", w.router, fmt.Sprintf("to%d", n.number), mtu, apart)
		join(t, n.machine, "pod", n.pod, "eth0", mtu, false)
		for _, family := range model.Families {
			n.addAddress("eth0", n.outer(family), subnet(family))
			w.router.addAddress(fmt.Sprintf("to%d", n.number), n.outer(family).Prev(), subnet(family))
			n.addRoute("eth0", defaultOf(family), n.outer(family).Prev())
			n.addAddress("pod", n.podAddress(family).Prev(), subnet(family))
			n.pod.addAddress("eth0", n.podAddress(family), subnet(family))
			n.pod.addRoute("eth0", defaultOf(family), n.podAddress(family).Prev())
		}
	}
	return w
}

func subnet(family model.Family) int {
	if family == model.IPv4 {
		return 24
	}
	return 64
}

func defaultOf(family model.Family) netip.Prefix {
	if family == model.IPv4 {
		return netip.MustParsePrefix("0.0.0.0/0")
	}
	return netip.MustParsePrefix("::/0")
}

func (n *node) outer(family model.Family) netip.Addr {
	if family == model.IPv4 {
		return netip.AddrFrom4([4]byte{10, 0, byte(n.number), 2})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:%d::2", n.number))
}

func (n *node) podAddress(family model.Family) netip.Addr {
	if family == model.IPv4 {
		return netip.AddrFrom4([4]byte{10, 1, byte(n.number), 2})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd01:%d::2", n.number))
}

func (n *node) pods(family model.Family) netip.Prefix {
	prefix, _ := n.podAddress(family).Prefix(subnet(family))
	return prefix
}

// plan is what a node with all others as peers, by this outer family, has.
func (w *world) plan(n *node, outer model.Family, port, other uint16, mtu int) *plan.Node {
	device := route.UDP{Name: route.UDPDevice, Port: port, OtherPort: other, MTU: mtu}
	ranges := map[netip.Prefix]netip.Addr{}
	for _, family := range model.Families {
		device.Locals[family] = n.outer(family)
		for _, other := range w.nodes {
			if other != n {
				ranges[other.pods(family)] = other.outer(outer)
				ranges[model.HostPrefix(other.outer(family))] = other.outer(outer)
			}
		}
	}
	return &plan.Node{Name: fmt.Sprintf("node%d", n.number), Route: &route.Plan{
		UDPs:     model.MapOf(map[string]route.UDP{device.Name: device}),
		UDPPeers: model.MapOf(ranges),
	}}
}

// routes leads the pods of other nodes into a device, as dataplane/netlink does.
func (w *world) routes(n *node, device string) {
	w.t.Helper()
	for _, family := range model.Families {
		for _, other := range w.nodes {
			if other != n {
				n.addRoute(device, other.pods(family), netip.Addr{})
			}
		}
	}
}

// join connects two machines by a veth pair.
func join(t testing.TB, a *machine, nameA string, b *machine, nameB string, mtu int, apart bool) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = nameA, mtu
	must(t, a.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: nameB, PeerNamespace: netlink.NsFd(b.Namespace.Handle), PeerMTU: uint32(mtu),
	}))
	for m, name := range map[*machine]string{a: nameA, b: nameB} {
		m.sysctl("net/ipv6/conf/"+name+"/accept_dad", "0")
		link := m.link(name)
		if apart {
			must(t, m.LinkSetGSOMaxSegs(link, 1))
		}
		must(t, m.LinkSetUp(link))
	}
}

func (m *machine) link(name string) netlink.Link {
	m.t.Helper()
	link, err := m.LinkByName(name)
	must(m.t, err)
	return link
}

func (m *machine) addAddress(device string, address netip.Addr, bits int) {
	m.t.Helper()
	must(m.t, m.AddrReplace(m.link(device), &netlink.Addr{
		IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(bits, address.BitLen())}, Flags: unix.IFA_F_NODAD,
	}))
}

func (m *machine) addRoute(device string, to netip.Prefix, via netip.Addr) {
	m.t.Helper()
	r := &netlink.Route{
		LinkIndex: m.link(device).Attrs().Index,
		Dst:       &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())},
	}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	}
	must(m.t, m.RouteReplace(r))
}

func (m *machine) sysctl(path, value string) {
	m.t.Helper()
	m.Do(func() {
		if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
			m.t.Error(err)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
