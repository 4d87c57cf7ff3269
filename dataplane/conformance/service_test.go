package conformance_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// The tests of this file call addresses of Services from everywhere, and compare
// who answers, and whom he sees, with the oracle. The router sends what is for
// addresses of Services to node 1.

// serviceNet is the network of TestPackets with a server in each pod, on each
// node and outside.
type serviceNet struct {
	*network
	servers map[netip.Addr]bool
	kept    []*lasting // clients that go on sending
}

func newServiceNet(t testing.TB) *serviceNet {
	n := &serviceNet{network: newNet(t, model.Families[:]), servers: map[netip.Addr]bool{}}
	for _, m := range n.machines {
		m.space.Do(func() {
			for _, limit := range []string{"ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"} { // of refusals
				n.check(os.WriteFile("/proc/sys/net/"+limit, []byte("0"), 0))
			}
		})
		n.serve(m.pod, n.podOf(m, model.IPv4), n.podOf(m, model.IPv6))
		n.serve(m.space, m.node.Addresses...)
	}
	n.serve(n.outside, subnet(7, 7, model.IPv4).Addr(), subnet(7, 7, model.IPv6).Addr())
	n.router.Do(func() {
		for family, vips := range []string{"10.96.0.0/16", "fd96::/64"} {
			for _, prefix := range []string{vips, []string{"203.0.113.0/24", "2001:db8:113::/64"}[family]} {
				n.check(rtnl.RouteAdd(&rtnl.Route{
					Dst: ipNet(netip.MustParsePrefix(prefix)), LinkIndex: n.device("seg1").Attrs().Index,
					Gw: n.machines[0].node.Address(model.Families[family]).AsSlice(),
				}))
			}
		}
	})
	return n
}

func (n *serviceNet) serve(in *netnstest.Namespace, addrs ...netip.Addr) {
	n.serveAt(in, 9000, addrs...)
}

// serveAt answers at a port of TCP and UDP with the address that was called
// there, that of the client, and the port, until the test ends. Over UDP the
// question follows.
func (n *serviceNet) serveAt(in *netnstest.Namespace, port uint16, addrs ...netip.Addr) {
	for _, addr := range addrs {
		var tcp net.Listener
		var udp net.PacketConn
		in.Do(func() {
			var err error
			tcp, err = net.Listen("tcp", netip.AddrPortFrom(addr, port).String())
			n.check(err)
			udp, err = net.ListenPacket("udp", netip.AddrPortFrom(addr, port).String())
			n.check(err)
		})
		n.servers[addr] = true
		done := make(chan struct{}, 2)
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				conn, err := tcp.Accept()
				if err != nil {
					return
				}
				_, _ = fmt.Fprintf(conn, "%s %s %d", addr, conn.RemoteAddr(), port)
				_ = conn.Close()
			}
		}()
		go func() {
			defer func() { done <- struct{}{} }()
			for buffer := make([]byte, 100); ; {
				length, from, err := udp.ReadFrom(buffer)
				if err != nil {
					return
				}
				_, _ = udp.WriteTo(fmt.Appendf(nil, "%s %s %d %s", addr, from, port, buffer[:length]), from)
			}
		}()
		n.t.Cleanup(func() { _ = tcp.Close(); _ = udp.Close(); <-done; <-done })
	}
}

// answer is what a client meets.
type answer struct {
	server, seen netip.Addr // who answered, and whom he saw
	refused      bool       // nobody answered; true: and the client was told
}

func (a answer) String() string {
	switch {
	case a.server.IsValid():
		return fmt.Sprintf("%s, who sees %s", a.server, a.seen)
	case a.refused:
		return "refused"
	}
	return "silence"
}

// call asks once, from a new socket.
func (n *serviceNet) call(from *netnstest.Namespace, protocol model.Protocol, to netip.AddrPort, patience time.Duration) (a answer) {
	n.t.Helper()
	from.Do(func() {
		conn, err := net.DialTimeout(strings.ToLower(protocol.String()), to.String(), patience)
		if err == nil {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			buffer, length := make([]byte, 200), 0
			// The node itself is told at once that nothing left it, and then why.
			if _, err = conn.Write([]byte("?")); err == nil || errors.Is(err, syscall.EPERM) {
				length, err = conn.Read(buffer)
			}
			if err == nil {
				said := strings.Fields(string(buffer[:length]))
				a.server = netip.MustParseAddr(said[0])
				a.seen = netip.MustParseAddrPort(said[1]).Addr().Unmap()
			}
		}
		a.refused = errors.Is(err, syscall.ECONNREFUSED)
	})
	return a
}

// client is who calls, and through which nodes.
type client struct {
	name  string
	space *netnstest.Namespace
	addr  [2]netip.Addr
	first *machine // the node that his packets meet first; nil: the one that is called
	pod   bool
}

func (n *serviceNet) clients() (all []client) {
	for _, m := range n.machines {
		all = append(all,
			client{m.node.Name + "'s pod", m.pod, [2]netip.Addr{n.podOf(m, model.IPv4), n.podOf(m, model.IPv6)}, m, true},
			client{m.node.Name, m.space, [2]netip.Addr{m.node.Address(model.IPv4), m.node.Address(model.IPv6)}, m, false})
	}
	return append(all, client{"outside", n.outside, [2]netip.Addr{subnet(7, 7, model.IPv4).Addr(), subnet(7, 7, model.IPv6).Addr()}, nil, false})
}

// expected are the answers that the oracle allows to a client.
func (n *serviceNet) expected(of client, protocol model.Protocol, to netip.AddrPort) (all []answer) {
	packet := plan.Packet{
		Source: of.addr[model.FamilyOf(to.Addr())], Destination: to.Addr(), Protocol: protocol, Port: to.Port(),
	}
	at := of.first
	owner := n.machines[0] // of what the router is asked for
	for _, m := range n.machines {
		if slices.Contains(m.node.Addresses, to.Addr()) {
			owner = m
		}
	}
	if at == nil {
		at = owner
	}
	for {
		packet.Local = slices.Contains(at.node.Addresses, packet.Destination)
		choices := plan.Choices(at.plan, packet)
		hop := plan.Verdict(at.plan, packet)
		switch {
		case hop.Here:
			return []answer{{server: packet.Destination, seen: packet.Source}}
		case hop.Dropped:
			return []answer{{}}
		case !hop.Reachable:
			return []answer{{refused: true}}
		case len(choices) == 0 && at == owner:
			return []answer{{refused: true}} // no server has that port
		case len(choices) == 0:
			if hop.Masquerade {
				packet.Source = at.node.Address(model.FamilyOf(to.Addr()))
			}
			at = owner
			continue
		}
		for _, packet.Backend = range choices {
			hop := plan.Verdict(at.plan, packet)
			seen := packet.Source
			if hop.Masquerade {
				if seen = hop.As; !seen.IsValid() {
					seen = n.outgoing(at, packet.Backend.Addr())
				}
			}
			all = append(all, answer{server: packet.Backend.Addr(), seen: seen})
		}
		return all
	}
}

// outgoing is the address that a node has on the way to a destination.
func (n *serviceNet) outgoing(from *machine, to netip.Addr) (source netip.Addr) {
	from.space.Do(func() {
		routes, err := rtnl.RouteGet(to.AsSlice())
		n.check(err)
		family := rtnl.FAMILY_V4
		if to.Is6() {
			family = rtnl.FAMILY_V6
		}
		link, err := rtnl.LinkByIndex(routes[0].LinkIndex)
		n.check(err)
		addrs, err := rtnl.AddrList(link, family)
		n.check(err)
		for _, addr := range addrs {
			if deprecated := addr.Flags&unix.IFA_F_DEPRECATED != 0; !source.IsValid() && !deprecated && addr.Scope == int(rtnl.SCOPE_UNIVERSE) {
				source = addrOf(addr.IP)
			}
		}
	})
	return source
}

// agree calls a VIP from everywhere at once.
func (n *serviceNet) agree(what string, protocol model.Protocol, to netip.AddrPort) {
	n.t.Helper()
	clients := n.clients()
	wrong := make(chan string, len(clients))
	for _, from := range clients {
		want := n.expected(from, protocol, to)
		calls := 2 * len(want)
		if want[0] == (answer{}) {
			calls = 1 // each takes its time
		}
		go func() {
			for range calls {
				if got := n.callUntil(want, from.space, protocol, to); !slices.Contains(want, got) {
					wrong <- fmt.Sprintf("%s, %s calls %s %s: %s; the oracle has %v", what, from.name, protocol, to, got, want)
					return
				}
			}
			wrong <- ""
		}()
	}
	var texts []string
	for range clients {
		texts = append(texts, <-wrong)
	}
	for _, text := range texts { // now that no goroutine asks whether the test has failed
		if text != "" {
			n.t.Error(text)
		}
	}
	if n.t.Failed() {
		n.t.FailNow()
	}
}

// callUntil calls again if nobody answers though somebody should: the kernel
// drops what comes before it has finished with a new neighbour.
func (n *serviceNet) callUntil(want []answer, from *netnstest.Namespace, protocol model.Protocol, to netip.AddrPort) (got answer) {
	silent := answer{}
	patience, attempts := 200*time.Millisecond, 8
	if protocol == model.TCP && want[0] != silent {
		patience, attempts = 4*time.Second, 2 // TCP asks again by itself, but not after it was told of an error
	}
	for range attempts {
		if got = n.call(from, protocol, to, patience); got != silent || want[0] == silent {
			return got
		}
	}
	return got
}

// apply computes and applies anew on all nodes.
func (n *serviceNet) applyAll() {
	n.t.Helper()
	for _, m := range n.machines {
		n.apply(m)
	}
}

// setService puts in a Service and its endpoints, given by the numbers of the nodes
// whose pods they are. Negative ones are the nodes themselves, and 7 is outside.
func (n *serviceNet) setService(s *model.Service, conditions func(*model.Endpoint), numbers ...int) {
	n.snapshot.Services = n.snapshot.Services.With(s.ServiceKey, s)
	for _, family := range model.Families {
		slice := &model.EndpointSlice{
			SliceKey: model.SliceKey{Namespace: s.Namespace, Name: s.Name + family.String()}, Service: s.Name, Family: family,
			Ports: []model.EndpointPort{{Name: "tcp", Protocol: model.TCP, Port: 9000}, {Name: "udp", Protocol: model.UDP, Port: 9000}},
		}
		for _, number := range numbers {
			endpoint := model.Endpoint{Ready: true, Serving: true}
			switch {
			case number == 7:
				endpoint.Address = subnet(7, 7, family).Addr()
			case number < 0:
				endpoint.Node = fmt.Sprintf("node%d", -number)
				endpoint.Address = n.machines[-number-1].node.Address(family)
			default:
				endpoint.Node = fmt.Sprintf("node%d", number)
				endpoint.Address = podAddress(number, family)
			}
			if conditions != nil {
				conditions(&endpoint)
			}
			slice.Endpoints = append(slice.Endpoints, endpoint)
		}
		n.snapshot.Slices = n.snapshot.Slices.With(slice.SliceKey, slice)
	}
}

// leadTo has all Services that are there lead to another port of their endpoints.
func (n *serviceNet) leadTo(port uint16) {
	for key, slice := range n.snapshot.Slices.All() {
		moved := *slice
		moved.Ports = slices.Clone(slice.Ports)
		for i := range moved.Ports {
			moved.Ports[i].Port = port
		}
		n.snapshot.Slices = n.snapshot.Slices.With(key, &moved)
	}
}

// forgetFlows has the nodes forget connections: a new one over UDP from a port
// that was used before would be taken for an old one, which no policy cuts off.
func (n *serviceNet) forgetFlows() {
	for _, m := range n.machines {
		m.space.Do(func() { n.check(rtnl.ConntrackTableFlush(rtnl.ConntrackTable)) })
	}
}

// web is a Service with every kind of address, in both families.
func web() *model.Service {
	return &model.Service{
		ServiceKey:      model.ServiceKey{Namespace: "default", Name: "web"},
		ClusterIPs:      []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd96::1")},
		ExternalIPs:     []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8:113::1")},
		LoadBalancerIPs: []netip.Addr{netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("2001:db8:113::2")},
		Ports: []model.ServicePort{
			{Name: "tcp", Protocol: model.TCP, Port: 80, NodePort: 30080},
			{Name: "udp", Protocol: model.UDP, Port: 80, NodePort: 30080},
		},
	}
}

// vips are those of web, node ports of nodes 1 and 3 included.
func (n *serviceNet) vips(family model.Family) map[string]netip.AddrPort {
	s := web()
	return map[string]netip.AddrPort{
		"ClusterIP":     netip.AddrPortFrom(s.ClusterIPs[family], 80),
		"external IP":   netip.AddrPortFrom(s.ExternalIPs[family], 80),
		"load balancer": netip.AddrPortFrom(s.LoadBalancerIPs[family], 80),
		"node port 1":   netip.AddrPortFrom(n.machines[0].node.Address(family), 30080),
		"node port 3":   netip.AddrPortFrom(n.machines[2].node.Address(family), 30080),
	}
}

func (n *serviceNet) agreeAll(what string) {
	n.t.Helper()
	for _, family := range model.Families {
		for kind, vip := range n.vips(family) {
			for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
				n.agree(what+", "+kind, protocol, vip)
			}
		}
	}
}

// TestServicePackets: every kind of address, under each policy, from pods, nodes
// and outside.
func TestServicePackets(t *testing.T) {
	n := newServiceNet(t)
	cidr := &model.ServiceCIDR{Name: "kubernetes", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/64")}}
	n.snapshot.ServiceCIDRs = n.snapshot.ServiceCIDRs.With(cidr.Name, cidr)
	steps := []struct {
		name      string
		change    func(*model.Service)
		endpoints []int
	}{
		{"pods everywhere", func(*model.Service) {}, []int{1, 2, 3}},
		{"one pod, that calls itself", func(*model.Service) {}, []int{1}},
		{"nodes and outside", func(*model.Service) {}, []int{-1, -3, 7}},
		{"external Local", func(s *model.Service) { s.ExternalLocal = true }, []int{1, 2}},
		{"internal Local", func(s *model.Service) { s.InternalLocal = true }, []int{1, 2}},
		{"sticky", func(s *model.Service) { s.Affinity = 600 }, []int{1, 2, 3}},
		{"sticky, both Local", func(s *model.Service) { s.Affinity, s.InternalLocal, s.ExternalLocal = 600, true, true }, []int{1, 3}},
		{"for some", func(s *model.Service) {
			s.SourceRanges = []netip.Prefix{podRange(1, model.IPv4), podRange(1, model.IPv6), subnet(7, 0, model.IPv4), subnet(7, 0, model.IPv6).Masked()}
		}, []int{1, 2}},
		{"no endpoints", func(*model.Service) {}, nil},
	}
	for _, step := range steps {
		s := web()
		step.change(s)
		n.setService(s, nil, step.endpoints...)
		n.applyAll()
		n.forgetFlows()
		n.agreeAll(step.name)
	}
	for _, family := range model.Families {
		vip := n.vips(family)["ClusterIP"].Addr()
		n.agree("another port", model.TCP, netip.AddrPortFrom(vip, 81))
		n.agree("no Service's", model.TCP, netip.AddrPortFrom(vip.Next(), 80))
	}
}
