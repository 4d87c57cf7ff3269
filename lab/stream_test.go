package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stream is an established connection on which a thousand bytes go out every
// five milliseconds and come back.
type stream struct {
	name           string
	client, server net.Conn
}

const (
	chunk      = 1000
	chunkPause = 5 * time.Millisecond
)

// openStream connects two network namespaces: who calls one address comes out at
// an address of the
// second. Port 0 is any that is free.
func openStream(source, destination *os.File, at, called netip.Addr, port uint16) (*stream, error) {
	var listener net.Listener
	err := within(destination, func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(at, port).String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening a stream: %w", err)
	}
	defer listener.Close()
	s := &stream{name: "stream " + called.String()}
	number := uint16(listener.Addr().(*net.TCPAddr).Port)
	if err := within(source, func() (err error) {
		s.client, err = net.DialTimeout("tcp", netip.AddrPortFrom(called, number).String(), 5*time.Second)
		return err
	}); err != nil {
		return nil, fmt.Errorf("opening a stream: %w", err)
	}
	if s.server, err = listener.Accept(); err != nil {
		return nil, fmt.Errorf("opening a stream: %w", err)
	}
	return s, nil
}

// run keeps it busy until the context ends.
func (s *stream) run(ctx context.Context) result {
	r := result{name: s.name, tcp: true, stream: true}
	defer s.server.Close()
	defer s.client.Close()
	before, err := s.warm()
	if err != nil {
		r.broken = err
	}
	var both sync.WaitGroup
	both.Go(func() { // echo
		buffer := make([]byte, 1<<16)
		for {
			n, err := s.server.Read(buffer)
			if err == nil {
				_, err = s.server.Write(buffer[:n])
			}
			if err != nil {
				return
			}
		}
	})
	both.Go(func() { // send; what fails here fails the reader too
		for number, err := byte(0), error(nil); ctx.Err() == nil && err == nil; number++ {
			block := make([]byte, chunk)
			for i := range block {
				block[i] = number
			}
			_, err = s.client.Write(block)
			pause(ctx, chunkPause)
		}
	})
	stop := context.AfterFunc(ctx, func() { _ = s.client.SetDeadline(time.Now()) })
	defer stop()
	buffer := make([]byte, 1<<16)
	began := time.Now()
	last := began
	for ctx.Err() == nil && r.broken == nil {
		n, err := s.client.Read(buffer)
		r.gap = max(r.gap, time.Since(last))
		last = time.Now()
		for i, got := range buffer[:n] {
			if want := byte((r.sent + i) / chunk); got != want && r.broken == nil {
				r.broken = fmt.Errorf("byte %d is %d, and was sent as %d", r.sent+i, got, want)
			}
		}
		r.sent += n
		if err != nil && ctx.Err() == nil {
			r.broken = err
		}
	}
	pause(context.Background(), straggle) // what is on its way arrives
	after := s.settled()
	r.lost = max(0, after.forth-before.forth) + max(0, after.back-before.back)
	learned := min(r.lost, forgotten(last.Sub(began)))
	r.lost -= learned
	r.detail = fmt.Sprintf(" (%d sent again)", after.again-before.again)
	if before.mtus != after.mtus {
		r.detail += fmt.Sprintf(" (MTUs of the paths forth and back: %d before, %d after)", before.mtus, after.mtus)
	}
	if learned > 0 {
		r.detail += fmt.Sprintf(" (%d lost to learn the path's MTU again)", learned)
	}
	s.client.Close()
	s.server.Close()
	both.Wait()
	return r
}

// warm sends as much at once as fills packets, in both directions: the first that
// is too large for a tunnel is lost, so that the sender learns the path's MTU
// (RFC 1191). It returns the counts of then.
func (s *stream) warm() (counts, error) {
	much := make([]byte, 1<<16)
	for _, way := range []struct{ from, to net.Conn }{{s.client, s.server}, {s.server, s.client}} {
		if err := way.to.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return counts{}, err
		}
		go func() { _, _ = way.from.Write(much) }() // an error meets the reader too
		if _, err := io.ReadFull(way.to, make([]byte, len(much))); err != nil {
			return counts{}, fmt.Errorf("sending large packets: %w", err)
		}
		if err := way.to.SetReadDeadline(time.Time{}); err != nil {
			return counts{}, err
		}
	}
	return s.settled(), nil
}

// forgotten is how many packets a stream may lose in a time by what no fault does: the
// kernels of both ends remember the MTU of a path for ten minutes (mtu_expires of
// net.ipv4.route and net.ipv6.route), and send one that is too large to learn it again.
func forgotten(in time.Duration) int { return 2 * int(in/(10*time.Minute)) }

// counts are of packets that one end has sent and the other has not got, but for
// a constant, and of those that were sent again, which may be because an answer
// was late.
type counts struct {
	forth, back, again int
	mtus               [2]uint32 // which both ends know of the path to the other
}

func (s *stream) count() (c counts) {
	client, server := tcpInfo(s.client), tcpInfo(s.server)
	if client == nil || server == nil {
		return c // it broke, which is worse
	}
	c.forth = int(client.Segs_out) - int(server.Segs_in)
	c.back = int(server.Segs_out) - int(client.Segs_in)
	c.again = int(client.Total_retrans + server.Total_retrans)
	c.mtus = [2]uint32{client.Pmtu, server.Pmtu}
	return c
}

// settled counts when no packet is on its way: one that is sent after the one end
// was asked and arrives before the other is would be missed for ever.
func (s *stream) settled() counts {
	last := s.count()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		pause(context.Background(), 100*time.Millisecond)
		now := s.count()
		if now == last {
			break
		}
		last = now
	}
	return last
}

// tcpInfo is what the kernel says of a connection; nil if it is closed.
func tcpInfo(conn net.Conn) (info *unix.TCPInfo) {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) { info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	return info
}
