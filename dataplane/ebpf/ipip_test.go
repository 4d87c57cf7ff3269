package ebpf

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

func linkIndex(name string) (int, error) {
	link, err := rtnl.LinkByName(name)
	if err != nil {
		return 0, err
	}
	return link.Attrs().Index, nil
}

func TestPodsReachEachOther(t *testing.T) {
	c := newCluster(t, 1500)
	a, b := c.nodes[0], c.nodes[1]
	captured := capture(t, c.router, "node1")
	c.transfer(a.pod, b.pod, b.podAddr)
	c.transfer(b.pod, a.pod, a.podAddr)
	for _, size := range []int{8, 1448, 8000} {
		c.check(c.echo(a.pod, b.pod, b.podAddr, size))
	}
	c.noDrops()

	packets := captured()
	for _, p := range packets {
		inner := p.inner()
		if p.protocol() != unix.IPPROTO_IPIP || p.source() != a.address || p.destination() != b.address || !p.validHeader() ||
			p.raw[8] != 64 || p.raw[6]&0x40 == 0 {
			t.Fatalf("from node 1 came %x; want protocol 4 from %s to %s, not to be fragmented", p.raw, a.address, b.address)
		}
		if inner.source() != a.podAddr || inner.destination() != b.podAddr || !inner.validHeader() {
			t.Fatalf("in the tunnel came %x; want a packet from %s to %s", inner.raw, a.podAddr, b.podAddr)
		}
	}
	if len(packets) < 10 {
		t.Fatalf("only %d packets came by the router", len(packets))
	}
}

// TestNodeReachesPod: the node itself is at an end, with an address on the
// device that is of the range of pods.
func TestNodeReachesPod(t *testing.T) {
	c := newCluster(t, 1500)
	a, b := c.nodes[0], c.nodes[1]
	own := a.pods.Addr()
	c.in(a.Namespace, func() { c.address(device, netip.PrefixFrom(own, 32)) })
	c.transfer(a.Namespace, b.pod, b.podAddr)
	c.transfer(b.pod, a.Namespace, own)
	c.noDrops()
}

// TestUDPSegments: datagrams that the sender leaves to the kernel to divide, up
// to as many as leave no room in one packet for another header.
func TestUDPSegments(t *testing.T) {
	c := newCluster(t, 1500)
	a, b := c.nodes[0], c.nodes[1]
	const size = 1424
	var listener net.PacketConn
	c.in(b.pod, func() {
		var err error
		listener, err = net.ListenPacket("udp4", netip.AddrPortFrom(b.podAddr, 9001).String())
		c.check(err)
	})
	defer listener.Close()
	// The last is an IP packet of 65518 bytes, the most that a link takes.
	for _, total := range []int{size, 10 * size, 65490} {
		sent := make([]byte, total)
		_, _ = rand.NewChaCha8([32]byte{}).Read(sent)
		c.in(a.pod, func() {
			conn, err := net.Dial("udp4", listener.LocalAddr().String())
			if err != nil {
				c.check(err)
				return
			}
			defer conn.Close()
			raw, err := conn.(*net.UDPConn).SyscallConn()
			c.check(err)
			c.check(raw.Control(func(fd uintptr) {
				c.check(unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size))
			}))
			_, err = conn.Write(sent)
			c.check(err)
		})
		got := make([]byte, 0, total)
		_ = listener.SetReadDeadline(time.Now().Add(5 * time.Second))
		for len(got) < total {
			n, _, err := listener.ReadFrom(got[len(got):min(len(got)+size, total)])
			if err != nil {
				t.Fatalf("after %d of %d bytes: %v", len(got), total, err)
			}
			got = got[:len(got)+n]
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("%d bytes are not what was sent", total)
		}
	}
	c.noDrops()
}

// TestAttachAgain: programs are replaced while packets flow, and none is lost.
func TestAttachAgain(t *testing.T) {
	c := newCluster(t, 1500)
	a, b := c.nodes[0], c.nodes[1]
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		c.in(b.Namespace, func() {
			for {
				select {
				case <-stop:
					return
				default:
					c.check(AttachIPIP(b.ipip))
				}
			}
		})
	}()
	client, server := c.connect(a.pod, b.pod, "udp4", b.podAddr)
	go func() { _, _ = io.Copy(server, server) }()
	question, answer := []byte("?"), make([]byte, 1)
	for i := range 2000 {
		_ = client.SetDeadline(time.Now().Add(2 * time.Second))
		_, err := client.Write(question)
		if err == nil {
			_, err = client.Read(answer)
		}
		if err != nil {
			t.Errorf("question %d: %v", i, err)
			break
		}
	}
	_, _ = client.Close(), server.Close()
	close(stop)
	<-stopped
}

// TestPathMTU: a router on the way has a smaller MTU than the nodes know of.
// The pod that sends learns it.
func TestPathMTU(t *testing.T) {
	c := newCluster(t, 1400)
	a, b := c.nodes[0], c.nodes[1]
	c.transfer(a.pod, b.pod, b.podAddr)
	c.in(a.pod, func() {
		routes, err := rtnl.RouteGet(b.podAddr.AsSlice())
		c.check(err)
		if len(routes) != 1 || routes[0].MTU != 1380 {
			t.Errorf("the pod's route is %v, want one with MTU 1380", routes)
		}
	})
	// Those who ask for it fragment at the end.
	c.check(c.echo(a.pod, b.pod, b.podAddr, 1448))
	c.noDrops()
}

// TestHostUnreachable: what a router says of the peer, the pod hears of the
// other pod.
func TestHostUnreachable(t *testing.T) {
	c := newCluster(t, 1500)
	a, b := c.nodes[0], c.nodes[1]
	c.in(c.router, func() {
		c.check(rtnl.RouteAdd(&rtnl.Route{Dst: ipNet(netip.PrefixFrom(b.address, 32)), Type: unix.RTN_UNREACHABLE}))
	})
	c.in(a.pod, func() {
		_, err := net.Dial("tcp4", netip.AddrPortFrom(b.podAddr, 9).String())
		if !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("connect: %v, want no route to host", err)
		}
	})
}

// TestPodForwards: a pod passes on what has come out of the tunnel in packets
// that were put together, by an interface that does not segment for the kernel.
func TestPodForwards(t *testing.T) {
	for _, place := range []string{"pod", "node", "both"} {
		t.Run(place, func(t *testing.T) {
			c := newCluster(t, 1500)
			a, b := c.nodes[0], c.nodes[1]
			behind, address := netnstest.New(t), netip.MustParseAddr("10.244.2.77")
			c.behind(b, behind, address)
			if place != "node" {
				c.in(b.pod, func() { turnOff(t, "back0", segmentation) })
			}
			if place != "pod" {
				c.in(b.Namespace, func() { turnOff(t, "pod0", segmentation) })
			}
			c.transfer(a.pod, behind, address)
			c.transfer(behind, a.pod, a.podAddr)
			c.noDrops()
		})
	}
}

// behind puts a namespace behind a pod, which is its router.
func (c *cluster) behind(n *node, space *netnstest.Namespace, address netip.Addr) {
	c.cable(n.pod, "back0", space, "eth0")
	c.in(n.pod, func() {
		forward(c.t)
		c.route("back0", netip.PrefixFrom(address, 32), netip.Addr{}, 0)
	})
	c.in(space, func() {
		c.address("eth0", netip.PrefixFrom(address, 32))
		c.route("eth0", netip.MustParsePrefix("0.0.0.0/0"), n.podAddr, unix.RTNH_F_ONLINK)
	})
	c.in(n.Namespace, func() { c.route("pod0", netip.PrefixFrom(address, 32), n.podAddr, unix.RTNH_F_ONLINK) })
}

// TestNodeForwardsToOutside: what leaves the node again by its uplink has been
// divided, as a network card would take it for a tunnel's.
func TestNodeForwardsToOutside(t *testing.T) {
	c := newCluster(t, 1500)
	a, b := c.nodes[0], c.nodes[1]
	outside, address := netnstest.New(t), netip.MustParseAddr("203.0.113.7")
	c.cable(c.router, "out0", outside, "eth0")
	c.in(outside, func() {
		c.address("eth0", netip.PrefixFrom(address, 32))
		c.route("eth0", netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("203.0.113.254"), unix.RTNH_F_ONLINK)
	})
	c.in(c.router, func() {
		c.address("out0", netip.MustParsePrefix("203.0.113.254/24"))
		c.route("node2", a.pods, b.address, 0)
	})
	c.in(a.Namespace, func() { c.route(device, netip.PrefixFrom(address, 24).Masked(), b.address, unix.RTNH_F_ONLINK) })

	captured := capture(t, c.router, "node2")
	c.transfer(a.pod, outside, address)
	c.transfer(outside, a.pod, a.podAddr)
	c.noDrops()
	for _, p := range captured() {
		if p.destination() == address && (p.length > 1500 || !p.validHeader()) {
			t.Fatalf("node 2 sent %x of %d bytes", p.raw, p.length)
		}
	}
}

// TestTunnelAgain: what has come out of the tunnel goes into it once more, by
// way of a pod; before, it was divided or not.
func TestTunnelAgain(t *testing.T) {
	for name, pods := range map[string]string{"divided": "10.244.2.0/24", "whole": "10.9.0.0/24"} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1500)
			a, b := c.nodes[0], c.nodes[1]
			address := netip.MustParseAddr("10.9.0.9")
			there := netip.PrefixFrom(address, 24).Masked()
			target := netnstest.New(t)
			c.cable(a.Namespace, "target0", target, "eth0")
			c.in(target, func() {
				c.address("eth0", netip.PrefixFrom(address, 32))
				c.route("eth0", netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("169.254.1.1"), 0)
			})
			c.in(b.pod, func() { forward(t) })
			c.in(b.Namespace, func() {
				b.ipip.Pods = netip.MustParsePrefix(pods)
				c.check(AttachIPIP(b.ipip))
				c.route(device, there, a.address, unix.RTNH_F_ONLINK)
				c.fromTunnel(there, "pod0", b.podAddr)
			})
			c.in(a.Namespace, func() {
				c.address("target0", netip.MustParsePrefix("169.254.1.1/32"))
				c.route(device, there, b.address, unix.RTNH_F_ONLINK)
				c.fromTunnel(there, "target0", netip.Addr{})
			})
			c.transfer(a.pod, target, address)
			c.noDrops()
		})
	}
}

// fromTunnel leads what has come by the tunnel another way.
func (c *cluster) fromTunnel(to netip.Prefix, out string, via netip.Addr) {
	sysctl(c.t, "net/ipv4/conf/all/rp_filter", "0") // answers go by the other table
	const table = 100
	rule := rtnl.NewRule()
	rule.Family, rule.IifName, rule.Table = unix.AF_INET, device, table
	c.check(rtnl.RuleAdd(rule))
	route := &rtnl.Route{Table: table, LinkIndex: c.link(out).Attrs().Index, Dst: ipNet(to), Scope: rtnl.SCOPE_LINK}
	if via.IsValid() {
		route.Gw, route.Scope, route.Flags = via.AsSlice(), rtnl.SCOPE_UNIVERSE, unix.RTNH_F_ONLINK
	}
	c.check(rtnl.RouteAdd(route))
}

// TestTunnelOfPods: pods may have a tunnel of their own through ours.
func TestTunnelOfPods(t *testing.T) {
	c := newCluster(t, 1500)
	a, b := c.nodes[0], c.nodes[1]
	address := netip.MustParseAddr("192.168.9.2")
	for i, n := range c.nodes {
		c.in(n.pod, func() {
			attrs := rtnl.NewLinkAttrs()
			attrs.Name, attrs.MTU = "vx0", 1430
			c.check(rtnl.LinkAdd(&rtnl.Vxlan{
				LinkAttrs: attrs, VxlanId: 7, Port: 4789, SrcAddr: n.podAddr.AsSlice(), Group: c.nodes[1-i].podAddr.AsSlice(),
			}))
			c.address("vx0", netip.MustParsePrefix([]string{"192.168.9.1/24", "192.168.9.2/24"}[i]))
			c.check(rtnl.LinkSetUp(c.link("vx0")))
		})
	}
	c.transfer(a.pod, b.pod, address)
	c.noDrops()
}

// TestKernelsOwnDevice: the other node has the kernel's own device.
func TestKernelsOwnDevice(t *testing.T) {
	c := newCluster(t, 1400)
	a, b := c.nodes[0], c.nodes[1]
	var missing error
	c.in(b.Namespace, func() {
		c.check(DetachIPIP(device))
		attrs := rtnl.NewLinkAttrs()
		attrs.Name = device
		missing = rtnl.LinkAdd(&rtnl.Iptun{LinkAttrs: attrs, Local: b.address.AsSlice(), PMtuDisc: 1})
		if missing == nil {
			c.check(rtnl.LinkSetMTU(c.link(device), 1380))
			c.check(rtnl.LinkSetUp(c.link(device)))
			c.route(device, a.pods, a.address, unix.RTNH_F_ONLINK)
		}
	})
	if missing != nil {
		t.Skipf("the kernel has no ipip device: %v", missing)
	}
	c.transfer(a.pod, b.pod, b.podAddr)
	c.transfer(b.pod, a.pod, a.podAddr)
	for _, size := range []int{8, 1448, 8000} {
		c.check(c.echo(a.pod, b.pod, b.podAddr, size))
	}
	c.in(a.Namespace, c.noDropsHere)
}
