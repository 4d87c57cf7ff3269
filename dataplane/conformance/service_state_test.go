package conformance_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
)

// The tests of this file are about what Services remember of clients.

// lasting is a client over UDP that goes on sending from one socket.
type lasting struct {
	*serviceNet
	conn net.Conn
}

func (n *serviceNet) lasting(from *netnstest.Namespace, to netip.AddrPort) *lasting {
	l := &lasting{serviceNet: n}
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
func (l *lasting) hears() (server netip.Addr) {
	buffer := make([]byte, 200)
	for range 5 {
		_ = l.conn.SetDeadline(time.Now().Add(150 * time.Millisecond))
		if _, err := l.conn.Write([]byte("?")); err != nil {
			continue // nobody listened, a moment ago
		}
		length, err := l.conn.Read(buffer)
		if err != nil {
			continue
		}
		var seen string
		var text string
		_, err = fmt.Sscan(string(buffer[:length]), &text, &seen)
		l.check(err)
		return netip.MustParseAddr(text)
	}
	return netip.Addr{}
}

// TestUDPServiceFlows keeps clients sending while endpoints of the Service come
// and go: they are always with one that serves, and never with one that is gone.
func TestUDPServiceFlows(t *testing.T) {
	for _, family := range model.Families {
		t.Run(family.String(), func(t *testing.T) {
			n := newServiceNet(t)
			inside := n.lasting(n.machines[1].pod, n.vips(family)["ClusterIP"])
			node := n.lasting(n.machines[2].space, n.vips(family)["ClusterIP"])
			outside := n.lasting(n.outside, n.vips(family)["node port 1"])
			pod := func(number int) netip.Addr { return podAddress(number, family) }
			hear := func(what string, want netip.Addr) {
				t.Helper()
				for i, client := range []*lasting{inside, node, outside} {
					if got := client.hears(); got != want {
						t.Errorf("%s: client %d is answered by %s, want %s", what, i, got, want)
					}
				}
			}
			serve := func(conditions func(*model.Endpoint), numbers ...int) {
				t.Helper()
				n.setService(web(), conditions, numbers...)
				n.applyAll()
			}
			nobody := netip.Addr{}
			hear("no Service", nobody)
			serve(nil)
			hear("no endpoints", nobody)
			serve(nil, 1)
			hear("from none to one (kubernetes#48370)", pod(1))
			serve(nil, 2)
			hear("moved", pod(2))
			serve(func(e *model.Endpoint) { e.Ready, e.Terminating = e.Node != "node2", e.Node == "node2" }, 1, 2)
			hear("the one that leaves still serves", pod(2))
			serve(func(e *model.Endpoint) { e.Ready = e.Node != "node2"; e.Serving = e.Ready }, 1, 2)
			hear("it does not serve any more (kubernetes#105657)", pod(1))
			serve(nil)
			hear("from one to none (kubernetes#139628)", nobody)
			serve(nil, 3)
			hear("from none to another", pod(3))
			for _, m := range n.machines {
				m.plane = nil // the process is started anew
			}
			serve(nil, 1)
			hear("moved while nobody looked", pod(1))
			n.snapshot.Services = n.snapshot.Services.Without(web().ServiceKey)
			n.applyAll()
			hear("the Service is gone (kubernetes#141371)", nobody)
		})
	}
}

// TestRestartKeepsFlows: a process that starts cuts nobody off (kubernetes#122740).
func TestRestartKeepsFlows(t *testing.T) {
	n := newServiceNet(t)
	n.setService(web(), nil, 1, 2, 3)
	n.applyAll()
	clients := map[*lasting]netip.Addr{}
	for range 10 {
		client := n.lasting(n.machines[1].pod, n.vips(model.IPv4)["ClusterIP"])
		clients[client] = client.hears()
	}
	for _, m := range n.machines {
		m.plane = nil
	}
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
			serve := func(seconds uint32, numbers ...int) {
				s := web()
				s.Affinity = seconds
				n.setService(s, nil, numbers...)
				n.applyAll()
			}
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
			serve(1, 1, 2, 3)
			moved := false
			for range 20 {
				moved = moved || called("ClusterIP") != second
				if moved {
					break
				}
				time.Sleep(1200 * time.Millisecond) // the time that clients stay
			}
			if !moved {
				t.Errorf("a client is still with %s, long after its time", second)
			}
		})
	}
}
