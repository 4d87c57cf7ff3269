package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// kernel is what the kernel says that it was told: the pod ranges that it routes,
// and neighbours and forwarding entries.
type kernel struct {
	mu      sync.Mutex
	entries map[string]bool
	last    time.Time     // of a change
	changed chan struct{} // closed and replaced at each
	err     error
}

const uplink = "up0"

// watchKernel prepares the namespace and follows it until done is closed.
func watchKernel(done <-chan struct{}) (*kernel, error) {
	if err := addUplink(); err != nil {
		return nil, fmt.Errorf("prepare the namespace: %w", err)
	}
	k := &kernel{entries: map[string]bool{}, changed: make(chan struct{})}
	failed := func(err error) {
		select {
		case <-done: // that is how it ends
		default:
			k.mu.Lock()
			k.err = errors.Join(k.err, err)
			k.mu.Unlock()
		}
	}
	const buffer = 64 << 20 // a mass of changes must not overrun it
	routes, neighbors := make(chan netlink.RouteUpdate, 1024), make(chan netlink.NeighUpdate, 1024)
	err := errors.Join(
		netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{
			ErrorCallback: failed, ReceiveBufferSize: buffer, ReceiveBufferForceSize: true,
		}),
		netlink.NeighSubscribeWithOptions(neighbors, done, netlink.NeighSubscribeOptions{
			ErrorCallback: failed, ReceiveBufferSize: buffer, ReceiveBufferForceSize: true,
		}))
	go func() {
		for update := range routes {
			if update.Dst != nil {
				k.note("route "+update.Dst.String(), update.Type == unix.RTM_NEWROUTE)
			}
		}
	}()
	go func() {
		for update := range neighbors {
			what := "neighbor " + update.IP.String()
			if update.Family == unix.AF_BRIDGE {
				what = "fdb " + update.IP.String()
			}
			if update.Type == unix.RTM_DELNEIGH || update.State&unix.NUD_PERMANENT != 0 {
				k.note(what, update.Type == unix.RTM_NEWNEIGH)
			}
		}
	}()
	return k, err
}

// addUplink makes a link that leads nowhere, with the addresses of node 0.
func addUplink() error {
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: uplink}, PeerName: "nowhere"}
	if err := errors.Join(loopbackUp(), netlink.LinkAdd(pair)); err != nil {
		return err
	}
	peer, err := netlink.LinkByName("nowhere")
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.LinkSetUp(pair), netlink.LinkSetUp(peer)); err != nil {
		return err
	}
	for _, prefix := range nodeAddresses(0) {
		err = errors.Join(err, netlink.AddrAdd(pair, &netlink.Addr{IPNet: network(prefix), Flags: unix.IFA_F_NODAD}))
	}
	return err
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

func network(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}

func (k *kernel) note(entry string, present bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if present {
		k.entries[entry] = true
	} else {
		delete(k.entries, entry)
	}
	k.last = time.Now()
	close(k.changed)
	k.changed = make(chan struct{})
}

// until waits for the kernel to have routes to all pods of nodes from first to
// last and the neighbours that they need, or none of them, and returns when that
// came about.
func (k *kernel) until(first, last int, present bool) (time.Time, error) {
	timeout := time.After(time.Minute)
	remaining := first // those before are as they should be
	for {
		k.mu.Lock()
		for remaining <= last && k.as(remaining, present) {
			remaining++
		}
		at, changed, err := k.last, k.changed, k.err
		k.mu.Unlock()
		if err != nil {
			return at, fmt.Errorf("follow the kernel: %w", err)
		}
		if remaining > last {
			return at, nil
		}
		select {
		case <-changed:
		case <-timeout:
			return at, fmt.Errorf("the kernel has no routes for node %d after a minute", remaining)
		}
	}
}

// as tells whether the entries of a node are there, or none are.
func (k *kernel) as(node int, present bool) bool {
	ranges := podRanges(node)
	for _, prefix := range ranges {
		if k.entries["route "+prefix.String()] != present {
			return false
		}
	}
	// Behind the tunnel, the first address of the range is the next hop, and the
	// forwarding database has the node's address.
	return node < perSegment || k.entries["neighbor "+ranges[0].Addr().String()] == present &&
		k.entries["fdb "+nodeAddresses(node)[0].Addr().String()] == present
}
