package conformance_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	nft "github.com/google/nftables"
	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
)

// The tests of this file are about what Services remember of clients.

// lasting is a client over UDP that goes on sending from one socket.
type lasting struct {
	name  string
	conn  net.Conn
	asked int // questions
}

func (n *serviceNet) lasting(name string, from *netnstest.Namespace, to netip.AddrPort) *lasting {
	l := &lasting{name: name}
	from.Do(func() {
		var err error
		l.conn, err = net.Dial("udp", to.String())
		n.check(err)
	})
	n.t.Cleanup(func() { _ = l.conn.Close() })
	return l
}

// hears is who answers; invalid: nobody. Answers to what it asked before do not
// count.
func (l *lasting) hears() (server netip.AddrPort) {
	buffer := make([]byte, 200)
	for range 5 {
		l.asked++
		question := fmt.Sprint(l.asked)
		_ = l.conn.SetDeadline(time.Now().Add(150 * time.Millisecond))
		if _, err := l.conn.Write([]byte(question)); err != nil {
			continue // nobody listened, a moment ago
		}
		for {
			length, err := l.conn.Read(buffer)
			if err != nil {
				break
			}
			if said := strings.Fields(string(buffer[:length])); said[3] == question {
				return netip.MustParseAddrPort(net.JoinHostPort(said[0], said[2]))
			}
		}
	}
	return netip.AddrPort{}
}

// keep has one more client send, whom hear listens to.
func (n *serviceNet) keep(name string, from *netnstest.Namespace, to netip.AddrPort) {
	n.kept = append(n.kept, n.lasting(name, from, to))
}

// hear fails if a client is not answered by that server; invalid: by nobody.
func (n *serviceNet) hear(what string, want netip.AddrPort) {
	n.t.Helper()
	heard := make([]netip.AddrPort, len(n.kept))
	var all sync.WaitGroup
	for i, client := range n.kept {
		all.Go(func() { heard[i] = client.hears() })
	}
	all.Wait()
	for i, got := range heard {
		if got != want {
			n.t.Errorf("%s: %s is answered by %s, want %s", what, n.kept[i].name, got, want)
		}
	}
}

// endAll has the processes of all nodes end: the next apply is another one's.
func (n *serviceNet) endAll() {
	for _, m := range n.machines {
		m.plane = nil
	}
}

// TestUDPServiceFlows keeps clients sending while endpoints of the Service come
// and go: they are always with one that serves, and never with one that is gone,
// by whichever kind of address they call.
func TestUDPServiceFlows(t *testing.T) {
	for _, family := range model.Families {
		t.Run(family.String(), func(t *testing.T) {
			n := newServiceNet(t)
			for _, m := range n.machines {
				n.serveAt(m.pod, 9001, n.podOf(m, family))
			}
			vips := n.vips(family)
			n.keep("a pod, by the ClusterIP", n.machines[1].pod, vips["ClusterIP"])
			n.keep("a node, by the ClusterIP", n.machines[2].space, vips["ClusterIP"])
			n.keep("outside, by the node port", n.outside, vips["node port 1"])
			n.keep("outside, by the external IP", n.outside, vips["external IP"])
			n.keep("outside, by the load balancer", n.outside, vips["load balancer"])
			pod := func(number int) netip.AddrPort { return netip.AddrPortFrom(podAddress(number, family), 9000) }
			serve := func(conditions func(*model.Endpoint), numbers ...int) {
				t.Helper()
				n.setService(web(), conditions, numbers...)
				n.applyAll()
			}
			nobody := netip.AddrPort{}
			n.hear("no Service", nobody)
			serve(nil)
			n.hear("no endpoints", nobody)
			serve(nil, 1)
			n.hear("from none to one (kubernetes#48370)", pod(1))
			serve(nil, 2)
			n.hear("moved", pod(2))
			serve(func(e *model.Endpoint) { e.Ready, e.Terminating = e.Node != "node2", e.Node == "node2" }, 1, 2)
			n.hear("the one that leaves still serves", pod(2))
			serve(func(e *model.Endpoint) { e.Ready = e.Node != "node2"; e.Serving = e.Ready }, 1, 2)
			n.hear("it does not serve any more", pod(1))
			serve(func(e *model.Endpoint) { e.Ready, e.Serving = false, false }, 1)
			n.hear("none is ready", nobody)
			serve(nil, 1)
			n.hear("it is ready again (kubernetes#105657)", pod(1))
			n.setService(web(), nil, 1)
			n.leadTo(9001)
			n.applyAll()
			n.hear("by another targetPort", netip.AddrPortFrom(pod(1).Addr(), 9001))
			serve(nil)
			n.hear("from one to none (kubernetes#139628)", nobody)
			serve(nil, 3)
			n.hear("from none to another", pod(3))
			n.endAll()
			serve(nil, 1)
			n.hear("moved while nobody looked", pod(1))
			n.snapshot.Services = n.snapshot.Services.Without(web().ServiceKey)
			n.applyAll()
			n.hear("the Service is gone (kubernetes#141371)", nobody)
			serve(nil, 1)
			n.hear("it is back", pod(1))
			n.endAll()
			n.snapshot.Services = n.snapshot.Services.Without(web().ServiceKey)
			n.applyAll()
			n.hear("it is gone while nobody looked", nobody)
		})
	}
}

// TestUDPServiceFlowsAndPolicy: policies have no say in what becomes of flows that
// are there, and a client finds the first endpoint that they let it have.
func TestUDPServiceFlowsAndPolicy(t *testing.T) {
	n := newServiceNet(t)
	pod := func(number int) netip.AddrPort { return netip.AddrPortFrom(podAddress(number, model.IPv4), 9000) }
	serve := func(local bool, numbers ...int) {
		t.Helper()
		s := web()
		s.InternalLocal = local
		n.setService(s, nil, numbers...)
		n.applyAll()
	}
	n.keep("a pod of node 2", n.machines[1].pod, n.vips(model.IPv4)["ClusterIP"])
	serve(true, 1)
	n.hear("Local, and none here", netip.AddrPort{})
	serve(true, 1, 2)
	n.hear("one comes here (kubernetes#126934)", pod(2))
	serve(true, 1)
	n.hear("it goes", netip.AddrPort{})
	serve(false, 1)
	n.hear("no longer Local", pod(1))
	serve(true, 1, 2)
	n.hear("Local again: a flow that is there stays", pod(1))
}

// TestSilentUDPServiceFlows: a flow that nobody answers is forgotten with its
// endpoint as others are: its client may send on for hours (kubernetes#139628).
func TestSilentUDPServiceFlows(t *testing.T) {
	n := newServiceNet(t)
	n.machines[0].pod.Do(func() {
		silent, err := net.ListenPacket("udp", ":9009")
		n.check(err)
		t.Cleanup(func() { _ = silent.Close() })
	})
	serve := func(numbers ...int) {
		n.setService(web(), nil, numbers...)
		n.leadTo(9009)
		n.applyAll()
	}
	led := func() (count int) {
		n.machines[1].space.Do(func() {
			flows, err := rtnl.ConntrackTableList(rtnl.ConntrackTable, rtnl.FAMILY_V4)
			n.check(err)
			for _, flow := range flows {
				if flow.Reverse.SrcPort == 9009 {
					count++
				}
			}
		})
		return count
	}
	serve(1)
	client := n.lasting("", n.machines[1].pod, n.vips(model.IPv4)["ClusterIP"])
	_, err := client.conn.Write([]byte("?"))
	n.check(err)
	if got := led(); got != 1 {
		t.Fatalf("%d flows to the endpoint", got)
	}
	serve()
	if got := led(); got != 0 {
		t.Errorf("%d flows to an endpoint that is gone", got)
	}
}

// TestRestartKeepsFlows: a process that starts cuts nobody off (kubernetes#122740).
func TestRestartKeepsFlows(t *testing.T) {
	n := newServiceNet(t)
	n.setService(web(), nil, 1, 2, 3)
	n.applyAll()
	clients := map[*lasting]netip.AddrPort{}
	for range 10 {
		client := n.lasting("", n.machines[1].pod, n.vips(model.IPv4)["ClusterIP"])
		clients[client] = client.hears()
	}
	n.endAll()
	n.applyAll()
	for client, want := range clients {
		if got := client.hears(); got != want {
			t.Errorf("a client that was with %s is with %s", want, got)
		}
	}
}

// TestStickyClients: a client stays with its endpoint, by whichever address of
// the Service it calls, until the endpoint is gone or the time is over.
func TestStickyClients(t *testing.T) {
	for _, family := range model.Families {
		t.Run(family.String(), func(t *testing.T) {
			n := newServiceNet(t)
			serveSome := func(seconds uint32, conditions func(*model.Endpoint), numbers ...int) {
				s := web()
				s.Affinity = seconds
				n.setService(s, conditions, numbers...)
				n.applyAll()
			}
			serve := func(seconds uint32, numbers ...int) { serveSome(seconds, nil, numbers...) }
			serve(600, 1, 2, 3)
			called := func(vip string) netip.Addr {
				a := n.callUntil([]answer{{refused: true}}, n.machines[0].pod, model.TCP, n.vips(family)[vip])
				return a.server
			}
			first := called("ClusterIP")
			stays := func(when string, with netip.Addr) {
				t.Helper()
				for _, vip := range []string{"ClusterIP", "external IP", "load balancer", "node port 1", "ClusterIP", "node port 1", "ClusterIP", "ClusterIP"} {
					if got := called(vip); got != with {
						t.Errorf("%s, a client that was with %s is led by %s to %s", when, with, vip, got)
					}
				}
			}
			stays("with three endpoints", first)
			var left []int
			for number := 1; number <= 3; number++ {
				if podAddress(number, family) != first {
					left = append(left, number)
				}
			}
			serve(600, left...)
			second := called("ClusterIP")
			if second == first || !second.IsValid() {
				t.Errorf("after its endpoint went, the client is with %s", second)
			}
			stays("with two endpoints", second)
			serve(600, 1, 2, 3)
			stays("with three again", second)
			serveSome(600, func(e *model.Endpoint) { e.Ready = e.Address != second; e.Serving = e.Ready }, 1, 2, 3)
			third := called("ClusterIP")
			if third == second || !third.IsValid() {
				t.Errorf("after its endpoint was not ready any more, the client is with %s (kubernetes#110302)", third)
			}
			stays("with one that is not ready", third)
			serve(1, 1, 2, 3)
			moved := false
			for range 20 {
				moved = moved || called("ClusterIP") != third
				if moved {
					break
				}
				time.Sleep(1200 * time.Millisecond) // the time that clients stay
			}
			if !moved {
				t.Errorf("a client is still with %s, long after its time", third)
			}
		})
	}
}

// TestStickyTime: a client stays for the time that the Service says
// (kubernetes#35677), from its last new connection on.
func TestStickyTime(t *testing.T) {
	n := newServiceNet(t)
	s := web()
	s.Affinity = 600
	n.setService(s, nil, 1, 2, 3)
	n.applyAll()
	at := n.machines[0]
	left := func() (left time.Duration) {
		at.space.Do(func() {
			table := &nft.Table{Family: nft.TableFamilyINet, Name: nftables.TableName}
			clients, err := (&nft.Conn{}).GetSetElements(&nft.Set{Table: table, Name: "sticky-clients4"})
			n.check(err)
			if len(clients) != 1 {
				t.Errorf("%d clients stay", len(clients))
				return
			}
			left = clients[0].Expires
		})
		return left
	}
	connect := func() {
		n.callUntil([]answer{{refused: true}}, at.pod, model.TCP, n.vips(model.IPv4)["ClusterIP"])
	}
	connect()
	first := left()
	if first > 600*time.Second || first < 500*time.Second {
		t.Errorf("a client stays for %s, want 10 minutes", first)
	}
	later := first
	for later > first-200*time.Millisecond {
		later = left()
	}
	connect()
	if again := left(); again <= later {
		t.Errorf("a client that had %s left has %s after a new connection", later, again)
	}
}
