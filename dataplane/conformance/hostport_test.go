package conformance_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// TestHostPortPackets calls a port of a node from everywhere. The pod behind it
// sees whom the oracle says.
func TestHostPortPackets(t *testing.T) {
	n := newNet(t, model.Families[:])
	node, other := n.machines[0], n.machines[1]
	const everywhere, atOne = 8001, 8002
	for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
		node.ports = append(node.ports,
			model.HostPort{Protocol: protocol, Port: everywhere, PodPort: 9000},
			model.HostPort{Protocol: protocol, HostIP: node.node.Address(model.IPv4), Port: atOne, PodPort: 9000})
	}
	n.apply(node)
	for _, family := range model.Families {
		own := node.node.Address(family)
		callers := []struct {
			from           *netnstest.Namespace
			source, called netip.Addr
			via            *machine // the node of a pod that calls
		}{
			{n.outside, subnet(7, 7, family).Addr(), own, nil},
			{other.space, other.node.Address(family), own, nil},
			{other.pod, n.podOf(other, family), own, other},
			{node.space, own, own, nil},
			{node.pod, n.podOf(node, family), own, nil},
			{node.space, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1"), nil},
		}
		for _, caller := range callers {
			if model.FamilyOf(caller.called) != family {
				continue
			}
			if caller.via != nil && plan.Verdict(caller.via.plan, plan.Packet{Source: caller.source, Destination: own}).Masquerade {
				caller.source = caller.via.node.Address(family)
			}
			hop := plan.Verdict(node.plan, plan.Packet{
				Source: caller.source, Destination: caller.called, Protocol: model.TCP, Port: everywhere, Local: true,
			})
			if hop.Pod.Addr() != n.podOf(node, family) {
				t.Fatalf("the oracle leads %s to %s", caller.called, hop.Pod)
			}
			if hop.Masquerade {
				caller.source = hop.As
			}
			n.speak(caller.from, node.pod, netip.AddrPortFrom(caller.called, everywhere), caller.source)
		}
		packet := plan.Packet{Source: subnet(7, 7, family).Addr(), Destination: own, Protocol: model.TCP, Port: atOne, Local: true}
		if plan.Verdict(node.plan, packet).Pod.IsValid() {
			n.speak(n.outside, node.pod, netip.AddrPortFrom(own, atOne), packet.Source)
		} else {
			n.silent(n.outside, node.pod, netip.AddrPortFrom(own, atOne))
		}
	}
	n.silent(node.space, node.pod, netip.AddrPortFrom(netip.IPv6Loopback(), everywhere))
}

// silent fails if what is called leads to a server that listens in another
// namespace.
func (n *network) silent(from, to *netnstest.Namespace, called netip.AddrPort) {
	n.t.Helper()
	var server net.Listener
	to.Do(func() {
		var err error
		server, err = net.Listen("tcp", ":9000")
		n.check(err)
	})
	defer server.Close()
	from.Do(func() {
		conn, err := net.DialTimeout("tcp", called.String(), 300*time.Millisecond)
		if err == nil {
			_ = conn.Close()
			n.t.Errorf("%s leads to the server", called)
		}
	})
}
