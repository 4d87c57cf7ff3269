package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// world is two nodes on one link, with a pod each.
type world struct {
	nodes, pods [2]*namespace
	floating    bool       // the scheduler chooses the processors of both ends
	service     netip.Addr // of the Service that is called; invalid: the pod itself is
}

// recipe joins the pods of a world.
type recipe func(ctx context.Context, w *world, node int) error

const uplink = "up0"

func nodeAddress(node int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + node)}) }
func podAddress(node int) netip.Addr  { return netip.AddrFrom4([4]byte{10, 244, byte(node), 5}) }
func podRange(node int) netip.Prefix  { return netip.PrefixFrom(podAddress(node), 24).Masked() }

func build(ctx context.Context, join recipe) (w *world, err error) {
	w = &world{}
	for i := range w.nodes {
		if w.nodes[i], err = newNamespace(); err != nil {
			return nil, err
		}
		if w.pods[i], err = newNamespace(); err != nil {
			return nil, err
		}
	}
	err = w.nodes[0].do(func() error {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: uplink}, PeerName: uplink, PeerNamespace: netlink.NsFd(int(w.nodes[1].handle))}
		return netlink.LinkAdd(pair)
	})
	for i := range w.nodes {
		if err == nil {
			err = w.nodes[i].do(func() error { return w.prepare(i) })
		}
		if err == nil {
			err = w.nodes[i].do(func() error { return join(ctx, w, i) })
		}
	}
	return w, err
}

// prepare connects a pod with its node as the agent does.
func (w *world) prepare(i int) error {
	if err := address(uplink, netip.PrefixFrom(nodeAddress(i), 24)); err != nil {
		return err
	}
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: deviceOf(i), HardwareAddr: hardware(i, 0), Group: model.PodGroup},
		PeerName:  "eth0", PeerHardwareAddr: hardware(i, 1), PeerNamespace: netlink.NsFd(int(w.pods[i].handle)),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	gateway := netip.MustParsePrefix("169.254.1.1/32")
	if err := address(deviceOf(i), gateway); err != nil {
		return err
	}
	if err := neighbor(deviceOf(i), podAddress(i), hardware(i, 1)); err != nil {
		return err
	}
	return w.pods[i].do(func() error {
		err := errors.Join(
			address("eth0", model.HostPrefix(podAddress(i))),
			neighbor("eth0", gateway.Addr(), hardware(i, 0)))
		if err != nil {
			return err
		}
		return errors.Join(
			way("eth0", gateway, netip.Addr{}, 0),
			way("eth0", netip.MustParsePrefix("0.0.0.0/0"), gateway.Addr(), 0))
	})
}

func deviceOf(node int) string { return fmt.Sprintf("fl%013x", node) }

func hardware(node, end int) net.HardwareAddr {
	return net.HardwareAddr{2, 0, 0, 0, byte(node), byte(end)}
}

// byHand joins the pods by routes, or by a VXLAN device, and nothing else.
func byHand(tunnel bool) recipe {
	return func(_ context.Context, _ *world, node int) error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			return err
		}
		if err := way(deviceOf(node), model.HostPrefix(podAddress(node)), netip.Addr{}, 0); err != nil {
			return err
		}
		peer := 1 - node
		if !tunnel {
			return way(uplink, podRange(peer), nodeAddress(peer), 0)
		}
		link, err := netlink.LinkByName(uplink)
		if err != nil {
			return err
		}
		device := &netlink.Vxlan{
			LinkAttrs: netlink.LinkAttrs{Name: "vx0", MTU: 1450, HardwareAddr: hardware(node, 2)},
			VxlanId:   7, VtepDevIndex: link.Attrs().Index, Port: 4789,
			SrcAddr: nodeAddress(node).AsSlice(), Group: nodeAddress(peer).AsSlice(),
		}
		if err := netlink.LinkAdd(device); err != nil {
			return err
		}
		if err := address("vx0", model.HostPrefix(podRange(node).Addr())); err != nil {
			return err
		}
		if err := neighbor("vx0", podRange(peer).Addr(), hardware(peer, 2)); err != nil {
			return err
		}
		return way("vx0", podRange(peer), podRange(peer).Addr(), 1450)
	}
}

// tracking adds what every cluster has that translates addresses, as all with
// Services or masquerade do: connection tracking.
func tracking(join recipe) recipe {
	return func(ctx context.Context, w *world, node int) error {
		if err := join(ctx, w, node); err != nil {
			return err
		}
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "hand"})
		chain := conn.AddChain(&nftables.Chain{
			Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		// A chain alone does not start it. Nothing leaves by lo, and only a
		// connection's first packet comes here.
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyOIF, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1, 0, 0, 0}},
			&expr.Masq{},
		}})
		return conn.Flush()
	}
}

func (w *world) close() {
	for i := range w.nodes {
		_, _ = w.nodes[i].handle.Close(), w.pods[i].handle.Close()
	}
}

// namespace is a network namespace; it is gone when it is closed.
type namespace struct{ handle netns.NsHandle }

func newNamespace() (n *namespace, err error) {
	n = &namespace{}
	err = onThread(func() error {
		if n.handle, err = netns.New(); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return n, err
}

// do runs f inside. Sockets that it makes stay there.
func (n *namespace) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.handle), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// onThread runs f on a thread that ends with it.
func onThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- f()
	}()
	return <-result
}

func address(device string, prefix netip.Prefix) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	return netlink.AddrAdd(link, &netlink.Addr{IPNet: network(prefix)})
}

func neighbor(device string, addr netip.Addr, mac net.HardwareAddr) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	return netlink.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac,
	})
}

// way adds a route; via is invalid if the destination is on the link.
func way(device string, to netip.Prefix, via netip.Addr, mtu int) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: network(to), Gw: via.AsSlice(), MTU: mtu}
	if via.IsValid() {
		route.Flags = int(netlink.FLAG_ONLINK)
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	return netlink.RouteAdd(route)
}

func network(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}
