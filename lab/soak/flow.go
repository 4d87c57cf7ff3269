package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/lab/world"
)

// end is a fixed pod as flows see it, while its process lives.
type end struct {
	name  string
	node  string
	pid   int
	netns *os.File
	addrs []netip.Addr
}

// within runs f on a thread in the network of the pod.
func (e *end) within(f func() error) error {
	return world.OnThread(func() error {
		if err := unix.Setns(int(e.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering the network of %s: %w", e.name, err)
		}
		return f()
	})
}

// tally is what became of one kind of traffic between two places.
type tally struct {
	sent    int
	lost    int // outside of windows
	excused int // lost in windows
	busy    int // lost while this machine could not do its work
	gap     time.Duration
}

// loss is a time in which nothing came through.
type loss struct {
	what        string // traffic
	count       int
	from, until time.Time
	needs       effect
	nodes       []string
}

// Of pings and streams.
const (
	pingEvery  = 50 * time.Millisecond
	pingWait   = 2 * time.Second
	chunkEvery = 100 * time.Millisecond
	chunk      = 1000 // bytes
	stall      = 3 * time.Second
	tellAfter  = 10 * time.Second // a loss that lasts is told before it ends
)

// ping sends echo requests until ctx ends, and tells of each loss when it ends,
// or lasts. Answers are read before any is missed, so that a program that was
// kept from running blames nobody.
func ping(ctx context.Context, from *end, target netip.Addr, sent func(int), lost func(count int, since, until time.Time)) error {
	socket, err := openPing(from, target)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	times := map[uint64]time.Time{} // of those without an answer
	next, oldest := uint64(0), uint64(0)
	gap := 0
	var since time.Time
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	flush := func(until time.Time) {
		if gap > 0 {
			lost(gap, since, until)
		}
		gap = 0
	}
	for {
		readEchoes(socket, target, func(number uint64) { delete(times, number) })
		for ; oldest < next; oldest++ {
			at, unanswered := times[oldest]
			if unanswered && time.Since(at) < pingWait && ctx.Err() == nil {
				break // it still has time, and the later ones too
			}
			delete(times, oldest)
			if ctx.Err() != nil && unanswered && time.Since(at) < pingWait {
				continue
			}
			if !unanswered {
				flush(time.Now().Add(-pingWait))
				continue
			}
			if gap == 0 {
				since = at
			}
			if gap++; at.Sub(since) > tellAfter {
				flush(at)
			}
		}
		if ctx.Err() != nil {
			flush(time.Now())
			return nil
		}
		times[next] = time.Now()
		message := echo(target, next)
		if _, err := unix.Write(socket, message); err != nil {
			_, _ = unix.Write(socket, message) // the error may be that of an answer to an earlier one
		}
		next++
		sent(1)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func openPing(from *end, target netip.Addr) (socket int, err error) {
	family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if target.Is6() {
		family, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	err = from.within(func() (err error) {
		if socket, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol); err != nil {
			return err
		}
		if err = unix.Connect(socket, sockaddr(target)); err != nil {
			unix.Close(socket)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("opening pings from %s to %s: %w", from.name, target, err)
	}
	return socket, nil
}

func sockaddr(target netip.Addr) unix.Sockaddr {
	if target.Is4() {
		return &unix.SockaddrInet4{Addr: target.As4()}
	}
	return &unix.SockaddrInet6{Addr: target.As16()}
}

// mark tells our echo requests from those of others.
const mark = 0x50a6

// echo is an ICMP echo request with a number (RFC 792, RFC 4443). Of ICMPv6 the
// kernel makes the checksum.
func echo(target netip.Addr, number uint64) []byte {
	kind := byte(8)
	if target.Is6() {
		kind = 128
	}
	message := make([]byte, 16)
	message[0] = kind
	binary.BigEndian.PutUint16(message[4:], mark)
	binary.BigEndian.PutUint16(message[6:], uint16(number))
	binary.BigEndian.PutUint64(message[8:], number)
	sum := uint32(0)
	for i := 0; i < len(message); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(message[i:]))
	}
	for sum>>16 > 0 {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))
	return message
}

// readEchoes reads the answers that are there.
func readEchoes(socket int, target netip.Addr, answered func(number uint64)) {
	packet := make([]byte, 2048)
	for failed := 0; failed < 3; {
		n, err := unix.Read(socket, packet)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			failed++ // of an earlier ping; it is missed anyway
			continue
		}
		message, reply := packet[:n], byte(129)
		if target.Is4() {
			message, reply = packet[min(20, n):n], 0
		}
		if len(message) == 16 && message[0] == reply && binary.BigEndian.Uint16(message[4:]) == mark {
			answered(binary.BigEndian.Uint64(message[8:]))
		}
	}
}

// stream is a TCP connection on which bytes go out and come back, until ctx ends.
// stalled is told of each time in which nothing came. It returns why the
// connection ended before ctx did.
func stream(ctx context.Context, from, to *end, target netip.Addr, sent func(int), stalled func(since, until time.Time)) error {
	client, server, err := connect(from, to, target)
	if err != nil {
		return err
	}
	defer client.Close()
	defer server.Close()
	var both sync.WaitGroup
	defer both.Wait()
	stop := context.AfterFunc(ctx, func() { client.Close(); server.Close() })
	defer stop()
	defer client.Close() // before Wait
	defer server.Close()
	both.Go(func() { _, _ = io.Copy(server, server) }) // its error meets the reader too
	both.Go(func() {
		tick := time.NewTicker(chunkEvery)
		defer tick.Stop()
		for number := uint64(0); ctx.Err() == nil; number++ {
			block := make([]byte, chunk)
			binary.BigEndian.PutUint64(block, number)
			if _, err := client.Write(block); err != nil {
				return // meets the reader too
			}
			sent(1)
			<-tick.C
		}
	})
	block := make([]byte, chunk)
	last := time.Now()
	for number := uint64(0); ; number++ {
		if err := readBlock(client, block, &last, stalled); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("after %d kB: %w", number, err)
		}
		if got := binary.BigEndian.Uint64(block); got != number {
			return fmt.Errorf("the bytes of block %d came in the place of those of %d", got, number)
		}
	}
}

// readBlock reads one, and tells when it had to wait for longer than TCP should.
// It goes on waiting as long as the connection lasts.
func readBlock(client net.Conn, block []byte, last *time.Time, stalled func(since, until time.Time)) error {
	for read := 0; read < len(block); {
		if err := client.SetReadDeadline(time.Now().Add(tellAfter)); err != nil {
			return err
		}
		n, err := client.Read(block[read:])
		read += n
		now := time.Now()
		if now.Sub(*last) > stall {
			stalled(*last, now)
		}
		if n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			*last = now
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return nil
}

// errNotOpened says that a stream has not begun.
var errNotOpened = errors.New("the stream was not opened")

func connect(from, to *end, target netip.Addr) (client, server net.Conn, err error) {
	var listener net.Listener
	if err := to.within(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(target, 0).String())
		return err
	}); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errNotOpened, err)
	}
	defer listener.Close()
	if err := from.within(func() (err error) {
		client, err = net.DialTimeout("tcp", listener.Addr().String(), 5*time.Second)
		return err
	}); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errNotOpened, err)
	}
	if server, err = listener.Accept(); err != nil {
		client.Close()
		return nil, nil, fmt.Errorf("%w: %w", errNotOpened, err)
	}
	return client, server, nil
}
