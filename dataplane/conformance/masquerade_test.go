package conformance_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// TestMasqueradeSettings changes how packets leave the cluster, one setting
// after the other: they arrive with the address that the oracle says, and a
// connection that was made before all of it goes on.
func TestMasqueradeSettings(t *testing.T) {
	n := newNet(t, model.Families[:])
	from := n.machines[2]
	for _, family := range model.Families {
		second := subnet(3, 99, family)
		from.link.Addresses = append(from.link.Addresses, second)
		from.space.Do(func() {
			n.check(rtnl.AddrAdd(n.device("eth0"), &rtnl.Addr{IPNet: ipNet(second), Flags: flags(second)}))
		})
	}
	echo := n.converse(from)
	defer echo.Close()
	steps := []struct {
		name   string
		change func(*model.Masquerade)
	}{
		{"default", func(*model.Masquerade) {}},
		{"ports kept", func(m *model.Masquerade) { m.RandomPorts = false }},
		{"from a second address", func(m *model.Masquerade) {
			m.From = []netip.Prefix{subnet(3, 99, model.IPv6).Masked(), model.HostPrefix(subnet(3, 99, model.IPv4).Addr())}
		}},
		{"random ports", func(m *model.Masquerade) { m.RandomPorts = true }},
		{"IPv4 excluded", func(m *model.Masquerade) {
			m.Exclude = []netip.Prefix{subnet(7, 0, model.IPv4), subnet(7, 0, model.IPv4)}
		}},
		{"nothing excluded", func(m *model.Masquerade) { m.Exclude = nil }},
		{"IPv6 off", func(m *model.Masquerade) { m.On[model.IPv6] = false }},
		{"IPv6 on, from nowhere", func(m *model.Masquerade) { m.On[model.IPv6], m.From = true, nil }},
	}
	for _, step := range steps {
		network := *n.snapshot.Network
		step.change(&network.Masquerade)
		n.snapshot.Network = &network
		n.apply(from)
		for _, family := range model.Families {
			packet := plan.Packet{Source: n.podOf(from, family), Destination: subnet(7, 7, family).Addr()}
			hop := plan.Verdict(from.plan, packet)
			sent, seen := n.leaves(from, packet)
			right := seen.Addr() == packet.Source
			if hop.As.IsValid() {
				right = seen.Addr() == hop.As
			} else if hop.Masquerade {
				right = from.link.Has(seen.Addr())
			}
			if keeps := !hop.Masquerade || !network.Masquerade.RandomPorts; !right || keeps && seen.Port() != sent {
				t.Errorf("%s: %s from port %d was seen as %s, the oracle has %+v", step.name, packet.Source, sent, seen, hop)
			}
		}
		if _, err := echo.Write([]byte{1}); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		n.check(echo.SetReadDeadline(time.Now().Add(5 * time.Second)))
		if _, err := echo.Read(make([]byte, 1)); err != nil {
			t.Fatalf("%s: the connection broke: %v", step.name, err)
		}
	}
}

// converse is a connection from the pod to a server outside that answers as
// long as the test runs.
func (n *network) converse(from *machine) (conn net.Conn) {
	var listener net.Listener
	n.outside.Do(func() {
		var err error
		listener, err = net.Listen("tcp4", ":9001")
		n.check(err)
	})
	done := make(chan struct{})
	n.t.Cleanup(func() { <-done })
	n.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		defer close(done)
		server, err := listener.Accept()
		if err != nil {
			return
		}
		defer server.Close()
		for buffer := make([]byte, 1); ; {
			if _, err := server.Read(buffer); err != nil {
				return
			}
			if _, err := server.Write(buffer); err != nil {
				return
			}
		}
	}()
	from.pod.Do(func() {
		var err error
		conn, err = net.DialTimeout("tcp4", netip.AddrPortFrom(subnet(7, 7, model.IPv4).Addr(), 9001).String(), 5*time.Second)
		n.check(err)
	})
	return conn
}

// leaves sends datagrams to the outside until one arrives, since no answer may
// come back, and returns the port that it was sent from and its source there.
func (n *network) leaves(from *machine, packet plan.Packet) (sent uint16, seen netip.AddrPort) {
	n.t.Helper()
	var server net.PacketConn
	var client net.Conn
	called := netip.AddrPortFrom(packet.Destination, 9000)
	n.outside.Do(func() {
		var err error
		server, err = net.ListenPacket("udp", called.String())
		n.check(err)
	})
	defer server.Close()
	from.pod.Do(func() {
		var err error
		client, err = net.Dial("udp", called.String())
		n.check(err)
	})
	defer client.Close()
	for range 25 {
		if _, err := client.Write([]byte{1}); err != nil {
			continue // that nobody listened, a moment ago
		}
		n.check(server.SetReadDeadline(time.Now().Add(200 * time.Millisecond)))
		if _, from, err := server.ReadFrom(make([]byte, 1)); err == nil {
			source := from.(*net.UDPAddr).AddrPort()
			seen = netip.AddrPortFrom(source.Addr().Unmap(), source.Port())
			break
		}
	}
	return client.LocalAddr().(*net.UDPAddr).AddrPort().Port(), seen
}
