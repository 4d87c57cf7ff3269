package conformance_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
)

// The tests of this file are about faults that others have had with connections to
// Services. docs/service.md has a list of all.

// TestTCPServiceFlowsStay: what becomes of its endpoint, of the Service or of the
// process ends no connection of TCP (kubernetes#57841). An endpoint that becomes
// ready while no process looks is called again (kubernetes#92019,
// kubernetes#108319).
func TestTCPServiceFlowsStay(t *testing.T) {
	n := newServiceNet(t)
	const port = 9100
	echo(n, n.machines[1].pod, port)
	serve := func(conditions func(*model.Endpoint), numbers ...int) {
		t.Helper()
		n.setService(web(), conditions, numbers...)
		n.leadTo(port)
		n.applyAll()
	}
	serve(nil, 2)
	var open []*flowing
	for _, family := range model.Families {
		vips := n.vips(family)
		open = append(open,
			n.open(fmt.Sprintf("a pod by the ClusterIP, %s", family), n.machines[0].pod, vips["ClusterIP"]),
			n.open(fmt.Sprintf("a node by the ClusterIP, %s", family), n.machines[2].space, vips["ClusterIP"]),
			n.open(fmt.Sprintf("outside by the node port, %s", family), n.outside, vips["node port 1"]))
	}
	stay := func(when string) {
		t.Helper()
		for _, flow := range open {
			if err := flow.exchange(); err != nil {
				t.Errorf("%s: the connection of %s: %v", when, flow.name, err)
			}
		}
	}
	unready := func(e *model.Endpoint) { e.Ready, e.Serving = false, false }
	serve(func(e *model.Endpoint) { e.Ready, e.Terminating = false, true }, 2)
	stay("its endpoint leaves")
	serve(func(e *model.Endpoint) { unready(e); e.Terminating = true }, 2)
	stay("it does not serve any more")
	serve(nil, 1)
	stay("there is another one")
	serve(unready, 2)
	n.endAll()
	serve(nil, 2)
	stay("the process is another one")
	n.open("a pod, after its endpoint was not ready", n.machines[0].pod, n.vips(model.IPv4)["ClusterIP"])
	serve(nil)
	stay("there is no endpoint")
	n.snapshot.Services = n.snapshot.Services.Without(web().ServiceKey)
	n.applyAll()
	stay("there is no Service")
}

// TestPortsAreUsedAgain: a client that connects from a port of which the kernel
// still knows a connection that has ended, to an endpoint that is gone, is led to
// one that is there, by its first packet (kubernetes#81775, kubernetes#70747).
func TestPortsAreUsedAgain(t *testing.T) {
	n := newServiceNet(t)
	from, vip := n.machines[0].pod, n.vips(model.IPv4)["ClusterIP"]
	serve := func(number int) {
		n.setService(web(), nil, number)
		n.applyAll()
	}
	for _, abort := range []bool{false, true} {
		for _, number := range []int{3, 2} { // who knows his neighbours loses no packet
			serve(number)
			n.callUntil([]answer{{refused: true}}, from, model.TCP, vip)
		}
		for _, number := range []int{2, 3} {
			serve(number)
			server, resent := n.callFrom(from, 40000, vip, abort)
			if want := podAddress(number, model.IPv4); server != want || resent != 0 {
				t.Errorf("aborted %t: %s answers, want %s; %d packets were sent again", abort, server, want, resent)
			}
		}
	}
}

// callFrom connects from a port of the client's own, and tells who answers and how
// many packets it took more than once. Then the server closes the connection, or
// the client aborts it.
func (n *serviceNet) callFrom(from *netnstest.Namespace, port int, to netip.AddrPort, abort bool) (server netip.Addr, resent uint32) {
	n.t.Helper()
	dialer := net.Dialer{
		Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{Port: port},
		Control: func(_, _ string, raw syscall.RawConn) (err error) {
			_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			return err
		},
	}
	from.Do(func() {
		conn, err := dialer.Dial("tcp4", to.String())
		for deadline := time.Now().Add(5 * time.Second); errors.Is(err, unix.EADDRNOTAVAIL) && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond) // nobody tells when the last packet of the connection before has come
			conn, err = dialer.Dial("tcp4", to.String())
		}
		if err != nil {
			n.t.Errorf("connect from port %d: %v", port, err)
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		buffer := make([]byte, 200)
		length, err := conn.Read(buffer)
		n.check(err)
		var text string
		_, err = fmt.Sscan(string(buffer[:length]), &text)
		n.check(err)
		server, err = netip.ParseAddr(text)
		n.check(err)
		raw, err := conn.(*net.TCPConn).SyscallConn()
		n.check(err)
		n.check(raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			n.check(err)
			resent = info.Total_retrans
		}))
		if abort {
			n.check(conn.(*net.TCPConn).SetLinger(0))
			return
		}
		_, _ = conn.Read(buffer) // until the server has closed it
	})
	return server, resent
}

// TestQueriesInParallel: a resolver that asks two questions at the same moment from
// one socket gets two answers: neither waits until the other is known to the
// kernel, and none is lost as both are (kubernetes#56903).
func TestQueriesInParallel(t *testing.T) {
	n := newServiceNet(t)
	n.setService(web(), nil, 1, 2, 3)
	n.applyAll()
	from := n.machines[0].pod
	for _, family := range model.Families {
		vip := n.vips(family)["ClusterIP"]
		for range 20 {
			n.callUntil([]answer{{refused: true}}, from, model.UDP, vip)
		}
		const rounds = 200
		answers := 0
		for range rounds {
			var conn net.Conn
			from.Do(func() {
				var err error
				conn, err = net.Dial("udp", vip.String())
				n.check(err)
			})
			var ready, both sync.WaitGroup
			ready.Add(2)
			for range 2 {
				both.Go(func() {
					ready.Done()
					ready.Wait()
					_, err := conn.Write([]byte("?"))
					n.check(err)
				})
			}
			both.Wait()
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second)) // as resolvers wait
			for heard := 0; heard < 2; heard++ {
				if _, err := conn.Read(make([]byte, 200)); err != nil {
					break
				}
				answers++
			}
			_ = conn.Close()
		}
		if answers != 2*rounds {
			t.Errorf("%s: %d answers to %d questions", family, answers, 2*rounds)
		}
	}
}

// TestNobodyAnswersForVIPs: addresses of Services are on no interface, and no node
// says of itself that it has one: of several who do, the last has all packets
// (metallb#153).
func TestNobodyAnswersForVIPs(t *testing.T) {
	n := newServiceNet(t)
	n.setService(web(), nil, 1, 2)
	n.applyAll()
	var vips []netip.Addr
	for _, family := range model.Families {
		for _, kind := range []string{"ClusterIP", "external IP", "load balancer"} {
			vips = append(vips, n.vips(family)[kind].Addr())
		}
	}
	for _, m := range n.machines {
		m.space.Do(func() {
			addrs, err := rtnl.AddrList(nil, rtnl.FAMILY_ALL)
			n.check(err)
			for _, addr := range addrs {
				if slices.Contains(vips, addrOf(addr.IP)) {
					t.Errorf("%s has %s", m.node.Name, addr)
				}
			}
		})
	}
	nodes := []netip.Addr{n.machines[0].node.Address(model.IPv4), n.machines[1].node.Address(model.IPv4)}
	for _, addr := range n.whoHas(slices.Concat(vips[:3], nodes), nodes) {
		if !slices.Contains(nodes, addr) {
			t.Errorf("a node answers that it has %s", addr)
		}
	}
}

// whoHas asks the nodes' network for IPv4 addresses by ARP, in that order, and
// returns those that somebody has, once the last ones have answered.
func (n *serviceNet) whoHas(addrs, last []netip.Addr) (had []netip.Addr) {
	n.t.Helper()
	n.router.Do(func() {
		link := n.device("seg1").Attrs()
		const arp = unix.ETH_P_ARP<<8&0xff00 | unix.ETH_P_ARP>>8 // in the order of the network
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, arp)
		n.check(err)
		defer unix.Close(socket)
		n.check(unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: arp, Ifindex: link.Index}))
		n.check(unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
		for _, addr := range addrs {
			frame := append([]byte{255, 255, 255, 255, 255, 255}, link.HardwareAddr...)
			frame = append(frame, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet and IPv4, a request
			frame = append(append(frame, link.HardwareAddr...), subnet(1, 254, model.IPv4).Addr().AsSlice()...)
			frame = append(append(frame, 0, 0, 0, 0, 0, 0), addr.AsSlice()...)
			n.check(unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}))
		}
		for buffer := make([]byte, 100); !slices.Equal(last, intersect(last, had)); {
			length, _, err := unix.Recvfrom(socket, buffer, 0)
			if err != nil {
				n.t.Errorf("of %s, only %s answered: %v", last, had, err)
				return
			}
			const header = 14
			if reply := buffer[:length]; length >= header+28 && binary.BigEndian.Uint16(reply[header+6:]) == 2 {
				had = append(had, netip.AddrFrom4([4]byte(reply[header+14:])))
			}
		}
	})
	return had
}

// intersect are those that others have, too.
func intersect(these, others []netip.Addr) (both []netip.Addr) {
	for _, addr := range these {
		if slices.Contains(others, addr) {
			both = append(both, addr)
		}
	}
	return both
}
