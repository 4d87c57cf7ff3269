package main

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The load: sockets, as of so many clients, and the queries of each that are under
// way at one time.
const (
	clients  = 8
	window   = 16
	patience = time.Second
)

// outcome is what came of a load.
type outcome struct {
	answered, lost int
	took           time.Duration
	latencies      []time.Duration
}

func (o *outcome) percentile(p int) time.Duration {
	if len(o.latencies) == 0 {
		return 0
	}
	slices.Sort(o.latencies)
	return o.latencies[min(len(o.latencies)*p/100, len(o.latencies)-1)]
}

// shoot asks for a while, as fast as answers come, or at a rate.
func shoot(at netip.AddrPort, queries [][]byte, during time.Duration, rate int) (outcome, error) {
	var mu sync.Mutex
	var all outcome
	var failed error
	var running sync.WaitGroup
	began := time.Now()
	for n := range clients {
		running.Go(func() {
			c, err := newClient(netip.Addr{}, at, queries, n*len(queries)/clients)
			if err == nil {
				defer c.close()
				if rate > 0 {
					err = c.steady(during, time.Duration(clients)*time.Second/time.Duration(rate))
				} else {
					err = c.fast(during)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			all.answered += c.answered
			all.lost += c.lost
			all.latencies = append(all.latencies, c.latencies...)
		})
	}
	running.Wait()
	all.took = time.Since(began)
	return all, failed
}

type datagram struct {
	header unix.Msghdr
	size   uint32
	_      uint32
}

// client is one socket. A query's number is its place in the window.
type client struct {
	outcome
	fd       int
	queries  [][]byte
	next     int
	sent     [window]time.Time // zero: there is room
	out, in  [window]datagram
	iovOut   [window]unix.Iovec
	iovIn    [window]unix.Iovec
	messages [window][512]byte
	answers  [window][1500]byte
}

// newClient is one that asks from an address, if that is valid, beginning with one
// of the queries.
func newClient(source netip.Addr, at netip.AddrPort, queries [][]byte, from int) (*client, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	if source.IsValid() {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: source.As4()}); err != nil {
			return nil, fmt.Errorf("bind to %s: %w", source, err)
		}
	}
	timeout := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, fmt.Errorf("set a timeout: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c := &client{fd: fd, queries: queries, next: from}
	for i := range window {
		c.out[i].header = unix.Msghdr{Iov: &c.iovOut[i], Iovlen: 1}
		c.iovIn[i] = unix.Iovec{Base: &c.answers[i][0], Len: uint64(len(c.answers[i]))}
		c.in[i].header = unix.Msghdr{Iov: &c.iovIn[i], Iovlen: 1}
	}
	return c, nil
}

func (c *client) close() { _ = unix.Close(c.fd) }

// load puts the next query into a place.
func (c *client) load(place int) unix.Iovec {
	query := c.queries[c.next%len(c.queries)]
	c.next++
	copy(c.messages[place][:], query)
	c.messages[place][1] = byte(place)
	return unix.Iovec{Base: &c.messages[place][0], Len: uint64(len(query))}
}

// fast keeps the window full.
func (c *client) fast(during time.Duration) error {
	for end := time.Now().Add(during); time.Now().Before(end); {
		n, now := 0, time.Now()
		for place := range c.sent {
			if c.sent[place].IsZero() {
				c.iovOut[n] = c.load(place)
				c.sent[place] = now
				n++
			}
		}
		if err := c.send(n); err != nil {
			return err
		}
		if err := c.receive(unix.MSG_WAITFORONE); err != nil {
			return err
		}
	}
	return nil
}

// steady asks one query at a time, at even intervals. What takes longer than one
// delays the next, so that latencies are of queries that are alone in the socket.
func (c *client) steady(during, interval time.Duration) error {
	began := time.Now()
	for n := 0; time.Since(began) < during; n++ {
		time.Sleep(time.Until(began.Add(time.Duration(n) * interval)))
		c.iovOut[0] = c.load(0)
		c.sent[0] = time.Now()
		if err := c.send(1); err != nil {
			return err
		}
		if err := c.receive(unix.MSG_WAITFORONE); err != nil {
			return err
		}
		if time.Since(began)/interval > time.Duration(n) {
			n = int(time.Since(began) / interval)
		}
	}
	return nil
}

func (c *client) send(n int) error {
	for from := 0; from < n; {
		sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&c.out[from])), uintptr(n-from), 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("send: %w", errno)
		}
		from += int(sent)
	}
	return nil
}

// receive takes at least one answer, or gives up what is under way.
func (c *client) receive(flags uintptr) error {
	n, err := receiveMessages(c.fd, c.in[:], flags)
	switch err {
	case nil:
	case unix.EINTR:
		return nil
	case unix.EAGAIN:
		for place := range c.sent {
			if !c.sent[place].IsZero() {
				c.lost++
				c.sent[place] = time.Time{}
			}
		}
		return nil
	default:
		return fmt.Errorf("receive: %w", err)
	}
	now := time.Now()
	for i := range n {
		place := int(c.answers[i][1])
		if place >= window || c.sent[place].IsZero() {
			continue
		}
		c.answered++
		c.latencies = append(c.latencies, now.Sub(c.sent[place]))
		c.sent[place] = time.Time{}
	}
	return nil
}

// receiveMessages is recvmmsg(2). Its errors are of type unix.Errno.
func receiveMessages(fd int, into []datagram, flags uintptr) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&into[0])), uintptr(len(into)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
