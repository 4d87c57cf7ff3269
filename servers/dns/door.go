package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// door is one address that is listened at: several UDP sockets, among which the
// kernel spreads the clients, and one of TCP.
type door struct {
	sockets  []*socket
	acceptor *acceptor
	cancel   context.CancelFunc
	end      context.CancelFunc // of connections that have nothing in hand
	loops    sync.WaitGroup     // of the UDP sockets
	running  sync.WaitGroup     // all else
}

// mostSockets bounds how many UDP sockets an address has: one for each CPU, up to
// so many. A core answers some 300,000 queries a second.
const mostSockets = 8

// openDoor listens at an address. It is open for both protocols, or not at all.
func (s *Server) openDoor(ctx context.Context, at netip.AddrPort) (*door, error) {
	// It ends by close alone, which lets what is in hand be answered.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	last, end := context.WithCancel(ctx)
	d := &door{cancel: cancel, end: end}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if failed := raw.Control(func(fd uintptr) { err = bindEarly(int(fd), at.Addr()) }); failed != nil {
			return failed
		}
		return err
	}}
	listener, err := config.Listen(ctx, "tcp", at.String())
	if err != nil {
		cancel()
		return nil, fmt.Errorf("listen on TCP %s: %w", at, err)
	}
	d.acceptor = &acceptor{server: s, listener: listener.(*net.TCPListener), ctx: ctx, last: last}
	// A test may leave the choice of a port to the kernel.
	at = netip.AddrPortFrom(at.Addr(), uint16(listener.Addr().(*net.TCPAddr).Port))
	for range min(runtime.GOMAXPROCS(0), mostSockets) {
		socket, err := listenUDP(at)
		if err != nil {
			d.close()
			return nil, err
		}
		d.sockets = append(d.sockets, socket)
	}
	for _, socket := range d.sockets {
		d.loops.Go(func() {
			l := newLoop(s, socket)
			defer s.ended(l.counts)
			l.run(ctx, &d.running)
		})
	}
	d.running.Go(func() { d.acceptor.run() })
	return d, nil
}

// closeTime is for connections to have what is in hand answered.
const closeTime = 500 * time.Millisecond

// close ends all that was open, and waits for it. Queries that have come are
// answered: another process may listen here already.
func (d *door) close() {
	d.end()
	d.acceptor.rest()
	_ = d.acceptor.listener.Close()
	for _, socket := range d.sockets {
		_ = socket.file.SetReadDeadline(time.Now())
	}
	d.loops.Wait()
	for _, socket := range d.sockets {
		_ = socket.file.Close()
	}
	hurry := time.AfterFunc(closeTime, d.cancel)
	defer hurry.Stop()
	d.acceptor.streams.Wait()
	d.cancel()
	d.running.Wait()
}

// bindEarly lets a socket be bound to an address that the node does not have yet,
// or that the same user listens at.
func bindEarly(fd int, addr netip.Addr) error {
	level, option := unix.SOL_IP, unix.IP_FREEBIND
	if addr.Is6() {
		level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
		if err := unix.SetsockoptInt(fd, level, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("make the socket one of IPv6 only: %w", err)
		}
	}
	// The next process of an upgrade listens before this one ends, and each core of
	// this one by itself.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fmt.Errorf("share the port: %w", err)
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return fmt.Errorf("allow an address that the node does not have yet: %w", err)
	}
	return nil
}
