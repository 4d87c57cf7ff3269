package conformance_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
)

// The tests of this file are about what is configured for all Services.

// configure changes the configuration and has all nodes follow.
func (n *serviceNet) configure(change func(*model.Services)) {
	n.t.Helper()
	network := *model.DefaultNetwork()
	change(&network.Services)
	n.snapshot.Network = &network
	n.applyAll()
	n.forgetFlows()
}

// second is another address of node 1.
func second(family model.Family) netip.Prefix { return subnet(1, 77, family) }

// setSecond gives node 1 its other addresses, or takes them away.
func (n *serviceNet) setSecond(there bool) {
	n.t.Helper()
	m := n.machines[0]
	link := *m.link
	link.Addresses = link.Addresses[:len(n.families):len(n.families)]
	for _, family := range n.families {
		prefix := second(family)
		addr := &rtnl.Addr{IPNet: ipNet(prefix), Flags: flags(prefix)}
		if prefix.Addr().Is6() {
			addr.ValidLft = 1 << 20 // and preferred for 0 s: packets leave with the first one
		}
		m.space.Do(func() {
			if !there {
				n.check(rtnl.AddrDel(n.device("eth0"), addr))
				return
			}
			n.check(rtnl.AddrAdd(n.device("eth0"), addr))
		})
		if there {
			link.Addresses = append(link.Addresses, prefix)
		}
	}
	m.link = &link
	n.apply(m)
}

// TestNodePortAddresses: node ports are at those addresses of a node that are
// configured, as they come and go.
func TestNodePortAddresses(t *testing.T) {
	n := newServiceNet(t)
	n.setService(web(), nil, 1, 2)
	// What the oracle says is not all: it goes by the same plan.
	agree := func(what string, first, other bool) {
		t.Helper()
		for _, family := range model.Families {
			ports := map[netip.AddrPort]bool{n.vips(family)["node port 1"]: first, netip.AddrPortFrom(second(family).Addr(), 30080): other}
			for at, answers := range ports {
				for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
					n.agree(what, protocol, at)
				}
				patience := 4 * time.Second
				if !answers {
					patience = 200 * time.Millisecond
				}
				if got := n.call(n.machines[1].space, model.TCP, at, patience); got.server.IsValid() != answers {
					t.Errorf("%s: another node calls %s: %s; an answer: want %t", what, at, got, answers)
				}
			}
		}
	}
	n.setSecond(true)
	n.configure(func(*model.Services) {})
	agree("by default", true, false)
	n.configure(func(s *model.Services) {
		s.NodePortAddresses = []netip.Prefix{subnet(1, 0, model.IPv4), netip.MustParsePrefix("::/0")}
	})
	agree("in a network, and everywhere", true, true)
	n.setSecond(false)
	n.setSecond(true)
	n.forgetFlows()
	agree("after it went and came", true, true)
	n.configure(func(s *model.Services) {
		s.NodePortAddresses = []netip.Prefix{model.HostPrefix(second(model.IPv4).Addr()), model.HostPrefix(second(model.IPv6).Addr())}
	})
	agree("at the second alone", false, true)
	// Somebody announces a load balancer's address by that interface
	// (kubernetes#111863).
	n.configure(func(s *model.Services) {
		s.NodePortAddresses = []netip.Prefix{subnet(1, 0, model.IPv4), netip.MustParsePrefix("::/0")}
	})
	s := web()
	s.LoadBalancerIPs = []netip.Addr{second(model.IPv4).Addr(), second(model.IPv6).Addr()}
	n.setService(s, nil, 1, 2)
	n.applyAll()
	n.forgetFlows()
	agree("not at the second, as it is a load balancer's", true, false)
	for _, balancer := range s.LoadBalancerIPs {
		n.agree("the load balancer itself", model.TCP, netip.AddrPortFrom(balancer, 80))
	}
}

// TestMasqueradeAll: whoever calls a ClusterIP is seen as a node.
func TestMasqueradeAll(t *testing.T) {
	n := newServiceNet(t)
	n.setService(web(), nil, 1, 2, 3)
	n.configure(func(s *model.Services) { s.MasqueradeAll = true })
	n.agreeAll("masqueraded")
	pod, vip := n.machines[0].pod, n.vips(model.IPv4)["ClusterIP"]
	if got := n.call(pod, model.TCP, vip, 4*time.Second); got.seen == n.podOf(n.machines[0], model.IPv4) {
		t.Errorf("the pod is seen as itself: %s", got)
	}
}

// TestLocalhostNodePorts: the node calls its own node ports at 127.0.0.1, with
// endpoints of all kinds.
func TestLocalhostNodePorts(t *testing.T) {
	n := newServiceNet(t)
	localhost := netip.MustParseAddr("127.0.0.1")
	node := client{"node1 at 127.0.0.1", n.machines[0].space, [2]netip.Addr{localhost, {}}, n.machines[0], false}
	steps := []struct {
		name      string
		on        bool
		local     bool
		endpoints []int
	}{
		{"off", false, false, []int{1, 2, 3}},
		{"pods everywhere", true, false, []int{1, 2, 3}},
		{"one pod", true, true, []int{1}},
		{"pods elsewhere", true, true, []int{2, 3}},
		{"nodes and outside", true, false, []int{-1, -2, 7}},
		{"none", true, false, nil},
		{"off again", false, false, []int{1, 2, 3}},
	}
	for _, step := range steps {
		s := web()
		s.ExternalLocal = step.local
		n.setService(s, nil, step.endpoints...)
		n.configure(func(s *model.Services) { s.LocalhostNodePorts = step.on })
		for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
			to := netip.AddrPortFrom(localhost, 30080)
			want := n.expected(node, protocol, to)
			for range 3 * len(want) {
				if got := n.callUntil(want, node.space, protocol, to); !slices.Contains(want, got) {
					t.Errorf("%s: %s %s: %s; the oracle has %v", step.name, protocol, to, got, want)
				}
			}
		}
	}
}

// TestLoopbackIsGuarded: with the kernel's setting route_localnet, which node
// ports at 127.0.0.1 need, nobody else reaches them or another server there, and
// nobody speaks as 127.0.0.0/8 (CVE-2020-8558).
func TestLoopbackIsGuarded(t *testing.T) {
	n := newServiceNet(t)
	n.setService(web(), nil, 1)
	n.configure(func(s *model.Services) { s.LocalhostNodePorts = true })
	here, there := n.machines[0], n.machines[1]
	var server net.PacketConn
	var client net.Conn
	var mac net.HardwareAddr
	here.space.Do(func() {
		for _, device := range []string{"all", "eth0"} { // the kernel's own check of sources is no part of the test
			n.check(os.WriteFile("/proc/sys/net/ipv4/conf/"+device+"/rp_filter", []byte("0"), 0))
			n.check(os.WriteFile("/proc/sys/net/ipv4/conf/"+device+"/accept_local", []byte("1"), 0))
		}
		var err error
		server, err = net.ListenPacket("udp4", ":9001")
		n.check(err)
		mac = n.device("eth0").Attrs().HardwareAddr
		// Connections of the node with itself, to which the last frames could belong.
		address := here.node.Address(model.IPv4).String()
		for from, to := range map[string]string{
			"127.0.0.2:5555": address + ":9001", "127.0.0.1:5555": "127.0.0.1:9001", address + ":5555": "127.0.0.1:9001",
		} {
			own, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
			n.check(err)
			_, err = own.Write([]byte{101})
			n.check(err)
			t.Cleanup(func() { _ = own.Close() })
			if from == "127.0.0.2:5555" {
				client = own
			}
		}
	})
	defer server.Close()
	// answered has the link answer that client in the place of the server.
	answered := func() bool {
		own := netip.AddrPortFrom(here.node.Address(model.IPv4), 9001)
		n.sendFrame(there.space, mac, own, netip.MustParseAddrPort("127.0.0.2:5555"), 102)
		n.sendFrame(there.space, mac, netip.AddrPortFrom(there.node.Address(model.IPv4), 5555), own, 100) // arrives later
		buffer := make([]byte, 10)
		for _ = server.SetReadDeadline(time.Now().Add(5 * time.Second)); buffer[0] != 100; {
			_, _, err := server.ReadFrom(buffer)
			n.check(err)
		}
		_ = client.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := client.Read(buffer)
		return err == nil && buffer[0] == 102
	}
	own, other := here.node.Address(model.IPv4), there.node.Address(model.IPv4)
	frames := []struct {
		source, destination string
		port                uint16
	}{
		{other.String(), "127.0.0.1", 9001},
		{other.String(), "127.0.0.2", 9001},
		{other.String(), "127.0.0.1", 30080},
		{"127.0.0.2", own.String(), 9001},
		{"127.0.0.1", "127.0.0.1", 9001},
		{own.String(), "127.0.0.1", 9001},
	}
	for i, frame := range frames {
		from, to := netip.MustParseAddr(frame.source), netip.AddrPortFrom(netip.MustParseAddr(frame.destination), frame.port)
		n.sendFrame(there.space, mac, netip.AddrPortFrom(from, 5555), to, byte(i))
		// What is sent later arrives later.
		n.sendFrame(there.space, mac, netip.AddrPortFrom(other, 5555), netip.AddrPortFrom(own, 9001), 100)
		buffer := make([]byte, 10)
		_ = server.SetReadDeadline(time.Now().Add(5 * time.Second))
		for buffer[0] != 100 {
			if _, _, err := server.ReadFrom(buffer); err != nil {
				t.Fatalf("nothing arrives at all: %v", err)
			}
			if buffer[0] < 100 {
				t.Errorf("from %s to %s: it arrives", from, to)
			}
		}
		here.space.Do(func() {
			flows, err := rtnl.ConntrackTableList(rtnl.ConntrackTable, unix.AF_INET)
			n.check(err)
			for _, flow := range flows { // what is let in to a node port goes on to a pod
				if to.Port() != 9001 && flow.Forward.SrcIP.Equal(from.AsSlice()) && flow.Forward.DstIP.Equal(to.Addr().AsSlice()) && flow.Forward.DstPort == to.Port() {
					t.Errorf("from %s to %s: it is let in: %s", from, to, flow)
				}
			}
		})
	}
	if answered() {
		t.Error("the link answers a client at 127.0.0.2 in the place of the node's own server")
	}
	// All that would be so without the rules.
	here.space.Do(func() { n.check(nftables.New().Remove()) })
	if !answered() {
		t.Error("without the rules the answer does not arrive either")
	}
	for i, frame := range frames {
		if frame.port != 9001 {
			continue // there is no node port
		}
		n.sendFrame(there.space, mac, netip.AddrPortFrom(netip.MustParseAddr(frame.source), 5555), netip.AddrPortFrom(netip.MustParseAddr(frame.destination), frame.port), byte(i))
		buffer := make([]byte, 10)
		_ = server.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, _, err := server.ReadFrom(buffer); err != nil || int(buffer[0]) != i {
			t.Errorf("from %s to %s: without the rules it does not arrive either: %v", frame.source, frame.destination, err)
		}
	}
}

// sendFrame sends a byte over UDP with any source, by the link of a node.
func (n *serviceNet) sendFrame(from *netnstest.Namespace, to net.HardwareAddr, source, destination netip.AddrPort, word byte) {
	n.t.Helper()
	from.Do(func() {
		link := n.device("eth0").Attrs()
		frame := append(append(slices.Clone([]byte(to)), link.HardwareAddr...), 0x08, 0x00)
		ip := []byte{0x45, 0, 0, 20 + 8 + 1, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
		ip = append(append(ip, source.Addr().AsSlice()...), destination.Addr().AsSlice()...)
		binary.BigEndian.PutUint16(ip[10:], checksum(ip))
		frame = append(frame, ip...)
		frame = binary.BigEndian.AppendUint16(frame, source.Port())
		frame = binary.BigEndian.AppendUint16(frame, destination.Port())
		frame = append(frame, 0, 8+1, 0, 0, word) // IPv4 needs no checksum of UDP
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		n.check(err)
		defer unix.Close(socket)
		n.check(unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}))
	})
}

// TestNodeWithoutDefaultRoute: the node itself and pods in its namespace reach
// ClusterIPs whatever routes it has.
func TestNodeWithoutDefaultRoute(t *testing.T) {
	n := newServiceNet(t)
	m := n.machines[0]
	m.space.Do(func() {
		for _, family := range n.families {
			n.check(rtnl.RouteDel(&rtnl.Route{
				LinkIndex: n.device("eth0").Attrs().Index, Gw: subnet(1, 254, family).Addr().AsSlice(),
			}))
		}
	})
	n.setService(web(), nil, 1, 2)
	cidr := &model.ServiceCIDR{Name: "kubernetes", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/64")}}
	n.snapshot.ServiceCIDRs = n.snapshot.ServiceCIDRs.With(cidr.Name, cidr)
	n.applyAll()
	for _, family := range model.Families {
		for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
			from := client{"node1", m.space, [2]netip.Addr{m.node.Address(model.IPv4), m.node.Address(model.IPv6)}, m, false}
			vip := n.vips(family)["ClusterIP"]
			want := n.expected(from, protocol, vip)
			for range 6 {
				if got := n.callUntil(want, m.space, protocol, vip); !slices.Contains(want, got) {
					t.Errorf("%s %s: %s; the oracle has %v", protocol, vip, got, want)
				}
			}
		}
	}
}
