package udptunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socketBuffer is of the kernel, for each direction, in bytes: a few
// milliseconds at 10 Gbit/s, in which this process does not get a CPU.
const socketBuffer = 8 << 20

// socket is a UDP socket on one port, for the runtime's poller.
type socket struct {
	file *os.File
	raw  syscall.RawConn
	at   netip.AddrPort
}

// listen opens a socket in the network namespace of the calling thread.
func listen(at netip.AddrPort) (*socket, error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a UDP socket: %w", err)
	}
	if err := setUp(fd, at); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s := &socket{file: os.NewFile(uintptr(fd), "udp "+at.String()), at: at}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("watch the UDP socket: %w", err)
	}
	return s, nil
}

func setUp(fd int, at netip.AddrPort) error {
	// The address may come to the node later than its plan.
	level, bindEarly, discover, dont := unix.SOL_IP, unix.IP_FREEBIND, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT
	if at.Addr().Is6() {
		level, bindEarly, discover, dont = unix.SOL_IPV6, unix.IPV6_FREEBIND, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT
		if err := unix.SetsockoptInt(fd, level, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("make the socket one of IPv6 only: %w", err)
		}
	}
	if err := unix.SetsockoptInt(fd, level, bindEarly, 1); err != nil {
		return fmt.Errorf("allow an address that the node does not have yet: %w", err)
	}
	// A smaller MTU on the way makes fragments, not a hole.
	if err := unix.SetsockoptInt(fd, level, discover, dont); err != nil {
		return fmt.Errorf("allow fragments: %w", err)
	}
	for _, option := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, socketBuffer); err != nil {
			return fmt.Errorf("enlarge the socket's buffer: %w", err)
		}
	}
	// Linux 5.0 has this; without, datagrams come one by one.
	err := unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return fmt.Errorf("receive several datagrams as one: %w", err)
	}
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if at.Addr().Is4() {
		to = &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	if err := unix.Bind(fd, to); err != nil {
		return fmt.Errorf("listen on UDP %s: %w", at, err)
	}
	return nil
}

// message is a struct mmsghdr.
type message struct {
	header unix.Msghdr
	size   uint32
}

// exchange is sendmmsg or recvmmsg on a socket that does not block. Like the
// other calls for each batch, it is not told to Go's scheduler, which would
// give the thread's work to another after 20 µs: 6 % of throughput (measured).
func exchange(call, fd uintptr, messages []message) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// control is room for one control message of a number, such as UDP_SEGMENT's.
type control struct {
	header unix.Cmsghdr
	value  [8]byte
}

func (c *control) setSegment(size int) int {
	c.header.Level, c.header.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	c.header.SetLen(unix.CmsgLen(2))
	*(*uint16)(unsafe.Pointer(&c.value)) = uint16(size)
	return unix.CmsgSpace(2)
}

// segment is the size of the datagrams that were received as one, or zero.
func (c *control) segment(length int) int {
	if length < unix.CmsgLen(4) || c.header.Level != unix.SOL_UDP || c.header.Type != unix.UDP_GRO {
		return 0
	}
	return int(*(*int32)(unsafe.Pointer(&c.value)))
}
