package ebpf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

const device = "fairlead-ipip"

// cluster is two nodes with a router between them, each with a pod:
//
//	pod1 --- node1 --- router --- node2 --- pod2
//	          (.1)    (.254 of both)  (.2)
//
// The router knows no way to pods.
type cluster struct {
	t      testing.TB
	router *netnstest.Namespace
	nodes  [2]*node
}

// node is a machine with a pod.
type node struct {
	*netnstest.Namespace
	pod     *netnstest.Namespace
	address netip.Addr
	podAddr netip.Addr
	pods    netip.Prefix
	ipip    IPIP
}

// newCluster makes a cluster where the link of node 2 has an MTU of its own,
// which node 1 cannot know.
func newCluster(t testing.TB, mtu int) *cluster {
	c := &cluster{t: t, router: netnstest.New(t)}
	c.in(c.router, func() { forward(t) })
	for i := range c.nodes {
		net := byte(i + 1)
		n := &node{
			Namespace: netnstest.New(t), pod: netnstest.New(t),
			address: netip.AddrFrom4([4]byte{198, 18, net, net}),
			podAddr: netip.AddrFrom4([4]byte{10, 244, net, 2}),
			pods:    netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, net, 0}), 24),
		}
		router := netip.AddrFrom4([4]byte{198, 18, net, 254})
		c.cable(n.Namespace, "eth0", c.router, fmt.Sprintf("node%d", net))
		c.cable(n.pod, "eth0", n.Namespace, "pod0")
		c.in(c.router, func() { c.address(fmt.Sprintf("node%d", net), netip.PrefixFrom(router, 24)) })
		c.in(n.Namespace, func() {
			forward(t)
			// Strict: packets come in where answers go out.
			sysctl(t, "net/ipv4/conf/all/rp_filter", "1")
			c.address("eth0", netip.PrefixFrom(n.address, 24))
			c.route("eth0", netip.MustParsePrefix("0.0.0.0/0"), router, 0)
			c.address("pod0", netip.MustParsePrefix("169.254.1.1/32"))
			c.route("pod0", netip.PrefixFrom(n.podAddr, 32), netip.Addr{}, 0)
		})
		c.in(n.pod, func() {
			c.address("eth0", netip.PrefixFrom(n.podAddr, 32))
			c.route("eth0", netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("169.254.1.1"), 0)
		})
		if net == 2 {
			c.in(c.router, func() { c.check(rtnl.LinkSetMTU(c.link("node2"), mtu)) })
			c.in(n.Namespace, func() { c.check(rtnl.LinkSetMTU(c.link("eth0"), mtu)) })
		}
		n.ipip = IPIP{Name: device, Uplink: "eth0", Local: n.address, MTU: 1480, Pods: n.pods}
		c.nodes[i] = n
	}
	c.nodes[1].ipip.MTU = mtu - 20
	for i, n := range c.nodes {
		c.in(n.Namespace, func() {
			c.check(AttachIPIP(n.ipip))
			c.peer(c.nodes[1-i].address, c.nodes[1-i].pods)
		})
	}
	return c
}

// peer leads a range through the tunnel to a node.
func (c *cluster) peer(address netip.Addr, pods netip.Prefix) {
	mac := PeerMAC(address)
	c.check(rtnl.NeighSet(&rtnl.Neigh{
		LinkIndex: c.link(device).Attrs().Index, State: rtnl.NUD_PERMANENT,
		IP: address.AsSlice(), HardwareAddr: mac[:],
	}))
	c.route(device, pods, address, unix.RTNH_F_ONLINK)
}

func (c *cluster) in(space *netnstest.Namespace, f func()) {
	c.t.Helper()
	space.Do(f)
}

// check may be called on any goroutine.
func (c *cluster) check(err error) {
	if err != nil {
		c.t.Helper()
		c.t.Errorf("%+v", err)
	}
}

func (c *cluster) link(name string) rtnl.Link {
	link, err := rtnl.LinkByName(name)
	if err != nil {
		c.t.Errorf("find %s: %v", name, err)
		return &rtnl.Dummy{}
	}
	return link
}

func (c *cluster) cable(from *netnstest.Namespace, name string, to *netnstest.Namespace, peer string) {
	c.in(from, func() {
		attrs := rtnl.NewLinkAttrs()
		attrs.Name, attrs.MTU = name, 1500
		c.check(rtnl.LinkAdd(&rtnl.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: rtnl.NsFd(to.Handle)}))
		c.check(rtnl.LinkSetUp(c.link(name)))
	})
	c.in(to, func() { c.check(rtnl.LinkSetUp(c.link(peer))) })
}

func (c *cluster) address(device string, prefix netip.Prefix) {
	c.check(rtnl.AddrAdd(c.link(device), &rtnl.Addr{IPNet: ipNet(prefix)}))
}

func (c *cluster) route(device string, to netip.Prefix, via netip.Addr, flags int) {
	if via.IsLinkLocalUnicast() {
		flags |= unix.RTNH_F_ONLINK
	}
	route := &rtnl.Route{LinkIndex: c.link(device).Attrs().Index, Dst: ipNet(to), Gw: via.AsSlice(), Flags: flags}
	if !via.IsValid() {
		route.Scope = rtnl.SCOPE_LINK
	}
	c.check(rtnl.RouteReplace(route))
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), 32)}
}

func forward(t testing.TB) { sysctl(t, "net/ipv4/ip_forward", "1") }

func sysctl(t testing.TB, key, value string) {
	if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
		t.Error(err)
	}
}

// connect returns the two ends of a connection between namespaces.
func (c *cluster) connect(from, to *netnstest.Namespace, network string, address netip.Addr) (client, server net.Conn) {
	c.t.Helper()
	at := netip.AddrPortFrom(address, 9000).String()
	if network == "udp4" {
		c.in(from, func() {
			// The answer tells the server's end whom it speaks with.
			local, err := net.ListenPacket(network, ":0")
			c.check(err)
			port := local.LocalAddr().(*net.UDPAddr).Port
			_ = local.Close()
			client, err = (&net.Dialer{LocalAddr: &net.UDPAddr{Port: port}}).Dial(network, at)
			c.check(err)
		})
		c.in(to, func() {
			var err error
			local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, 9000))
			server, err = (&net.Dialer{LocalAddr: local}).Dial(network, client.LocalAddr().String())
			c.check(err)
		})
		return client, server
	}
	var listener net.Listener
	c.in(to, func() {
		var err error
		listener, err = net.Listen(network, at)
		c.check(err)
	})
	defer listener.Close()
	c.in(from, func() {
		var err error
		client, err = net.DialTimeout(network, at, 5*time.Second)
		c.check(err)
	})
	server, err := listener.Accept()
	c.check(err)
	return client, server
}

const bulk = 8 << 20

// transfer sends random bytes over TCP and compares what arrives.
func (c *cluster) transfer(from, to *netnstest.Namespace, address netip.Addr) {
	c.t.Helper()
	client, server := c.connect(from, to, "tcp4", address)
	defer server.Close()
	content := make([]byte, bulk)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	sent := make(chan error, 1)
	go func() {
		_ = client.SetDeadline(time.Now().Add(10 * time.Second))
		_, err := client.Write(content)
		sent <- errors.Join(err, client.Close())
	}()
	_ = server.SetDeadline(time.Now().Add(10 * time.Second))
	received, err := io.ReadAll(server)
	if err = errors.Join(err, <-sent); err != nil || !bytes.Equal(received, content) {
		c.t.Errorf("transfer to %s: of %d bytes came %d, or others: %v", address, len(content), len(received), err)
	}
}

// echo sends a datagram and waits for it to come back, whole. It asks again, as
// the first may be what the path MTU is learned from.
func (c *cluster) echo(from, to *netnstest.Namespace, address netip.Addr, size int) error {
	client, server := c.connect(from, to, "udp4", address)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1<<16)
		for {
			n, err := server.Read(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil { // and not news of the path MTU
				_, _ = server.Write(buffer[:n])
			}
		}
	}()
	defer func() { _, _ = client.Close(), server.Close(); <-done }()
	sent, got := bytes.Repeat([]byte("fairlead"), size/8), make([]byte, 1<<16)
	var failed error
	for range 10 {
		_ = client.SetDeadline(time.Now().Add(200 * time.Millisecond))
		if _, failed = client.Write(sent); failed != nil {
			continue
		}
		var n int
		if n, failed = client.Read(got); failed == nil {
			if !bytes.Equal(got[:n], sent) {
				return errors.New("the echo is not what was sent")
			}
			return nil
		}
	}
	return failed
}

// noDrops fails the test if a node dropped anything.
func (c *cluster) noDrops() {
	c.t.Helper()
	for _, n := range c.nodes {
		c.in(n.Namespace, c.noDropsHere)
	}
}

func (c *cluster) noDropsHere() {
	dropped, err := Dropped(device)
	c.check(err)
	for reason, count := range dropped {
		if count != 0 {
			c.t.Errorf("dropped %d packets: %s", count, reason)
		}
	}
}
