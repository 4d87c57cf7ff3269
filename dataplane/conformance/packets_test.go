package conformance_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// TestPackets sends packets between the pods of three nodes, and to the
// outside, as the oracle says that they go:
//
//	node1   node2        node3       outside
//	    \   /              |            |
//	  [segment] -------- [ r o u t e r ]
//
// Nobody but the nodes knows a way to pods.
func TestPackets(t *testing.T) {
	t.Run("DualStackNodes", func(t *testing.T) { testPackets(t, model.IPv4, model.IPv6) })
	t.Run("IPv6Nodes", func(t *testing.T) { testPackets(t, model.IPv6) })
}

func testPackets(t *testing.T, families ...model.Family) {
	n := newNet(t, families)
	for _, from := range n.machines {
		for _, to := range n.machines {
			for _, family := range model.Families {
				n.reaches(from, to, family)
			}
		}
		for _, family := range families {
			n.masquerades(from, family)
		}
	}
}

// network is nodes, a router and an outside host, each a namespace.
type network struct {
	t                        testing.TB
	families                 []model.Family // of the nodes' own addresses
	segment, router, outside *netnstest.Namespace
	machines                 []*machine
	snapshot                 *model.Snapshot // of the cluster
}

// machine is a node with one pod.
type machine struct {
	node  *model.Node
	link  *model.Link
	space *netnstest.Namespace
	pod   *netnstest.Namespace
	ports []model.HostPort // of the pod
	plane dataplane.Dataplane
	plan  *plan.Node
}

// subnet is network number n; the router is its host 254.
func subnet(n int, host byte, family model.Family) netip.Prefix {
	if family == model.IPv4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(n), host}), 24)
	}
	return netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::%d/64", n, host))
}

func podRange(n int, family model.Family) netip.Prefix {
	if family == model.IPv4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(n), 0}), 24)
	}
	return netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", n))
}

func podAddress(n int, family model.Family) netip.Addr { return podRange(n, family).Addr().Next() }

func newNet(t testing.TB, families []model.Family) *network {
	n := &network{
		t: t, families: families,
		segment: netnstest.New(t), router: netnstest.New(t), outside: netnstest.New(t),
	}
	n.segment.Do(func() {
		attrs := rtnl.NewLinkAttrs()
		attrs.Name = "br0"
		n.check(rtnl.LinkAdd(&rtnl.Bridge{LinkAttrs: attrs}))
		n.up("br0")
	})
	n.router.Do(n.forward)
	n.cable(n.segment, "router", n.router, "seg1")
	n.segment.Do(func() { n.plug("router") })
	n.router.Do(func() { n.address("seg1", 1, 254) })
	n.cable(n.router, "seg7", n.outside, "eth0")
	n.router.Do(func() { n.address("seg7", 7, 254) })
	n.outside.Do(func() { n.address("eth0", 7, 7); n.defaultRoutes("eth0", 7) })

	n.snapshot = &model.Snapshot{Network: model.DefaultNetwork(), PoliciesKnown: true}
	for number := 1; number <= 3; number++ {
		m := n.addMachine(number)
		n.snapshot.Nodes = n.snapshot.Nodes.With(m.node.Name, m.node)
	}
	for _, m := range n.machines {
		pod := &model.Pod{
			PodKey: podOfNode(m.node.Name), Node: m.node.Name, Addresses: []netip.Addr{n.podOf(m, model.IPv4), n.podOf(m, model.IPv6)},
			Labels: model.LabelsOf(map[string]string{"pod": m.node.Name}),
		}
		n.snapshot.Pods = n.snapshot.Pods.With(pod.PodKey, pod)
	}
	for _, m := range n.machines {
		n.apply(m)
	}
	return n
}

// podOfNode is labelled with the name of its node.
func podOfNode(node string) model.PodKey {
	return model.PodKey{Namespace: "default", Name: "of-" + node}
}

// addMachine connects nodes 1 and 2 to the segment and 3 to the router.
func (n *network) addMachine(number int) *machine {
	m := &machine{
		node:  &model.Node{Name: fmt.Sprintf("node%d", number)},
		link:  &model.Link{Name: "eth0", MTU: 1500},
		space: netnstest.New(n.t),
		pod:   netnstest.New(n.t),
	}
	network := 1
	if number == 3 {
		network = 3
		n.cable(n.router, "seg3", m.space, "eth0")
		n.router.Do(func() { n.address("seg3", 3, 254) })
	} else {
		n.cable(n.segment, m.node.Name, m.space, "eth0")
		n.segment.Do(func() { n.plug(m.node.Name) })
	}
	m.space.Do(func() { n.address("eth0", network, byte(number)); n.defaultRoutes("eth0", network) })
	for _, family := range n.families {
		own := subnet(network, byte(number), family)
		m.node.Addresses = append(m.node.Addresses, own.Addr())
		m.link.Addresses = append(m.link.Addresses, own)
	}
	m.node.PodCIDRs = []netip.Prefix{podRange(number, model.IPv4), podRange(number, model.IPv6)}
	n.addPod(m, number)
	n.machines = append(n.machines, m)
	return m
}

// addPod connects a pod as the agent does.
func (n *network) addPod(m *machine, number int) {
	gateways := []netip.Prefix{netip.MustParsePrefix("169.254.1.1/32"), netip.MustParsePrefix("fe80::1/64")}
	n.cable(m.space, "pod0", m.pod, "eth0")
	m.space.Do(func() {
		n.check(rtnl.LinkSetGroup(n.device("pod0"), model.PodGroup))
		for _, gateway := range gateways {
			n.check(rtnl.AddrAdd(n.device("pod0"), &rtnl.Addr{IPNet: ipNet(gateway), Scope: unix.RT_SCOPE_LINK, Flags: flags(gateway)}))
		}
	})
	m.pod.Do(func() {
		for family, gateway := range gateways {
			own := model.HostPrefix(podAddress(number, model.Families[family]))
			n.check(rtnl.AddrAdd(n.device("eth0"), &rtnl.Addr{IPNet: ipNet(own), Flags: flags(own)}))
			n.check(rtnl.RouteAdd(&rtnl.Route{
				LinkIndex: n.device("eth0").Attrs().Index,
				Gw:        gateway.Addr().AsSlice(), Flags: unix.RTNH_F_ONLINK,
			}))
		}
	})
}

// apply carries out what the cluster says of a node, and of its pod.
func (n *network) apply(m *machine) {
	n.t.Helper()
	own := *n.snapshot
	own.Links = model.MapOf(map[string]*model.Link{"eth0": m.link})
	key := model.AttachmentKey{ContainerID: "pod", Interface: "eth0"}
	own.Attachments = model.MapOf(map[model.AttachmentKey]*model.Attachment{key: {
		AttachmentKey: key, Pod: podOfNode(m.node.Name), Device: "pod0", MAC: n.mac(m),
		Addresses: []netip.Addr{n.podOf(m, model.IPv4), n.podOf(m, model.IPv6)}, HostPorts: m.ports,
	}})
	m.plan = plan.Compute(nil, &own, m.node.Name)
	m.space.Do(func() {
		if m.plane == nil {
			m.plane = startPlanes(n.t)
		}
		problems, err := m.plane.Apply(n.t.Context(), m.plan)
		n.check(err)
		if len(problems) != 0 {
			n.t.Errorf("%s: %v", m.node.Name, problems)
		}
	})
}

func (n *network) mac(of *machine) (mac model.MAC) {
	of.pod.Do(func() { mac = model.MAC(n.device("eth0").Attrs().HardwareAddr) })
	return mac
}

// reaches sends TCP and UDP from pod to pod, which arrive with the pod's own
// address, through the device that the oracle names.
func (n *network) reaches(from, to *machine, family model.Family) {
	n.t.Helper()
	source, destination := n.podOf(from, family), n.podOf(to, family)
	hop := plan.Verdict(from.plan, plan.Packet{Source: source, Destination: destination})
	before := n.sent(from, hop.Device)
	n.speak(from.pod, to.pod, netip.AddrPortFrom(destination, 9000), source)
	if from != to && n.sent(from, hop.Device) == before {
		n.t.Fatalf("%s to %s: nothing went through %s, which the oracle names", source, destination, hop.Device)
	}
}

// masquerades sends to the outside, where packets arrive with the address of
// the node if the oracle says so.
func (n *network) masquerades(from *machine, family model.Family) {
	n.t.Helper()
	destination := subnet(7, 7, family).Addr()
	if !plan.Verdict(from.plan, plan.Packet{Source: n.podOf(from, family), Destination: destination}).Masquerade {
		n.t.Fatalf("the oracle does not masquerade to %s", destination)
	}
	n.speak(from.pod, n.outside, netip.AddrPortFrom(destination, 9000), from.node.Address(family))
}

func (n *network) podOf(m *machine, family model.Family) netip.Addr {
	return m.node.PodCIDR(family).Addr().Next()
}

// speak has a server in one namespace say whom it sees, and checks it from
// another, over UDP and over TCP with more than fits into one packet. The server
// listens at the port 9000, whatever is called.
func (n *network) speak(from, to *netnstest.Namespace, called netip.AddrPort, seen netip.Addr) {
	n.t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	to.Do(func() {
		var err error
		tcp, err = net.Listen("tcp", ":9000")
		n.check(err)
		udp, err = net.ListenPacket("udp", ":9000")
		n.check(err)
	})
	defer tcp.Close()
	defer udp.Close()
	done := make(chan struct{}, 2)
	go func() { serveTCP(tcp); done <- struct{}{} }()
	go func() { serveUDP(udp); done <- struct{}{} }()
	from.Do(func() {
		for _, protocol := range []string{"udp", "tcp"} {
			if got, err := ask(protocol, called.String()); err != nil || got != seen {
				n.t.Errorf("%s to %s: the server saw %s, want %s (%v)", protocol, called, got, seen, err)
			}
		}
	})
	_ = tcp.Close()
	_ = udp.Close()
	<-done
	<-done
}

const payload = 1 << 20

func serveTCP(listener net.Listener) {
	conn, err := listener.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.CopyN(io.Discard, conn, payload)
	_, _ = io.WriteString(conn, conn.RemoteAddr().String())
}

func serveUDP(conn net.PacketConn) {
	buffer := make([]byte, 100)
	for {
		_, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo([]byte(from.String()), from)
	}
}

// ask returns the address that the server saw. Over UDP it asks again: the
// kernel drops what comes before it has finished with a new address.
func ask(protocol, address string) (seen netip.Addr, err error) {
	question, patience, attempts := []byte("?"), 200*time.Millisecond, 25
	if protocol == "tcp" {
		question, patience, attempts = bytes.Repeat(question, payload), 5*time.Second, 1
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).Dial(protocol, address)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	answer, length := make([]byte, 100), 0
	for range attempts {
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err = conn.Write(question); err == nil {
			length, err = conn.Read(answer)
		}
		if err == nil {
			break
		}
	}
	if err != nil {
		return netip.Addr{}, err
	}
	from, err := netip.ParseAddrPort(string(answer[:length]))
	return from.Addr().Unmap(), err
}

func (n *network) sent(m *machine, device string) (packets uint64) {
	m.space.Do(func() { packets = n.device(device).Attrs().Statistics.TxPackets })
	return packets
}

// check may be called on any goroutine.
func (n *network) check(err error) {
	if err != nil {
		n.t.Errorf("%+v", err)
	}
}

// cable joins two namespaces by a pair of devices that are up.
func (n *network) cable(from *netnstest.Namespace, name string, to *netnstest.Namespace, peer string) {
	n.t.Helper()
	from.Do(func() {
		attrs := rtnl.NewLinkAttrs()
		attrs.Name, attrs.MTU = name, 1500
		n.check(rtnl.LinkAdd(&rtnl.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: rtnl.NsFd(to.Handle)}))
		n.up(name)
	})
	to.Do(func() { n.up(peer) })
}

func (n *network) device(name string) rtnl.Link {
	link, err := rtnl.LinkByName(name)
	if err != nil {
		n.t.Errorf("find %s: %v", name, err)
		return &rtnl.Dummy{}
	}
	return link
}

func (n *network) up(name string) { n.check(rtnl.LinkSetUp(n.device(name))) }

func (n *network) plug(port string) {
	n.check(rtnl.LinkSetMaster(n.device(port), n.device("br0")))
}

func (n *network) address(device string, network int, host byte) {
	for _, family := range n.families {
		prefix := subnet(network, host, family)
		n.check(rtnl.AddrAdd(n.device(device), &rtnl.Addr{IPNet: ipNet(prefix), Flags: flags(prefix)}))
	}
}

func (n *network) defaultRoutes(device string, network int) {
	for _, family := range n.families {
		n.check(rtnl.RouteAdd(&rtnl.Route{
			LinkIndex: n.device(device).Attrs().Index,
			Gw:        subnet(network, 254, family).Addr().AsSlice(),
		}))
	}
}

func (n *network) forward() {
	for _, path := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		n.check(os.WriteFile("/proc/sys/"+path, []byte("1"), 0))
	}
}
