package conformance_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
)

// TestTunnelPort: a pod that sends from a tunnel's port to that port of another
// node is not taken for its own node's tunnel there, and does not take the port
// away from it, whatever the settings, and even if it did so before there was a
// tunnel.
func TestTunnelPort(t *testing.T) {
	for _, family := range model.Families {
		for _, port := range []uint16{8285, 40000} {
			t.Run(fmt.Sprintf("%s port %d", family, port), func(t *testing.T) { testTunnelPort(t, family, port) })
		}
	}
}

func testTunnelPort(t *testing.T, family model.Family, port uint16) {
	n := newNet(t, model.Families[:])
	s := &senders{network: n, node: n.machines[0], peer: n.machines[1].node.Address(family), port: port}
	own := s.node.node.Address(family)
	s.begin()
	before := *n.snapshot.Network
	before.Masquerade.RandomPorts = false
	before.UDPPort = port
	tunnel := before
	tunnel.Backend = model.BackendUDP
	random, chosen := tunnel, tunnel
	random.Masquerade.RandomPorts = true
	chosen.Masquerade.From = []netip.Prefix{model.HostPrefix(own)}
	both := random
	both.Masquerade.From = chosen.Masquerade.From
	gone := before
	gone.Masquerade.From = chosen.Masquerade.From

	s.configure(model.Snapshot{Network: &before})
	if seen := s.seen(fromPod); seen != netip.AddrPortFrom(own, port) {
		t.Fatalf("without a tunnel the pod was seen as %s, which shows nothing", seen)
	}
	if seen := s.seen(fromNode); seen.Port() == port {
		t.Fatalf("without a tunnel the node was seen as %s, like the pod", seen)
	}
	for _, step := range []struct {
		name     string
		snapshot model.Snapshot
		fresh    bool // all connections are new
	}{
		{"a tunnel to come", model.Snapshot{Network: &before, Coming: &tunnel.Routing}, false},
		{"a tunnel", model.Snapshot{Network: &tunnel}, true},
		{"random ports", model.Snapshot{Network: &random}, true},
		{"a chosen source", model.Snapshot{Network: &chosen}, true},
		{"a chosen source and random ports", model.Snapshot{Network: &both}, true},
		{"a former tunnel", model.Snapshot{Network: &gone, Former: &tunnel.Routing}, true},
	} {
		s.configure(step.snapshot)
		if step.fresh {
			s.node.space.Do(func() { n.check(rtnl.ConntrackTableFlush(rtnl.ConntrackTable)) })
		}
		for _, from := range []sender{fromPod, byDetour} {
			if seen := s.seen(from); seen.Addr() != own || seen.Port() == port || seen.Port() < 1024 {
				t.Errorf("%s: %s was seen as %s", step.name, from, seen)
			}
		}
		if seen := s.seen(fromNode); seen != netip.AddrPortFrom(own, port) {
			t.Errorf("%s: the node's own tunnel was seen as %s", step.name, seen)
		}
	}
}

// senders send from the tunnel's port, and a server at that port of the peer
// sees from where.
type senders struct {
	*network
	node      *machine
	port      uint16
	server    *net.UDPConn
	pod, host *net.UDPConn // the clients
	peer      netip.Addr
}

// detour is a port that somebody else's table leads to the tunnel's.
const detour = 7

type sender byte

const (
	fromPod sender = iota
	byDetour
	fromNode
)

func (s sender) String() string {
	return [...]string{"the pod", "the pod by a detour", "the node"}[s]
}

// configure leaves routing as it is: the node gets another table only.
func (s *senders) configure(as model.Snapshot) {
	as.PoliciesKnown = true
	s.t.Helper()
	s.snapshot.Network, s.snapshot.Former, s.snapshot.Coming = as.Network, as.Former, as.Coming
	s.apply(s.node)
}

func (s *senders) begin() {
	s.t.Helper()
	own := s.node.node.Address(model.FamilyOf(s.peer))
	s.node.plane = s.node.plane.(planes)[:1]
	var out []byte
	var err error
	s.node.space.Do(func() {
		load := exec.Command("nft", "-f", "-")
		load.Stdin = strings.NewReader(fmt.Sprintf(`table inet foreign {
			chain detour {
				type nat hook prerouting priority -150
				udp dport %d dnat %s to %s
			}
		}`, detour, map[bool]string{true: "ip", false: "ip6"}[own.Is4()], netip.AddrPortFrom(s.peer, s.port)))
		out, err = load.CombinedOutput()
	})
	if errors.Is(err, exec.ErrNotFound) {
		s.t.Skip("nft is not installed")
	}
	if err != nil {
		s.t.Fatalf("nft: %v: %s", err, out)
	}
	s.server = s.listen(s.machines[1].space, s.peer)
	s.pod = s.listen(s.node.pod, s.podOf(s.node, model.FamilyOf(own)))
	s.host = s.listen(s.node.space, own)
}

func (s *senders) listen(in *netnstest.Namespace, at netip.Addr) (conn *net.UDPConn) {
	s.t.Helper()
	var err error
	in.Do(func() { conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, s.port))) })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// seen sends until something arrives, and returns the source that it has there.
func (s *senders) seen(from sender) netip.AddrPort {
	s.t.Helper()
	client, to := s.pod, netip.AddrPortFrom(s.peer, s.port)
	switch from {
	case byDetour:
		to = netip.AddrPortFrom(s.peer, detour)
	case fromNode:
		client = s.host
	}
	for range 25 {
		_, _ = client.WriteToUDPAddrPort([]byte{byte(from)}, to)
		s.check(s.server.SetReadDeadline(time.Now().Add(200 * time.Millisecond)))
		for buffer := make([]byte, 1); ; {
			_, source, err := s.server.ReadFromUDPAddrPort(buffer)
			if err != nil {
				break
			}
			if buffer[0] == byte(from) {
				return netip.AddrPortFrom(source.Addr().Unmap(), source.Port())
			}
		}
	}
	s.t.Fatalf("nothing from %s arrived", from)
	return netip.AddrPort{}
}
