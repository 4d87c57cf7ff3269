package netlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/plan/route"
)

// Disturbed tells that somebody has changed or removed what was applied: a
// route, a tunnel device or what is on it, a setting. It is told only while Run
// runs. What was seen is kept, so that Apply mends just that; Apply reads the
// kernel back only when a device has changed or notifications were lost.
func (p *Plane) Disturbed() <-chan struct{} { return p.disturbed }

// Run follows the kernel's notifications until the context ends, in the network
// namespace of the calling thread. It may run beside all else, and may be
// called again after an error.
func (p *Plane) Run(ctx context.Context) error {
	socket, err := subscribe()
	if err != nil {
		return fmt.Errorf("watch routing: %w", err)
	}
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Unix(1, 0)) })()
	// What happened before was not seen.
	p.missed()
	conn, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch routing: %w", err)
	}
	buffer := make([]byte, 64<<10)
	for {
		if err := socket.SetReadDeadline(p.nextLook()); err != nil {
			return fmt.Errorf("watch routing: %w", err)
		}
		if ctx.Err() != nil { // whose end may have set another deadline before
			return nil
		}
		n, err := receive(conn, buffer, true)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			p.look()
		case errors.Is(err, unix.ENOBUFS):
			p.missed()
		case err != nil:
			return fmt.Errorf("watch routing: %w", err)
		default:
			p.follow(conn, buffer, n, mostAtOnce)
		}
	}
}

// The kernel does not tell of programs that are taken from the chain tcx, nor of most
// sysctls: these are between two looks at them.
const (
	lookInterval   = 500 * time.Millisecond
	sysctlInterval = 10 * time.Second
)

// nextLook is when to look at what the kernel does not tell of.
func (p *Plane) nextLook() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.looked.Add(sysctlInterval)
	if _, ok := p.ipips.Wanted(route.IPIPDevice); ok {
		next = earlier(next, time.Now().Add(lookInterval))
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (p *Plane) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	sysctls := now.Sub(p.looked) >= sysctlInterval
	if sysctls {
		p.looked = now
	}
	if !p.known {
		return
	}
	if p.settleIPIP(); !p.known || sysctls && p.lookAtSysctls() {
		p.disturb()
	}
}

// lookAtSysctls tells whether one is not as it should be.
func (p *Plane) lookAtSysctls() (different bool) {
	for key, believed := range p.sysctls.All() {
		if seen, err := readSysctl(key); err == nil && seen != believed {
			p.sysctls.Did(key, seen)
			different = different || p.sysctls.Differs(key)
		}
	}
	return different
}

// groups are the notifications that are followed.
const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_NEIGH-1) | 1<<(unix.RTNLGRP_TC-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) |
	1<<(unix.RTNLGRP_IPV4_NETCONF-1) | 1<<(unix.RTNLGRP_IPV6_NETCONF-1)

// largestBurst in bytes holds what one Apply does for some ten thousand nodes,
// as the kernel counts it: they are notified of, too.
const largestBurst = 64 << 20

func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a route netlink socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, largestBurst)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("subscribe to notifications: %w", err)
	}
	return os.NewFile(uintptr(fd), "route netlink"), nil
}

// receive reads the next datagram, and without one waits for it, or returns
// EAGAIN.
func receive(conn syscall.RawConn, buffer []byte, wait bool) (n int, err error) {
	failed := conn.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), buffer, unix.MSG_TRUNC)
		return !wait || !errors.Is(err, unix.EAGAIN)
	})
	if failed != nil {
		return 0, failed
	}
	if n > len(buffer) {
		return 0, unix.ENOBUFS
	}
	return n, err
}

// missed makes the next Apply read back, for it cannot be told what changed.
func (p *Plane) missed() {
	p.Forget()
	p.disturb()
}

func (p *Plane) disturb() {
	select {
	case p.disturbed <- struct{}{}:
	default:
	}
}

// mostAtOnce is how many notifications Apply waits for, at most.
const mostAtOnce = 10000

// follow takes in a first notification and those that wait behind it, so many at most. Apply does
// not run meanwhile: whatever it has done was notified of when it returned, so
// that its own deeds have their last word before anything is called different.
func (p *Plane) follow(conn syscall.RawConn, buffer []byte, n, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for i := range most {
		if i > 0 {
			if n, err = receive(conn, buffer, false); err != nil {
				break
			}
		}
		messages, parsed := syscall.ParseNetlinkMessage(buffer[:n])
		if parsed != nil {
			err = unix.ENOBUFS
			break
		}
		for _, message := range messages {
			if p.known { // else all is read back anyway
				p.see(message)
			}
		}
	}
	if errors.Is(err, unix.ENOBUFS) {
		p.known = false
		p.disturb()
	}
	if p.judge() {
		p.disturb()
	}
}

// judge tells whether anything that was seen to change is not as it should be.
func (p *Plane) judge() (differs bool) {
	if p.known {
		p.settleDevices()
	}
	for _, still := range p.suspects {
		differs = still() || differs
	}
	clear(p.suspects)
	return differs
}
