package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// podNetwork has the addresses of pods: those of RFC 2544, which is about benchmarks.
// An address of 127.0.0.0/8 is none that an endpoint may have.
var podNetwork = netip.MustParsePrefix("198.18.0.0/15")

// podAt is the address of a pod.
func podAt(n int) netip.Addr {
	b := podNetwork.Addr().As4()
	return netip.AddrFrom4([4]byte{b[0], b[1] + byte(n>>16), byte(n >> 8), byte(n)})
}

// isApart says that this process is the one in a network namespace of its own.
const isApart = "FAIRLEAD_BENCH_APART"

// apart runs this program once more, in a network namespace without links, in which
// all pods are, and tells whether it did: if not, this is it.
func apart() (did bool, err error) {
	if os.Getenv(isApart) != "" {
		return false, joinPods()
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), isApart+"=1")
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return true, again.Run()
}

// joinPods has this network namespace be where all pods are.
func joinPods() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback interface: %w", err)
	}
	network := &netlink.Route{
		LinkIndex: lo.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
		Dst: &net.IPNet{IP: podNetwork.Addr().AsSlice(), Mask: net.CIDRMask(podNetwork.Bits(), 32)},
	}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.RouteReplace(network)); err != nil {
		return fmt.Errorf("give pods their network: %w", err)
	}
	return nil
}
