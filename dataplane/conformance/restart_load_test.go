package conformance_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/dataplane/netlink"
	"github.com/fairlead-net/fairlead/model"
)

// TestEstablishedOverRestarts has datagrams go to and fro between pods of two nodes,
// one at a time and as fast as they can, while the data planes of one node are started
// anew, as with its agent. What was there before meets all of them, and none is lost.
func TestEstablishedOverRestarts(t *testing.T) {
	const restarts = 60
	n := newNet(t, model.Families[:])
	here := n.machines[0]
	passed := n.meanwhile(func() {
		for range restarts {
			here.plane = nil
			n.apply(here)
		}
	})
	t.Logf("%d datagrams there and back over %d restarts", passed, restarts)
}

// TestThousandNodesJoin has a thousand nodes come in one moment, a fifth of them on the
// link, and go again. What flows between the others meets all of it, and none is lost.
func TestThousandNodesJoin(t *testing.T) {
	const nodes, times = 1000, 3
	n := newNet(t, model.Families[:])
	here, before := n.machines[0], n.snapshot.Nodes
	joined := before
	for number := range nodes {
		network, host := 1, byte(10+number) // that of the link
		if number >= nodes/5 {
			network, host = 100+number/200, byte(1+number%200)
		}
		joined = joined.With(fmt.Sprintf("new%d", number), &model.Node{
			Name:      fmt.Sprintf("new%d", number),
			Addresses: []netip.Addr{subnet(network, host, model.IPv4).Addr(), subnet(network, host, model.IPv6).Addr()},
			PodCIDRs: []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(245 + number/256), byte(number), 0}), 24),
				netip.MustParsePrefix(fmt.Sprintf("fd00:10:245:%d::/64", number)),
			},
		})
	}
	routes := func() (count int) {
		here.space.Do(func() {
			ours := &rtnl.Route{Protocol: netlink.Protocol}
			found, err := rtnl.RouteListFiltered(rtnl.FAMILY_ALL, ours, rtnl.RT_FILTER_PROTOCOL)
			n.check(err)
			count = len(found)
		})
		return count
	}
	passed := n.meanwhile(func() {
		own := routes()
		for range times {
			n.snapshot.Nodes = joined
			n.apply(here)
			if now := routes(); now != own+2*nodes {
				t.Errorf("%d routes to %d nodes, want %d", now-own, nodes, 2*nodes)
			}
			n.snapshot.Nodes = before
			n.apply(here)
			if now := routes(); now != own {
				t.Errorf("%d routes are left of nodes that went", now-own)
			}
		}
	})
	t.Logf("%d datagrams there and back while %d nodes came and went %d times", passed, nodes, times)
}

// meanwhile has datagrams go to and fro between pods of the first node and of the last,
// both ways and over both families, while something is done. None may be lost; how many
// there were is returned.
func (n *network) meanwhile(do func()) int64 {
	n.t.Helper()
	here, near, far := n.machines[0], n.machines[1], n.machines[2]
	var stop atomic.Bool
	var passed, lost atomic.Int64
	var ready, talks sync.WaitGroup
	for _, family := range model.Families {
		for i, way := range [][2]*machine{{here, near}, {near, here}, {here, far}, {far, here}} {
			at := netip.AddrPortFrom(n.podOf(way[1], family), uint16(9100+i))
			ready.Add(1)
			talks.Go(func() { bounce(n.t, way[0].pod, way[1].pod, at, &ready, &stop, &passed, &lost) })
		}
	}
	ready.Wait()
	do()
	stop.Store(true)
	talks.Wait()
	if lost.Load() > 0 {
		n.t.Errorf("%d datagrams of %d were lost", lost.Load(), passed.Load()+lost.Load())
	}
	return passed.Load()
}

// bounce sends datagrams to a server that returns them, each when the one before it is
// back or has not come for long.
func bounce(t testing.TB, from, to *netnstest.Namespace, at netip.AddrPort, ready *sync.WaitGroup, stop *atomic.Bool, passed, lost *atomic.Int64) {
	const late = 5 * time.Second // however slow the machine is
	var server *net.UDPConn
	var client net.Conn
	var err error
	to.Do(func() { server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)) })
	if err == nil {
		defer server.Close()
		go func() {
			buffer := make([]byte, 8)
			for {
				length, whom, err := server.ReadFromUDPAddrPort(buffer)
				if err != nil {
					return
				}
				_, _ = server.WriteToUDPAddrPort(buffer[:length], whom) // what is lost is counted
			}
		}()
		from.Do(func() { client, err = net.Dial("udp", at.String()) })
	}
	if err != nil {
		t.Error(err)
		ready.Done()
		return
	}
	defer client.Close()
	buffer := make([]byte, 8)
	for number := uint64(0); !stop.Load(); number++ {
		_, err := client.Write(buffer)
		if err == nil {
			err = errors.Join(client.SetReadDeadline(time.Now().Add(late)))
		}
		if err == nil {
			_, err = client.Read(buffer)
		}
		switch {
		case err == nil:
			passed.Add(1)
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.Logf("lost %s number %d at %s", at, number, time.Now().Format("05.000"))
			lost.Add(1)
		default:
			t.Error(err)
		}
		if number == 0 {
			ready.Done() // it is a connection now
		}
	}
}

// TestMasqueradedOverRestarts has pods open one connection to the outside after the other
// while the data planes are started anew: each has its node's address, and an answer, over
// both families (others replace their rules one by one, and what begins meanwhile goes out
// with the pod's address for as long as it lives).
func TestMasqueradedOverRestarts(t *testing.T) {
	const restarts = 60
	n := newNet(t, model.Families[:])
	here := n.machines[0]
	var server net.PacketConn
	var err error
	n.outside.Do(func() { server, err = net.ListenPacket("udp", ":9000") })
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go serveUDP(server)
	var stop atomic.Bool
	var began, others, unanswered atomic.Int64
	var ready, talks sync.WaitGroup
	for _, family := range model.Families {
		to := netip.AddrPortFrom(subnet(7, 7, family).Addr(), 9000).String()
		for range 2 {
			ready.Add(1)
			talks.Go(func() {
				here.pod.Do(func() {
					_, err := ask("udp", to) // the neighbours know each other now
					n.check(err)
					ready.Done()
					for !stop.Load() {
						began.Add(1)
						switch seen, err := askOnce(to); {
						case err != nil:
							unanswered.Add(1)
							t.Logf("to %s: %v", to, err)
						case seen != here.node.Address(family):
							others.Add(1)
							t.Logf("to %s: the server saw %s", to, seen)
						}
					}
				})
			})
		}
	}
	ready.Wait()
	for range restarts {
		here.plane = nil
		n.apply(here)
	}
	stop.Store(true)
	talks.Wait()
	t.Logf("%d connections over %d restarts", began.Load(), restarts)
	if others.Load() > 0 || unanswered.Load() > 0 {
		t.Errorf("of %d connections, %d had another address than their node's, and %d no answer", began.Load(), others.Load(), unanswered.Load())
	}
}

// askOnce returns the address that a server saw, of a new connection.
func askOnce(to string) (seen netip.Addr, err error) {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	const late = 5 * time.Second // however slow the machine is
	answer, length := make([]byte, 100), 0
	if _, err = conn.Write([]byte("?")); err == nil {
		err = conn.SetReadDeadline(time.Now().Add(late))
	}
	if err == nil {
		length, err = conn.Read(answer)
	}
	if err != nil {
		return netip.Addr{}, err
	}
	from, err := netip.ParseAddrPort(string(answer[:length]))
	return from.Addr().Unmap(), err
}
