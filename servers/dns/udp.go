package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of a loop's buffers.
const (
	batch = 16 // messages that are received and sent by one call
	// A longer query is not answered. The longest that there is has a name, EDNS
	// and a cookie.
	maxQuery = 1280
	// A record is written before it is known to fit.
	replyRoom = ednsSize + 1024
	// socketBuffer is of the kernel, in bytes: some thousand queries, while this
	// process does not get a CPU.
	socketBuffer = 4 << 20
)

// socket is a UDP socket, for the runtime's poller.
type socket struct {
	file *os.File
	raw  syscall.RawConn
}

// listenUDP opens one of the sockets of an address.
func listenUDP(at netip.AddrPort) (*socket, error) {
	family := unix.AF_INET
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(at.Port())}
	if at.Addr().Is6() {
		family = unix.AF_INET6
		to = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	} else {
		to.(*unix.SockaddrInet4).Addr = at.Addr().As4()
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a UDP socket: %w", err)
	}
	err = errors.Join(
		bindEarly(fd, at.Addr()),
		// As much of it as net.core.rmem_max allows.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer),
	)
	if err == nil {
		err = unix.Bind(fd, to)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen on UDP %s: %w", at, err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "udp "+at.String())}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("watch the UDP socket: %w", err)
	}
	return s, nil
}

// datagram is a struct mmsghdr.
type datagram struct {
	header unix.Msghdr
	size   uint32
}

// loop answers what comes in at one socket, in its own goroutine. What it needs
// for a batch it has from the beginning.
type loop struct {
	server *Server
	socket *socket
	counts *counts
	answer answering
	q      query
	r      reply

	in, out     [batch]datagram
	read, write [batch]unix.Iovec
	from        [batch]unix.RawSockaddrInet6 // or RawSockaddrInet4, which is shorter
	queries     [batch][maxQuery]byte
	replies     [batch][replyRoom]byte
}

func newLoop(s *Server, at *socket) *loop {
	l := &loop{server: s, socket: at}
	l.counts = s.tallied()
	l.answer = answering{counts: l.counts, q: &l.q, r: &l.r, others: &s.others, outside: memory{s.forward}, gate: s.gate, random: rand.Uint32() | 1}
	for i := range l.in {
		l.read[i] = unix.Iovec{Base: &l.queries[i][0], Len: maxQuery}
		l.in[i].header = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&l.from[i])), Iov: &l.read[i], Iovlen: 1}
		l.out[i].header = unix.Msghdr{Iov: &l.write[i], Iovlen: 1}
	}
	return l
}

// run serves until the socket is closed or, at a deadline, has nothing left. What takes time is done in goroutines
// that are counted in running.
func (l *loop) run(ctx context.Context, running *sync.WaitGroup) {
	for {
		n, err := l.receive()
		if errors.Is(err, os.ErrDeadlineExceeded) { // what is there already is answered
			if n, err = l.rest(); n <= 0 {
				return
			}
		}
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
				return
			}
			l.server.log.Error("reading queries, trying again", "error", err)
			select { // of what, nobody knows: it must not be all that this process does
			case <-ctx.Done():
			case <-time.After(retryPause):
			}
			continue
		}
		began := time.Now()
		served, ready := l.server.served.Load(), 0
		var answered [classes]uint64
		for i := range n {
			from := address(&l.from[i])
			reply := l.one(served, i, from)
			if reply == nil && l.answer.waits {
				reply = l.later(ctx, running, served, i, asker{addr: from}, began)
			}
			if reply == nil {
				continue
			}
			l.write[ready] = unix.Iovec{Base: &reply[0], Len: uint64(len(reply))}
			l.out[ready].header.Name, l.out[ready].header.Namelen = l.in[i].header.Name, l.in[i].header.Namelen
			ready++
			answered[l.answer.class]++
			served.Log.take(&l.answer, began, nil)
			l.server.watched.see(&l.answer, began)
		}
		l.send(l.out[:ready])
		took := time.Since(began)
		for of, n := range answered {
			if n > 0 {
				l.counts.took(class(of), n, took)
			}
		}
	}
}

// one answers the message at a place, and returns nil if there is no answer now.
func (l *loop) one(served *Served, i int, from netip.Addr) []byte {
	l.answer.waits = false
	switch {
	case !served.allows(from):
		l.counts.strangers.Add(1)
		return nil
	case l.in[i].header.Flags&unix.MSG_TRUNC != 0:
		l.counts.ignored.Add(1)
		return nil
	}
	return l.answer.message(served, l.queries[i][:l.in[i].size], asker{addr: from}, l.replies[i][:0])
}

// later finds the answer to the message at a place in a goroutine of its own, or,
// if the client has too many already, returns that it is turned down.
func (l *loop) later(ctx context.Context, running *sync.WaitGroup, served *Served, i int, from asker, now time.Time) []byte {
	message := l.queries[i][:l.in[i].size]
	if !l.server.pending.enter(from.addr, now) {
		return l.answer.turnDown(served, message, from, l.replies[i][:0])
	}
	to, length := l.from[i], l.in[i].header.Namelen
	l.server.slow(ctx, running, append([]byte(nil), message...), from, func(reply []byte) {
		l.socket.send(reply, &to, length)
	})
	return nil
}

// rest returns how many messages there are, and waits for none.
func (l *loop) rest() (n int, err error) {
	for i := range l.in {
		l.in[i].header.Namelen = unix.SizeofSockaddrInet6
	}
	var errno unix.Errno
	err = l.socket.raw.Control(func(fd uintptr) { n, errno = exchange(unix.SYS_RECVMMSG, fd, l.in[:]) })
	if errno != 0 {
		n = 0
	}
	return n, err
}

// receive waits for messages, and returns how many there are.
func (l *loop) receive() (n int, err error) {
	for i := range l.in {
		l.in[i].header.Namelen = unix.SizeofSockaddrInet6
	}
	var errno unix.Errno
	err = l.socket.raw.Read(func(fd uintptr) bool {
		n, errno = exchange(unix.SYS_RECVMMSG, fd, l.in[:])
		return errno != unix.EAGAIN && errno != unix.EINTR
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return n, err
}

// send sends replies. One that the kernel refuses is lost, as datagrams are; so
// are all when there is no room for more: who waits for them asks again.
func (l *loop) send(replies []datagram) {
	for len(replies) > 0 {
		var n int
		var errno unix.Errno
		if err := l.socket.raw.Control(func(fd uintptr) { n, errno = exchange(unix.SYS_SENDMMSG, fd, replies) }); err != nil || errno == unix.EAGAIN {
			l.counts.lost.Add(uint64(len(replies)))
			return
		}
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			n = 1
			l.counts.lost.Add(1)
		}
		replies = replies[n:]
	}
}

// send sends one reply.
func (s *socket) send(reply []byte, to *unix.RawSockaddrInet6, length uint32) {
	iov := unix.Iovec{Base: &reply[0], Len: uint64(len(reply))}
	one := []datagram{{header: unix.Msghdr{Name: (*byte)(unsafe.Pointer(to)), Namelen: length, Iov: &iov, Iovlen: 1}}}
	_ = s.raw.Control(func(fd uintptr) { exchange(unix.SYS_SENDMMSG, fd, one) })
}

// exchange is sendmmsg or recvmmsg on a socket that does not block, which so need
// not be told to Go's scheduler.
func exchange(call, fd uintptr, messages []datagram) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// address is where a message came from.
func address(from *unix.RawSockaddrInet6) netip.Addr {
	if from.Family == unix.AF_INET {
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(from)).Addr)
	}
	return netip.AddrFrom16(from.Addr)
}
