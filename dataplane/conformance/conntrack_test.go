package conformance_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
)

// The tests of this file keep a client sending from one socket, as clients over
// UDP do, while the host port that it calls changes.

// caller is a client outside and the node whose port it calls.
type caller struct {
	*network
	node   *machine
	family model.Family
	client net.Conn
	asked  byte // questions
}

func callers(t *testing.T, test func(*caller)) {
	for _, family := range model.Families {
		t.Run(family.String(), func(t *testing.T) {
			n := newNet(t, model.Families[:])
			c := &caller{network: n, node: n.machines[0], family: family}
			own := netip.AddrPortFrom(c.node.node.Address(family), 9000)
			n.speak(n.outside, c.node.space, own, subnet(7, 7, family).Addr()) // all know their neighbours then
			n.outside.Do(func() {
				var err error
				c.client, err = net.Dial("udp", netip.AddrPortFrom(c.node.node.Address(family), 8001).String())
				n.check(err)
			})
			defer c.client.Close()
			test(c)
		})
	}
}

// lead makes the port of the node lead to a port of its pod; 0 takes it away.
func (c *caller) lead(to uint16) {
	c.t.Helper()
	c.node.ports = nil
	if to != 0 {
		c.node.ports = []model.HostPort{
			{Protocol: model.UDP, Port: 8001, PodPort: to},
			{Protocol: model.UDP, Port: 8003, PodPort: 9003}, // stays as it is
		}
	}
	c.apply(c.node)
}

// serve answers questions in a namespace, until the test ends.
func (c *caller) serve(in *netnstest.Namespace, port int, answer byte) {
	var server *net.UDPConn
	in.Do(func() {
		var err error
		server, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
		c.check(err)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for buffer := make([]byte, 1); ; {
			_, from, err := server.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDPAddrPort([]byte{buffer[0], answer}, from)
		}
	}()
	c.t.Cleanup(func() { _ = server.Close(); <-done })
}

// hears is who answers the client; 0: nobody.
func (c *caller) hears() byte {
	answer := make([]byte, 2)
	for range 5 {
		c.asked++
		c.check(c.client.SetDeadline(time.Now().Add(200 * time.Millisecond)))
		if _, err := c.client.Write([]byte{c.asked}); err != nil {
			continue // of the question before: nobody listened
		}
		for {
			if _, err := c.client.Read(answer); err != nil {
				break
			}
			if answer[0] == c.asked {
				return answer[1]
			}
		}
	}
	return 0
}

// flows counts the connections of UDP to a port of the node.
func (c *caller) flows(port uint16) (count int) {
	c.node.space.Do(func() {
		for _, family := range []rtnl.InetFamily{rtnl.FAMILY_V4, rtnl.FAMILY_V6} {
			flows, err := rtnl.ConntrackTableList(rtnl.ConntrackTable, family)
			c.check(err)
			for _, flow := range flows {
				if flow.Forward.DstPort == port {
					count++
				}
			}
		}
	})
	return count
}

// TestUDPHostPortComes: a client that called before there was a host port, and
// has not stopped, is answered as soon as there is one
// (containernetworking/plugins#1277).
func TestUDPHostPortComes(t *testing.T) {
	callers(t, func(c *caller) {
		c.serve(c.node.pod, 9000, 'a')
		if got := c.hears(); got != 0 || c.flows(8001) == 0 {
			c.t.Fatalf("before there is a port, %q answers, and there are %d connections", got, c.flows(8001))
		}
		c.lead(9000)
		if got := c.hears(); got != 'a' {
			c.t.Errorf("%q answers, want a", got)
		}
	})
}

// TestUDPHostPortMoves: a client that goes on sending reaches the new pod, and
// no packet goes to the old one (containernetworking/plugins#123). Connections
// to other ports stay.
func TestUDPHostPortMoves(t *testing.T) {
	callers(t, func(c *caller) {
		c.serve(c.node.pod, 9000, 'a')
		c.serve(c.node.pod, 9001, 'b')
		c.lead(9000)
		if got := c.hears(); got != 'a' {
			c.t.Fatalf("%q answers, want a", got)
		}
		c.outside.Do(func() {
			other, err := net.Dial("udp", netip.AddrPortFrom(c.node.node.Address(c.family), 8003).String())
			c.check(err)
			_, err = other.Write([]byte{0})
			c.check(err)
			c.check(other.Close())
		})
		for c.flows(8003) == 0 {
			c.hears()
		}
		c.lead(9001)
		if got := c.hears(); got != 'b' {
			c.t.Errorf("%q answers, want b", got)
		}
		if c.flows(8003) == 0 {
			c.t.Error("connections to a port that did not change were forgotten")
		}
	})
}

// TestUDPHostPortGoes: what led to a pod that is gone leads nowhere
// (containernetworking/plugins#683).
func TestUDPHostPortGoes(t *testing.T) {
	callers(t, func(c *caller) {
		c.serve(c.node.pod, 9000, 'a')
		c.lead(9000)
		if got := c.hears(); got != 'a' {
			c.t.Fatalf("%q answers, want a", got)
		}
		c.lead(0)
		if got := c.hears(); got != 0 {
			c.t.Errorf("%q answers, want nobody", got)
		}
	})
}

// TestUDPHostPortMovedWhileAway: a process that starts finds connections that
// lead elsewhere than its ports.
func TestUDPHostPortMovedWhileAway(t *testing.T) {
	callers(t, func(c *caller) {
		c.serve(c.node.pod, 9000, 'a')
		c.serve(c.node.pod, 9001, 'b')
		c.lead(9000)
		if got := c.hears(); got != 'a' {
			c.t.Fatalf("%q answers, want a", got)
		}
		c.node.plane = nil
		c.lead(9001)
		if got := c.hears(); got != 'b' {
			c.t.Errorf("%q answers, want b", got)
		}
	})
}

// TestUDPHostPortOfService: a client stays with the endpoint of a Service that has a
// successor, until that is gone; others come to the successor.
func TestUDPHostPortOfService(t *testing.T) {
	callers(t, func(c *caller) {
		c.serve(c.node.pod, 9000, 'a')
		c.serve(c.node.pod, 9001, 'b')
		key := model.ServiceKey{Namespace: "kube-system", Name: "gateway"}
		c.snapshot.Services = c.snapshot.Services.With(key, &model.Service{ServiceKey: key, HostPorts: true, Ports: []model.ServicePort{{Name: "http3", Protocol: model.UDP, Port: 8001}}})
		endpoint := func(name string, port uint16, ready bool) {
			at := model.SliceKey{Namespace: key.Namespace, Name: name}
			c.snapshot.Slices = c.snapshot.Slices.With(at, &model.EndpointSlice{
				SliceKey: at, Service: key.Name, Family: c.family, Ports: []model.EndpointPort{{Name: "http3", Protocol: model.UDP, Port: port}},
				Endpoints: []model.Endpoint{{Address: c.podOf(c.node, c.family), Node: c.node.node.Name, Ready: ready, Serving: ready, Terminating: !ready}},
			})
			c.apply(c.node)
		}
		endpoint("old", 9000, true)
		if got := c.hears(); got != 'a' {
			c.t.Fatalf("%q answers, want a", got)
		}
		endpoint("new", 9001, true)
		endpoint("old", 9000, false)
		if got := c.hears(); got != 'a' {
			c.t.Errorf("%q answers whom the old one served, want a", got)
		}
		first := c.client
		c.outside.Do(func() {
			var err error
			c.client, err = net.Dial("udp", netip.AddrPortFrom(c.node.node.Address(c.family), 8001).String())
			c.check(err)
		})
		if got := c.hears(); got != 'b' {
			c.t.Errorf("%q answers a new client, want b", got)
		}
		_ = c.client.Close()
		c.client = first
		c.snapshot.Slices = c.snapshot.Slices.Without(model.SliceKey{Namespace: key.Namespace, Name: "old"})
		c.apply(c.node)
		if got := c.hears(); got != 'b' {
			c.t.Errorf("once the old one is gone, %q answers, want b", got)
		}
	})
}
