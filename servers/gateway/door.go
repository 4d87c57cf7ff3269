package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http3"
	"golang.org/x/sys/unix"
)

// door is one address that is listened at, by a socket for each core: the kernel
// spreads the clients among them.
type door struct {
	at        Listener // with the port that the kernel chose
	listeners []*net.TCPListener
	quic      *http3.Socket // nil: they are of TCP
	accepting sync.WaitGroup
}

// openDoor listens at an address.
func (s *Server) openDoor(ctx context.Context, l Listener) (*door, error) {
	if l.HTTP3 {
		return s.quic.openDoor(ctx, l)
	}
	d := &door{at: l}
	config := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if failed := raw.Control(func(fd uintptr) { err = prepare(int(fd), l.At.Addr()) }); failed != nil {
			return failed
		}
		return err
	}}
	for range s.counts {
		listener, err := config.Listen(ctx, "tcp", d.at.At.String())
		if err != nil {
			d.close()
			return nil, fmt.Errorf("listen on TCP %s: %w", l.At, err)
		}
		d.listeners = append(d.listeners, listener.(*net.TCPListener))
		d.at.At = netip.AddrPortFrom(l.At.Addr(), uint16(listener.Addr().(*net.TCPAddr).Port))
	}
	for core, listener := range d.listeners {
		d.accepting.Go(func() { s.accept(listener, core, d.at) })
	}
	return d, nil
}

// prepare makes the port one that several sockets share, of this process and of
// the next one of an upgrade, and whose connections are looked after by the kernel.
func prepare(fd int, addr netip.Addr) error {
	if addr.Is6() {
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("make the socket one of IPv6 only: %w", err)
		}
	}
	for _, option := range []struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, // accepted sockets inherit it
		{unix.SOL_TCP, unix.TCP_KEEPIDLE, 60},
		{unix.SOL_TCP, unix.TCP_KEEPINTVL, 15},
		{unix.SOL_TCP, unix.TCP_KEEPCNT, 4},
	} {
		if err := unix.SetsockoptInt(fd, option.level, option.name, option.value); err != nil {
			return fmt.Errorf("set option %d of the socket: %w", option.name, err)
		}
	}
	return nil
}

// close takes what has come, and no more.
func (d *door) close() {
	if d.quic != nil {
		d.quic.Stop()
		return
	}
	for _, listener := range d.listeners {
		_ = listener.SetDeadline(time.Now().Add(20 * time.Millisecond))
	}
	d.accepting.Wait()
	for _, listener := range d.listeners {
		_ = listener.Close()
	}
}

// accept takes connections until the listener has a deadline.
func (s *Server) accept(listener *net.TCPListener, core int, at Listener) {
	for {
		conn, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) || errors.Is(err, errDeadline) {
			return
		}
		if err != nil { // out of descriptors, or the client is gone again
			time.Sleep(10 * time.Millisecond) // nobody tells when there are some
			continue
		}
		if s.clients.Add(1) > int64(s.settings.Clients) {
			s.clients.Add(-1)
			s.refused.Add(1)
			_ = conn.Close()
			continue
		}
		sock, err := newSock(conn, &s.watch)
		if err != nil {
			s.clients.Add(-1)
			_ = conn.Close()
			continue
		}
		s.watch.add(sock)
		s.counts[core].accepted.Add(1)
		c := newClient(s, sock, core, at)
		s.running.Go(func() {
			defer s.clients.Add(-1)
			c.run()
			s.watch.remove(sock)
			_ = sock.Close()
		})
	}
}
