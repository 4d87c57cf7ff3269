package conformance_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// kubeDNS is the Service that pods send their queries to. Its endpoints are the
// nodes themselves, at port 9000.
func kubeDNS() *model.Service {
	return &model.Service{
		ServiceKey: model.DefaultDNS().Service,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd96::a")},
		Ports: []model.ServicePort{
			{Name: "udp", Protocol: model.UDP, Port: 53}, {Name: "tcp", Protocol: model.TCP, Port: 53},
		},
	}
}

// dnsServer answers on one node, at the addresses of DNS, as those of serviceNet
// do. One that hangs only listens.
type dnsServer struct {
	closers []func() error
	hung    atomic.Bool
	done    chan struct{}
	running int
}

func (n *serviceNet) startDNS(m *machine) *dnsServer {
	s := &dnsServer{done: make(chan struct{})}
	freebind := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		failed := conn.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		})
		if err == nil {
			err = failed
		}
		return err
	}}
	for _, addr := range kubeDNS().ClusterIPs {
		var udp net.PacketConn
		var tcp net.Listener
		m.space.Do(func() {
			var err error
			udp, err = freebind.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(addr, 53).String())
			n.check(err)
			tcp, err = freebind.Listen(context.Background(), "tcp", netip.AddrPortFrom(addr, 53).String())
			n.check(err)
		})
		s.closers = append(s.closers, udp.Close, tcp.Close)
		s.running += 2
		go s.answerUDP(addr, udp)
		go s.answerTCP(addr, tcp)
	}
	n.t.Cleanup(s.stop)
	return s
}

func (s *dnsServer) answerUDP(addr netip.Addr, udp net.PacketConn) {
	defer func() { s.done <- struct{}{} }()
	for buffer := make([]byte, 100); ; {
		_, from, err := udp.ReadFrom(buffer)
		if err != nil {
			return
		}
		if !s.hung.Load() {
			_, _ = udp.WriteTo(fmt.Appendf(nil, "%s %s", addr, from), from)
		}
	}
}

func (s *dnsServer) answerTCP(addr netip.Addr, tcp net.Listener) {
	defer func() { s.done <- struct{}{} }()
	for {
		conn, err := tcp.Accept()
		if err != nil {
			return
		}
		if !s.hung.Load() {
			_, _ = fmt.Fprintf(conn, "%s %s", addr, conn.RemoteAddr())
			_ = conn.Close()
		}
	}
}

// stop ends it as a kill does: the kernel closes its sockets.
func (s *dnsServer) stop() {
	for _, stop := range s.closers {
		_ = stop()
	}
	for range s.running {
		<-s.done
	}
	s.closers, s.running = nil, 0
}

// serverIs tells a node how its server is.
func (n *serviceNet) serverIs(m *machine, server model.NameServer) {
	n.t.Helper()
	n.snapshot.NameServers = [...]model.NameServer{server, server}
	n.apply(m)
	n.snapshot.NameServers = [len(model.Families)]model.NameServer{}
}

// queried are the connections to the port of DNS that a node tracks.
func (n *serviceNet) queried(m *machine) (all []string) {
	m.space.Do(func() {
		for _, family := range []rtnl.InetFamily{unix.AF_INET, unix.AF_INET6} {
			flows, err := rtnl.ConntrackTableList(rtnl.ConntrackTable, family)
			n.check(err)
			for _, flow := range flows {
				if flow.Forward.DstPort == 53 || flow.Reverse.DstPort == 53 || flow.Forward.SrcPort == 53 {
					all = append(all, flow.String())
				}
			}
		}
	})
	return all
}

// TestDNS asks the address of DNS from a pod, whose node answers by itself as long
// as somebody listens there, and from the node.
func TestDNS(t *testing.T) {
	n := newServiceNet(t)
	service := kubeDNS()
	n.setService(service, nil, -1, -2)
	n.applyAll()
	first := n.machines[0]
	server := n.startDNS(first)

	// Before anybody has asked the server, pods reach it, and the node asks others.
	n.answers(first, "as it begins", service, true, false)
	if flows := n.queried(first); slices.ContainsFunc(flows, func(flow string) bool {
		return !strings.Contains(flow, "dport=9000") && !strings.Contains(flow, "sport=9000")
	}) {
		t.Errorf("queries of pods that are answered on the node are tracked: %v", flows)
	}
	n.forgetFlows()

	n.serverIs(first, model.NameServerWell)
	n.answers(first, "when it is well", service, true, true)
	n.agree("well", model.UDP, netip.AddrPortFrom(service.ClusterIPs[0], 53))
	n.forgetFlows()
	n.answers(first, "when it is well", service, true, true)
	if flows := n.queried(first); len(flows) > 0 {
		t.Errorf("queries that are answered on the node are tracked: %v", flows)
	}

	server.stop()
	n.serverIs(first, model.NameServerAbsent)
	n.answers(first, "when nobody listens", service, false, false)

	server = n.startDNS(first)
	n.serverIs(first, model.NameServerWell)
	n.answers(first, "when it is there again", service, true, true)

	server.hung.Store(true)
	n.serverIs(first, model.NameServerHung)
	n.answers(first, "when it hangs", service, false, false)
	if first.plan.DNS.Own.Len() != 0 || !plan.Verdict(first.plan, plan.Packet{
		Source: n.podOf(first, model.IPv4), Destination: service.ClusterIPs[0], Protocol: model.UDP, Port: 53,
	}).Pod.IsValid() {
		t.Error("the oracle has queries answered by a server that hangs")
	}
}

// answers asks from a pod and from its node, and wants who answers: the node
// itself, or an endpoint elsewhere.
func (n *serviceNet) answers(m *machine, when string, service *model.Service, pod, own bool) {
	n.t.Helper()
	for _, from := range []struct {
		name  string
		space *netnstest.Namespace
		addr  func(model.Family) netip.Addr
		here  bool
	}{
		{"the pod", m.pod, func(family model.Family) netip.Addr { return n.podOf(m, family) }, pod},
		{"the node", m.space, m.node.Address, own},
	} {
		for _, protocol := range []model.Protocol{model.UDP, model.TCP} {
			for _, to := range service.ClusterIPs {
				at := netip.AddrPortFrom(to, 53)
				got := n.callUntil([]answer{{server: to}}, from.space, protocol, at)
				want := answer{server: to, seen: from.addr(model.FamilyOf(to))}
				switch {
				case from.here && got != want:
					n.t.Errorf("%s, %s asks %s %s: %s, want %s", when, from.name, protocol, to, got, want)
				case !from.here && (!got.server.IsValid() || got.server == to || slices.Contains(m.node.Addresses, got.server)):
					n.t.Errorf("%s, %s asks %s %s: %s, want another node", when, from.name, protocol, to, got)
				}
			}
		}
	}
}

// TestDNSKilled: a server that is killed under load costs the query that it has
// in hand, and one that comes back none.
func TestDNSKilled(t *testing.T) {
	n := newServiceNet(t)
	service := kubeDNS()
	n.setService(service, nil, -1, -2)
	n.applyAll()
	first := n.machines[0]
	server := n.startDNS(first)
	for _, to := range service.ClusterIPs {
		n.callUntil([]answer{{server: to}}, first.pod, model.UDP, netip.AddrPortFrom(to, 53)) // neighbours
	}
	for round := range 3 {
		asked, lost, here, elsewhere := 0, 0, 0, 0
		ask := func(times int) {
			for range times {
				to := service.ClusterIPs[asked%2]
				asked++
				switch got := n.call(first.pod, model.UDP, netip.AddrPortFrom(to, 53), 500*time.Millisecond); {
				case got.server == to:
					here++
				case got.server.IsValid():
					elsewhere++
				default:
					lost++
				}
			}
		}
		var killed atomic.Bool
		go func() {
			time.Sleep(20 * time.Millisecond) // of the load, wherever that is
			server.stop()
			killed.Store(true)
		}()
		for !killed.Load() {
			ask(1)
		}
		ask(50)
		if lost > 1 || elsewhere == 0 {
			t.Errorf("round %d: of %d queries %d were lost, %d answered here, %d elsewhere; want one lost at most", round, asked, lost, here, elsewhere)
		}
		server = n.startDNS(first)
		asked, lost, here, elsewhere = 0, 0, 0, 0
		ask(50)
		if here != asked {
			t.Errorf("round %d: when the server is back, of %d queries %d are answered here, %d elsewhere, %d lost", round, asked, here, elsewhere, lost)
		}
	}
}

// TestDNSConnections: a connection of TCP to a server elsewhere goes on there when
// somebody begins to listen on the node, who gets the next one.
func TestDNSConnections(t *testing.T) {
	n := newServiceNet(t)
	service := kubeDNS()
	n.setService(service, nil, -2)
	first, second := n.machines[0], n.machines[1]
	for key, slice := range n.snapshot.Slices.All() {
		changed := *slice
		changed.Ports = []model.EndpointPort{{Name: "tcp", Protocol: model.TCP, Port: 9001}}
		n.snapshot.Slices = n.snapshot.Slices.With(key, &changed)
	}
	n.applyAll()
	var open []net.Conn
	for _, to := range service.ClusterIPs {
		n.echo(second, netip.AddrPortFrom(second.node.Address(model.FamilyOf(to)), 9001))
		for _, from := range []*netnstest.Namespace{first.pod, first.space} {
			from.Do(func() {
				conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, 53).String(), 4*time.Second)
				n.check(err)
				t.Cleanup(func() { _ = conn.Close() })
				open = append(open, conn)
			})
		}
	}
	say := func(conn net.Conn, when string) {
		buffer := make([]byte, 1)
		n.check(conn.SetDeadline(time.Now().Add(4 * time.Second)))
		_, err := conn.Write([]byte("?"))
		if err == nil {
			_, err = conn.Read(buffer)
		}
		if err != nil {
			t.Errorf("%s, a connection to a server elsewhere ends: %v", when, err)
		}
	}
	for _, conn := range open {
		say(conn, "before somebody listens here")
	}
	n.startDNS(first)
	n.serverIs(first, model.NameServerWell)
	for i, conn := range open {
		say(conn, "when somebody listens here")
		to := netip.AddrPortFrom(service.ClusterIPs[i/2], 53)
		for _, from := range []*netnstest.Namespace{first.pod, first.space} {
			if got := n.call(from, model.TCP, to, 4*time.Second); got.server != to.Addr() {
				t.Errorf("the next connection to %s: %s", to, got)
			}
		}
		say(conn, "after another one here")
	}
}

// echo says the same, at one address of a node, until the test ends.
func (n *serviceNet) echo(in *machine, at netip.AddrPort) {
	var listener net.Listener
	in.space.Do(func() {
		var err error
		listener, err = net.Listen("tcp", at.String())
		n.check(err)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	n.t.Cleanup(func() { _ = listener.Close(); <-done })
}
