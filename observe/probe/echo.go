package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Echo answers the questions of others. It answers at most echoRate of them in
// a second, whoever asks.
type Echo struct {
	Admit    func(from netip.Addr) bool // whom it answers
	Endpoint func() bool                // the node has an endpoint now
	bucket   bucket
}

// What a node answers: a cluster of a hundred nodes checked all at once stays
// below.
const (
	echoRate  = 2000 // in a second
	echoConns = 64   // by TCP at a time
	echoTime  = 3 * time.Second
)

// Serve answers on an address until ctx ends or the sockets fail. It calls
// ready when it listens. here is as in Task. The address need not be there yet.
func (e *Echo) Serve(ctx context.Context, at netip.Addr, here func(func() error) error, ready func()) error {
	config := net.ListenConfig{Control: freebind}
	where := netip.AddrPortFrom(at, Port).String()
	var datagrams net.PacketConn
	var connections net.Listener
	err := Task{Here: here}.here(func() (err error) {
		if datagrams, err = config.ListenPacket(ctx, "udp", where); err != nil {
			return err
		}
		if connections, err = config.Listen(ctx, "tcp", where); err != nil {
			_ = datagrams.Close()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("listen for probes: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closing := context.AfterFunc(ctx, func() { _, _ = datagrams.Close(), connections.Close() })
	defer closing()
	ready()
	var serving sync.WaitGroup
	defer serving.Wait()
	failed := make(chan error, 2)
	serving.Go(func() { failed <- e.serveUDP(datagrams); cancel() })
	serving.Go(func() { failed <- e.serveTCP(connections); cancel() })
	<-ctx.Done()
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("answer probes: %w", err)
	}
	return nil
}

// freebind listens on an address that is on no interface at the moment.
func freebind(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	})
	return errors.Join(err, failed)
}

func (e *Echo) serveUDP(conn net.PacketConn) error {
	defer conn.Close()
	var packet [1 << 16]byte
	for {
		n, from, err := conn.ReadFrom(packet[:])
		switch {
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // of an answer that somebody refused
			if !passing(err) {
				return err
			}
			continue
		}
		if reply, ok := e.reply(packet[:n], from); ok {
			_, _ = conn.WriteTo(reply, from) // who gets none asks again
		}
	}
}

// reply is the answer to a question.
func (e *Echo) reply(packet []byte, from net.Addr) ([]byte, bool) {
	m, ok := parse(packet)
	if !ok || m.kind != question || !e.admits(from) {
		return nil, false
	}
	m.kind, m.flags = answer, 0
	if e.Endpoint != nil && e.Endpoint() {
		m.flags = hasEndpoint
	}
	m.put(packet)
	return packet[:headerSize], true
}

func (e *Echo) admits(from net.Addr) bool {
	addr, err := netip.ParseAddrPort(from.String())
	return err == nil && e.Admit(addr.Addr().Unmap().WithZone("")) && e.bucket.take(time.Now())
}

func (e *Echo) serveTCP(listener net.Listener) error {
	defer listener.Close()
	var answering sync.WaitGroup
	defer answering.Wait()
	slots := make(chan struct{}, echoConns)
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // of file descriptors, perhaps: there are some again soon
			time.Sleep(100 * time.Millisecond)
			continue
		}
		select {
		case slots <- struct{}{}:
		default: // too many
			_ = conn.Close()
			continue
		}
		answering.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(echoTime))
			var packet [headerSize]byte
			if _, err := io.ReadFull(conn, packet[:]); err != nil {
				return
			}
			if reply, ok := e.reply(packet[:], conn.RemoteAddr()); ok {
				_, _ = conn.Write(reply)
			}
		})
	}
}

// bucket lets echoRate through in a second, and as many at once.
type bucket struct {
	mu    sync.Mutex
	spent float64
	at    time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*echoRate)
	b.at = now
	if b.spent >= echoRate {
		return false
	}
	b.spent++
	return true
}
