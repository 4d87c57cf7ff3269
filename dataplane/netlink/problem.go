package netlink

import (
	"errors"
	"fmt"
	"slices"
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
	reason, remedy := diagnose(errno)
	b.problems = append(b.problems, model.Problem{
		Kind: "Node", Name: b.node, Field: named, Reason: reason,
		Message: fmt.Sprintf("the kernel refused %q: %v", asked, err),
		Remedy:  remedy,
	})
	return nil
}

// condense sorts problems and keeps a few of each reason: if an uplink is down,
// the routes to a thousand nodes need not all say so.
func condense(problems []model.Problem) []model.Problem {
	const most = 10
	slices.SortFunc(problems, model.Problem.Compare)
	seen := map[string]int{}
	kept := slices.DeleteFunc(problems, func(p model.Problem) bool {
		seen[p.Reason]++
		return seen[p.Reason] > most
	})
	for i, p := range kept {
		if more := seen[p.Reason] - most; more > 0 {
			kept[i].Message += fmt.Sprintf(" (and %d more)", more)
			delete(seen, p.Reason)
		}
	}
	return kept
}

// broken tells errors of the socket from answers to a request.
func broken(errno syscall.Errno) bool {
	switch errno {
	case unix.EAGAIN, unix.EBADF, unix.EINTR, unix.ENOBUFS, unix.ENOTCONN:
		return true
	}
	return false
}

func diagnose(errno syscall.Errno) (reason, remedy string) {
	switch errno {
	case unix.ENODEV, unix.ENXIO:
		return "DeviceMissing", "it is tried again; if it stays so, see ip link on the node"
	case unix.ENOENT:
		return "Missing", "see whether the network interface is there (ip link) and whether IPv6 is disabled on the node"
	case unix.ENETDOWN:
		return "DeviceDown", "bring the network interface up: ip link set DEVICE up"
	case unix.ENETUNREACH, unix.EHOSTUNREACH:
		return "NextHopUnreachable", "no address of the node is on the network of the next hop; see ip address on the node"
	case unix.EEXIST:
		return "Conflict", "remove what is in the way, or give the cluster another range; it is not overwritten"
	case unix.EPERM, unix.EACCES, unix.EROFS:
		return "PermissionDenied", "run the agent privileged, with CAP_NET_ADMIN and a writable /proc/sys"
	case unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT:
		return "KernelUnsupported", "load or build the kernel's module for it (vxlan, ipv6)"
	default:
		return "KernelRefused", "report it with the output of fairlead status"
	}
}
