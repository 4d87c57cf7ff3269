package conformance_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
)

// The tests of this file keep connections of all kinds open, while policies come
// that forbid some of them.

// portKept is where the servers of connections are.
const portKept = 9005

// kept is a connection from both sides. Each tells whether the other one hears
// what it says.
type kept struct {
	name           string
	client, server func() bool // server: nil if it cannot speak first
	at             *machine    // of the policy
	called         netip.Addr  // as the entry of that machine has it at last
	protocol       model.Protocol
	from           netip.Addr
}

// patience is long enough for TCP to send again.
const patience = 500 * time.Millisecond

// says tells whether something that one side writes over TCP reaches the other.
func says(from, to net.Conn) bool {
	_ = from.SetDeadline(time.Now().Add(time.Second))
	if _, err := from.Write([]byte("hello")); err != nil {
		return false
	}
	_ = to.SetDeadline(time.Now().Add(patience))
	_, err := io.ReadFull(to, make([]byte, 5))
	return err == nil
}

// keepTCP connects to a server that listens at an address.
func (n *serviceNet) keepTCP(from, in *netnstest.Namespace, listen, call netip.AddrPort) (client, server net.Conn) {
	n.t.Helper()
	var listener net.Listener
	in.Do(func() {
		var err error
		listener, err = net.Listen("tcp", listen.String())
		n.check(err)
	})
	defer listener.Close()
	from.Do(func() {
		var err error
		client, err = net.DialTimeout("tcp", call.String(), 5*time.Second)
		n.check(err)
	})
	server, err := listener.Accept()
	n.check(err)
	n.t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

// keepUDP is the same; the server knows the client by what it said first.
func (n *serviceNet) keepUDP(from, in *netnstest.Namespace, at netip.AddrPort) (says func() bool) {
	n.t.Helper()
	var client net.Conn
	var server net.PacketConn
	in.Do(func() {
		var err error
		server, err = net.ListenPacket("udp", at.String())
		n.check(err)
	})
	from.Do(func() {
		var err error
		client, err = net.Dial("udp", at.String())
		n.check(err)
	})
	n.t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return func() bool {
		for range 2 {
			_ = client.SetDeadline(time.Now().Add(2 * patience))
			_, _ = client.Write([]byte("hello"))
			_ = server.SetDeadline(time.Now().Add(patience))
			_, whom, err := server.ReadFrom(make([]byte, 5))
			if err == nil {
				_, _ = server.WriteTo([]byte("hello"), whom)
				_, err = client.Read(make([]byte, 5))
			}
			if err == nil {
				return true
			}
		}
		return false
	}
}

// keepICMP asks for echoes with one identifier, which is one connection.
func (n *serviceNet) keepICMP(from *netnstest.Namespace, to netip.Addr) (says func() bool) {
	n.t.Helper()
	var client *net.IPConn
	from.Do(func() {
		var err error
		client, err = net.DialIP([...]string{"ip4:icmp", "ip6:ipv6-icmp"}[model.FamilyOf(to)], nil, &net.IPAddr{IP: to.AsSlice()})
		n.check(err)
	})
	n.t.Cleanup(func() { _ = client.Close() })
	sequence := byte(0)
	return func() bool {
		sequence++
		echo := []byte{[...]byte{8, 128}[model.FamilyOf(to)], 0, 0, 0, 4, 2, 0, sequence}
		binary.BigEndian.PutUint16(echo[2:], checksum(echo)) // in IPv6 the kernel does
		_ = client.SetDeadline(time.Now().Add(patience))
		_, _ = client.Write(echo)
		for buffer := make([]byte, 100); ; {
			length, _, err := client.ReadFrom(buffer) // without the header of IPv4
			if err != nil {
				return false
			}
			if length >= 8 && buffer[0] == [...]byte{0, 129}[model.FamilyOf(to)] && buffer[7] == sequence {
				return true
			}
		}
	}
}

// keepAll opens connections of all kinds from a machine's pod to that of the
// first one.
func (n *serviceNet) keepAll(from *machine, family model.Family) (all []kept) {
	one := n.machines[0]
	source, pod := n.podOf(from, family), n.podOf(one, family)
	at := netip.AddrPortFrom(pod, portKept)
	add := func(what string, protocol model.Protocol, client, server func() bool) {
		all = append(all, kept{
			name: fmt.Sprintf("%s of %s, %s", what, from.node.Name, family), client: client, server: server,
			at: one, called: pod, protocol: protocol, from: source,
		})
	}
	for what, call := range map[string]netip.AddrPort{"TCP": at, "TCP by a Service": clusterIP(family)} {
		client, server := n.keepTCP(from.pod, one.pod, at, call)
		add(what, model.TCP, func() bool { return says(client, server) }, func() bool { return says(server, client) })
	}
	add("UDP", model.UDP, n.keepUDP(from.pod, one.pod, netip.AddrPortFrom(pod, portKept+uint16(slices.Index(n.machines, from)))), nil)
	add("ICMP", [...]model.Protocol{icmp, icmp6}[family], n.keepICMP(from.pod, pod), nil)
	return all
}

// tracked tells whether the machine of the policy still has such a connection.
func (n *serviceNet) tracked(k kept) (there bool) {
	k.at.space.Do(func() {
		flows, err := rtnl.ConntrackTableList(rtnl.ConntrackTable, []rtnl.InetFamily{rtnl.FAMILY_V4, rtnl.FAMILY_V6}[model.FamilyOf(k.from)])
		n.check(err)
		there = slices.ContainsFunc(flows, func(flow *rtnl.ConntrackFlow) bool {
			return addrOf(flow.Forward.SrcIP) == k.from && addrOf(flow.Reverse.SrcIP) == k.called && model.Protocol(flow.Forward.Protocol) == k.protocol
		})
	})
	return there
}

func (n *serviceNet) untracked(k kept) {
	n.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); n.tracked(k); time.Sleep(5 * time.Millisecond) { // the kernel tells nobody
		if time.Now().After(deadline) {
			n.t.Fatalf("%s is still there", k.name)
		}
	}
}

func (n *serviceNet) goOn(when string, all []kept) {
	n.t.Helper()
	for _, k := range all {
		if !k.client() {
			n.t.Errorf("%s: %s: the server does not hear the client", when, k.name)
		}
		if k.server != nil && !k.server() {
			n.t.Errorf("%s: %s: the client does not hear the server", when, k.name)
		}
	}
}

// newCutNet is a network whose planes run, with a Service that leads to the first
// pod.
func newCutNet(t *testing.T, cut bool) *serviceNet {
	n := newPolicyNet(t)
	network := *n.snapshot.Network
	network.Policy.CutEstablished = cut
	n.snapshot.Network = &network
	n.setService(web(), nil, 1)
	for key, slice := range n.snapshot.Slices.All() {
		other := *slice
		other.Ports = []model.EndpointPort{{Name: "tcp", Protocol: model.TCP, Port: portKept}}
		n.snapshot.Slices = n.snapshot.Slices.With(key, &other)
	}
	n.applyAll()
	for _, m := range n.machines {
		plane := m.plane.(planes)[0].(*nftables.Plane)
		m.space.Go(func() {
			if err := plane.Run(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	return n
}

// deny has the pod of node1 allow nothing in a direction, but to or from the
// pods of some nodes.
func (n *serviceNet) deny(direction model.Direction, but ...string) {
	n.t.Helper()
	p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "default", Name: direction.String()}, Pods: ofNode("node1")}
	p.Isolates[direction] = true
	for _, pod := range but {
		chosen := ofNode(pod)
		p.Rules[direction] = append(p.Rules[direction], model.PolicyRule{
			Peers: []model.Peer{{Namespaces: &model.Selector{}, Pods: &chosen}}, AnyPort: true,
		})
	}
	n.snapshot.Policies = n.snapshot.Policies.With(p.PolicyKey, p)
	n.applyAll()
}

// TestPolicyKeepsConnections: they go on, as the default is.
func TestPolicyKeepsConnections(t *testing.T) {
	n := newCutNet(t, false)
	for _, family := range model.Families {
		all := n.keepAll(n.machines[1], family)
		n.goOn("before the policy", all)
		n.deny(model.Ingress)
		n.goOn("under a policy that forbids them", all)
		n.snapshot.Policies = n.snapshot.Policies.Without(model.PolicyKey{Namespace: "default", Name: model.Ingress.String()})
		n.applyAll()
	}
}

// TestPolicyCutsConnections: what a policy comes to forbid ends, whoever speaks
// next, and does not begin again by itself. The rest goes on.
func TestPolicyCutsConnections(t *testing.T) {
	for _, family := range model.Families {
		t.Run(family.String(), func(t *testing.T) {
			n := newCutNet(t, true)
			n.deny(model.Ingress, "node2", "node3")
			stay, end := n.keepAll(n.machines[2], family), n.keepAll(n.machines[1], family)
			n.goOn("both are allowed", append(end, stay...))
			n.deny(model.Ingress, "node3")
			for _, k := range end {
				n.untracked(k)
				if k.server != nil && k.server() {
					t.Errorf("%s: the client hears the server, who spoke first", k.name)
				}
				if k.client() {
					t.Errorf("%s: the server hears the client", k.name)
				}
			}
			n.goOn("one is allowed", stay)
			n.deny(model.Ingress, "node2", "node3")
			for _, k := range end {
				if k.protocol == model.TCP && (k.server() || k.client()) {
					t.Errorf("%s: it goes on when it is allowed again", k.name)
				}
			}
			n.goOn("both are allowed again", stay)
		})
	}
}

// TestPolicyCutsCallsOfNode: a pod that may not call its node any more does not
// hear of it either; probes of the node go on.
func TestPolicyCutsCallsOfNode(t *testing.T) {
	for _, family := range model.Families {
		t.Run(family.String(), func(t *testing.T) {
			n := newCutNet(t, true)
			one := n.machines[0]
			own, pod := one.node.Address(family), n.podOf(one, family)
			client, server := n.keepTCP(one.pod, one.space, netip.AddrPortFrom(own, portKept), netip.AddrPortFrom(own, portKept))
			end := kept{name: "TCP to the own node", at: one, called: own, from: pod, protocol: model.TCP}
			prober, probed := n.keepTCP(one.space, one.pod, netip.AddrPortFrom(pod, portKept), netip.AddrPortFrom(pod, portKept))
			if !says(client, server) || !says(prober, probed) {
				t.Fatal("nothing arrives before the policy")
			}
			n.deny(model.Egress)
			n.deny(model.Ingress)
			n.untracked(end)
			if says(server, client) || says(client, server) {
				t.Error("a connection goes on that is forbidden")
			}
			if !says(prober, probed) || !says(probed, prober) {
				t.Error("a connection of the node to its pod ended")
			}
		})
	}
}
