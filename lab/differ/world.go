package main

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// The world has one node, which Fairlead or kube-proxy serves, and around it all
// that packets come from and go to:
//
//	pod0 … pod3 ── node ──eth0── peers    pods and addresses of other nodes, and others that are endpoints
//	                 └────out0── clients  a pod and an address of another node, and others that only call
//
// All that comes and goes passes the node, so that answers find their way back
// whichever address they were asked by.
const (
	self      = "self"
	localPods = 4
	uplink    = "eth0"
)

// The cables, by which MACs are made.
const (
	uplinkCable = 100 + iota
	clientsCable
)

// pair is one thing in both families.
type pair [2]netip.Addr

func both(ipv4, ipv6 string) pair { return pair{netip.MustParseAddr(ipv4), netip.MustParseAddr(ipv6)} }

// podAt is a pod of a node; 0 is this one.
func podAt(node, pod int) pair {
	return both(fmt.Sprintf("10.244.%d.%d", node, 2+pod), fmt.Sprintf("fd00:10:244:%d::%d", node, 2+pod))
}

// nodeAt is a node; 0 is this one. 1 is among the peers, 2 among the clients.
func nodeAt(node int) pair {
	return both(fmt.Sprintf("192.0.2.%d", 1+node), fmt.Sprintf("2001:db8:1::%d", 1+node))
}

// stranger is outside of the cluster. 0 and 1 call, 2 is an endpoint.
func stranger(number int) pair {
	return both([]string{"198.51.100.7", "198.51.100.130", "198.51.101.20"}[number],
		[]string{"2001:db8:51::7", "2001:db8:51:8000::7", "2001:db8:52::20"}[number])
}

// peerAddresses are all that are among the peers.
func peerAddresses() []pair {
	all := []pair{nodeAt(1), stranger(2)}
	for node := 1; node <= 2; node++ {
		for pod := range 3 {
			all = append(all, podAt(node, pod))
		}
	}
	return all
}

// clientAddresses are all that are among the clients.
func clientAddresses() []pair {
	return []pair{stranger(0), stranger(1), podAt(2, 100), nodeAt(2)}
}

// client is who calls.
type client struct {
	name   string
	source pair
	device string // of the pod; empty: it is none of this node
	inside bool   // it is a pod of the cluster or this node
	mac    model.MAC
	where  int // in world.spaces
}

// Where things are, in world.spaces; pods come first.
const (
	atNode = localPods + iota
	atPeers
	atClients
	spaces
)

func clients() []client {
	all := []client{{name: "the node", source: nodeAt(0), where: atNode, inside: true}}
	for pod := range 2 {
		all = append(all, client{fmt.Sprintf("pod %d", pod), podAt(0, pod), podDevice(pod), true, model.MAC(hardware(byte(pod), 1)), pod})
	}
	for i, name := range []string{"a stranger", "another stranger", "a pod of another node", "another node"} {
		all = append(all, client{name: name, source: clientAddresses()[i], where: atClients, inside: i == 2})
	}
	return all
}

func podDevice(pod int) string { return fmt.Sprintf("pod%d", pod) }

// world is one of those, with servers at all addresses that may be endpoints.
type world struct {
	spaces [spaces]*space
	closed []func()
}

func newWorld() (w *world, err error) {
	w = &world{}
	for i := range w.spaces {
		if w.spaces[i], err = newSpace(); err != nil {
			return w, err
		}
		w.closed = append(w.closed, w.spaces[i].close)
	}
	steps := []func() error{
		func() error { return w.connect() },
		func() error { return w.spaces[atNode].do(w.arrangeNode) },
		func() error {
			return w.spaces[atPeers].do(func() error { return arrangeOthers(uplinkCable, peerAddresses()) })
		},
		func() error {
			return w.spaces[atClients].do(func() error { return arrangeOthers(clientsCable, clientAddresses()) })
		},
	}
	for pod := range localPods {
		steps = append(steps, func() error { return w.spaces[pod].do(func() error { return arrangePod(pod) }) })
	}
	for _, step := range append(steps, w.serveAll) {
		if err := step(); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *world) close() {
	for i := len(w.closed) - 1; i >= 0; i-- {
		w.closed[i]()
	}
}

func (w *world) connect() error {
	for pod := range localPods {
		if err := cable(w.spaces[atNode], podDevice(pod), w.spaces[pod], "eth0", byte(pod)); err != nil {
			return err
		}
	}
	if err := cable(w.spaces[atNode], uplink, w.spaces[atPeers], "eth0", uplinkCable); err != nil {
		return err
	}
	return cable(w.spaces[atNode], "out0", w.spaces[atClients], "eth0", clientsCable)
}

// secondAddress is another of the node's own, at which there are node ports only
// if that is configured, and from which it sends nothing by itself.
func secondAddress() pair { return both("192.0.2.101", "2001:db8:1::101") }

// nodeNetworks are what the node is in.
func nodeNetworks() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(nodeAt(0)[0], 24), netip.PrefixFrom(nodeAt(0)[1], 64), host(secondAddress()[0]), host(secondAddress()[1])}
}

// isNode tells whether an address is the node's own.
func isNode(addr netip.Addr) bool {
	family := model.FamilyOf(addr)
	return addr == nodeAt(0)[family] || addr == secondAddress()[family]
}

func (w *world) arrangeNode() error {
	if err := settings(map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}); err != nil {
		return err
	}
	if err := assign(uplink, nodeNetworks()...); err != nil {
		return err
	}
	for pod := range localPods {
		link, err := netlink.LinkByName(podDevice(pod))
		if err == nil {
			err = netlink.LinkSetGroup(link, model.PodGroup)
		}
		if err != nil {
			return fmt.Errorf("mark %s as a pod's: %w", podDevice(pod), err)
		}
	}
	for _, family := range model.Families {
		own := nodeAt(0)[family]
		ways := []way{{to: anywhere(family), device: uplink, via: peerGateway()[family], number: uplinkCable, from: 1}}
		for pod := range localPods {
			ways = append(ways, way{to: host(podAt(0, pod)[family]), device: podDevice(pod), source: own, number: byte(pod), from: 1})
		}
		for _, addr := range clientAddresses() {
			ways = append(ways, way{to: host(addr[family]), device: "out0", source: own, number: clientsCable, from: 1})
		}
		for _, addr := range peerAddresses() {
			ways = append(ways, way{to: host(addr[family]), device: uplink, source: own, number: uplinkCable, from: 1})
		}
		if err := lead(ways...); err != nil {
			return err
		}
	}
	return nil
}

func anywhere(family model.Family) netip.Prefix {
	return netip.PrefixFrom([]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[family], 0)
}

// peerGateway is nobody: what goes there and has no address of the peers is lost
// without a word.
func peerGateway() pair { return both("192.0.2.254", "2001:db8:1::fe") }

func nodeGateway() pair { return both("169.254.1.1", "fe80::1") }

// arrangeOthers gives addresses to those around the node. All that is not their
// own is behind it.
func arrangeOthers(number byte, addresses []pair) error {
	for _, family := range model.Families {
		for _, addr := range addresses {
			if err := assign("eth0", host(addr[family])); err != nil {
				return err
			}
		}
		if err := lead(way{to: anywhere(family), device: "eth0", via: nodeGateway()[family], number: number, from: 0}); err != nil {
			return err
		}
	}
	return nil
}

func arrangePod(pod int) error { return arrangeOthers(byte(pod), []pair{podAt(0, pod)}) }

// targetPorts are where servers are.
func targetPorts() []uint16 { return []uint16{9000, 9001, 9002, 9003} }

// serveAll answers at all addresses, over TCP and UDP, with the address that was
// called there, and that of the client.
func (w *world) serveAll() error {
	at := map[int][]pair{atNode: {nodeAt(0)}, atPeers: peerAddresses()}
	for pod := range localPods {
		at[pod] = []pair{podAt(0, pod)}
	}
	for where, addresses := range at {
		err := w.spaces[where].do(func() error {
			for _, addr := range addresses {
				for _, port := range targetPorts() {
					for _, family := range model.Families {
						if err := w.serve(netip.AddrPortFrom(addr[family], port)); err != nil {
							return err
						}
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *world) serve(at netip.AddrPort) error {
	tcp, err := net.Listen("tcp", at.String())
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	udp, err := net.ListenPacket("udp", at.String())
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(conn, "%s %s", at, conn.RemoteAddr())
			_ = conn.Close()
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for buffer := make([]byte, 100); ; {
			_, from, err := udp.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(fmt.Appendf(nil, "%s %s", at, from), from)
		}
	}()
	w.closed = append(w.closed, func() { _ = tcp.Close(); _ = udp.Close(); <-done; <-done })
	return nil
}

// forget has the node forget connections: a new one over UDP from a port that
// was used before would be taken for an old one, which no policy cuts off.
func (w *world) forget() error {
	return w.spaces[atNode].do(func() error {
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, everything{}); err != nil {
				return fmt.Errorf("forget connections: %w", err)
			}
		}
		return nil
	})
}

// everything is a filter of connections.
type everything struct{}

// MatchConntrackFlow tells that any is meant.
func (everything) MatchConntrackFlow(*netlink.ConntrackFlow) bool { return true }
