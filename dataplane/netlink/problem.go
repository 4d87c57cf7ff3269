package netlink

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// item says how one kind of item is named to users.
type item[K, V comparable] struct {
	named func(K) string    // such as "route 10.244.2.0/24"
	asked func(K, V) string // what the kernel was asked for, as ip writes it
}

// refused files a Problem of an item that the kernel refused, or returns the
// error if it is no answer to the item.
func (b *batch) refused(named, asked string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) || broken(errno) {
		return fmt.Errorf("apply %s: %w", asked, err)
	}
	reason, remedy := diagnose(errno, named, asked)
	b.problems = append(b.problems, model.Problem{
		Kind: "Node", Name: b.node, Field: named, Reason: reason,
		Message: fmt.Sprintf("the kernel refused %q: %v", asked, err),
		Remedy:  remedy,
	})
	return nil
}

// broken tells errors of the socket from answers to a request.
func broken(errno syscall.Errno) bool {
	switch errno {
	case unix.EAGAIN, unix.EBADF, unix.EINTR, unix.ENOBUFS, unix.ENOTCONN:
		return true
	}
	return false
}

func diagnose(errno syscall.Errno, named, asked string) (reason, remedy string) {
	switch errno {
	case unix.ENODEV, unix.ENXIO:
		return "DeviceMissing", "it is tried again; if it stays so, see ip link on the node"
	case unix.ENOENT:
		remedy = "see whether the network interface is there (ip link)"
		if ofIPv6(named) {
			remedy += " and whether IPv6 is disabled on the node"
		}
		return "Missing", remedy
	case unix.ENETDOWN:
		return "DeviceDown", "bring the network interface up: ip link set DEVICE up"
	case unix.ENETUNREACH, unix.EHOSTUNREACH:
		return "NextHopUnreachable", "no address of the node is on the network of the next hop; see ip address on the node"
	case unix.EEXIST:
		return "Conflict", "remove what is in the way, or give the cluster another range; it is not overwritten"
	case unix.EINVAL:
		// Linux says so of a source that is no address of its own.
		if _, source, ok := strings.Cut(asked, " src "); ok {
			source, _, _ = strings.Cut(source, " ")
			return "SourceMissing", "the source address " + source + " is on no interface of the node that is up; see ip address on the node"
		}
	case unix.EACCES:
		// Of an address or a route, it means just this (addrconf.c, ip6_route_info_create).
		if ofIPv6(named) && !strings.HasPrefix(named, "sysctl ") {
			return ipv6Disabled, "enable IPv6 on the network interface: sysctl net.ipv6.conf.DEVICE.disable_ipv6=0"
		}
		return "PermissionDenied", privileged
	case unix.EPERM, unix.EROFS:
		return "PermissionDenied", privileged
	case unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT:
		return "KernelUnsupported", "load or build the kernel's module for it (vxlan, which Linux has since 3.7, ipip or ipv6)"
	}
	return "KernelRefused", "report it with the output of fairlead status"
}

const ipv6Disabled = "IPv6Disabled"

const privileged = "run the agent privileged, with CAP_NET_ADMIN and a writable /proc/sys"

// ofIPv6 tells whether an item is of this family alone.
func ofIPv6(named string) bool {
	switch kind, key, _ := strings.Cut(named, " "); kind {
	case "sysctl":
		return strings.HasPrefix(key, "net/ipv6/")
	case "address", "neighbor", "route":
		return strings.Contains(key, ":")
	}
	return false
}
