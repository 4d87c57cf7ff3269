package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/whole"
)

// What is on one link is asked of the kernel for that link alone. A list of all
// neighbours, one for each node and pod, took a node of 200 pods in a cluster of
// 1,000 nodes a second of its processors when it started.

// askKernel asks the kernel, of the network namespace of the calling thread, for what
// only these attributes describe.
func askKernel(kind, flags int, answers uint16, of ...nl.NetlinkRequestData) ([][]byte, error) {
	socket, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer socket.Close()
	// Else the kernel lists all the same.
	if err := unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil {
		return nil, fmt.Errorf("configure netlink: %w", err)
	}
	request := nl.NewNetlinkRequest(kind, flags)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
	for _, part := range of {
		request.AddData(part)
	}
	return request.Execute(unix.NETLINK_ROUTE, answers)
}

// verifyAddress wants an address of a link, which is in the network namespace of
// the calling thread.
func verifyAddress(link netlink.Link, want netip.Prefix) error {
	header := nl.NewIfAddrmsg(netlinkFamily(want.Addr()))
	header.Index = uint32(link.Attrs().Index)
	found, err := whole.List(func() ([][]byte, error) {
		return askKernel(unix.RTM_GETADDR, unix.NLM_F_DUMP, unix.RTM_NEWADDR, header)
	})
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	for _, message := range found {
		header := nl.DeserializeIfAddrmsg(message)
		attributes, err := nl.ParseRouteAttr(message[header.Len():])
		if err != nil {
			return fmt.Errorf("read addresses of %s: %w", link.Attrs().Name, err)
		}
		for _, attribute := range attributes {
			if kind := attribute.Attr.Type; kind != unix.IFA_ADDRESS && kind != unix.IFA_LOCAL {
				continue
			}
			if addr, ok := netip.AddrFromSlice(attribute.Value); ok && addr == want.Addr() && int(header.Prefixlen) == want.Bits() {
				return nil
			}
		}
	}
	return differs("%s lacks the address %s", link.Attrs().Name, want)
}

// verifyNeighbor wants a permanent neighbour of a link, which is in the network
// namespace of the calling thread.
func verifyNeighbor(link netlink.Link, addr netip.Addr, mac model.MAC) error {
	missing := differs("%s is not a permanent neighbour at %s on %s", addr, mac, link.Attrs().Name)
	found, err := askKernel(unix.RTM_GETNEIGH, 0, unix.RTM_NEWNEIGH,
		&netlink.Ndmsg{Family: uint8(netlinkFamily(addr)), Index: uint32(link.Attrs().Index)},
		nl.NewRtAttr(netlink.NDA_DST, addr.AsSlice()))
	if errors.Is(err, unix.ENOENT) {
		return missing
	}
	if err != nil {
		return fmt.Errorf("look up neighbour %s: %w", addr, err)
	}
	for _, message := range found {
		n, err := netlink.NeighDeserialize(message)
		if err != nil {
			return fmt.Errorf("read neighbour %s: %w", addr, err)
		}
		if n.State == netlink.NUD_PERMANENT && bytes.Equal(n.HardwareAddr, mac[:]) {
			return nil
		}
	}
	return missing
}
