package gateway

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wire is what messages are read from and written to: a socket, or TLS on it.
type wire interface {
	io.ReadWriteCloser
}

// sock is a TCP connection. It reads and writes as net.TCPConn does, and waits in
// Go's poller; besides, it waits without a buffer, looks before it waits, and has
// its deadlines kept by the server's watch instead of a timer for each message.
// One goroutine may read while another one writes.
type sock struct {
	*net.TCPConn
	raw     syscall.RawConn
	clock   *clock
	pipes   *pipes
	in, out half
	lease   *buffer     // that the next read has filled, if it was to find its own
	lazy    int         // the next read finds its own buffer, of so many bytes; 0: it has one
	waiting atomic.Bool // for the first byte of a request
	index   int         // among those that are watched
	// The connection whose answer is awaited for who is at the other end of this one.
	// Who takes it out, of its user and the watch, decides what becomes of it.
	awaits atomic.Pointer[sock]
	listen func(descriptor uintptr) // looks whether it is silent
	silent bool
	peeked [1]byte
	moved  *atomic.Int64 // if not nil, when bytes were spliced
	closed func()        // if not nil, hears of Close
	early  []byte        // what was read already, and is to be read again
	far    net.Conn      // instead of TCP: one that exists in memory only
}

// half is one direction. What is not atomic belongs to the goroutine that uses it.
type half struct {
	buf      []byte // of the operation that is under way
	n        int
	err      error
	patience atomic.Int64                  // for each wait, in nanoseconds; 0: for ever
	by       int64                         // when waits end at last, by the clock; 0: never
	until    atomic.Int64                  // when the wait ends that is under way; 0: never
	try      func(descriptor uintptr) bool // carries it out; false: it would block
}

// newSock takes a connection over.
func newSock(conn *net.TCPConn, w *watch) (*sock, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &sock{TCPConn: conn, raw: raw, clock: &w.clock, pipes: &w.pipes}
	s.in.try, s.out.try, s.listen = s.tryRead, s.tryWrite, s.tryListen // once: they cost memory
	return s, nil
}

// waits takes note of a wait that begins.
func (h *half) waits(c *clock) {
	for {
		until, patience := h.by, h.patience.Load()
		if patience > 0 {
			if at := c.now() + patience; until == 0 || at < until {
				until = at
			}
		}
		h.until.Store(until)
		if h.patience.Load() == patience { // else another goroutine wants the wait to be bounded
			return
		}
	}
}

// bear sets how long each wait may last.
func (h *half) bear(patience time.Duration) { h.patience.Store(int64(patience)) }

func (h *half) waited() {
	if h.until.Load() != 0 {
		h.until.Store(0)
	}
}

// receive reads what is there. The descriptor never blocks: there is no need to
// tell the scheduler.
func receive(fd uintptr, into []byte, flags int) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&into[0])), uintptr(len(into)), uintptr(flags), 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func (s *sock) tryRead(fd uintptr) bool {
	h := &s.in
	if s.lazy > 0 && s.lease == nil {
		s.lease = bufferOf(s.lazy)
		h.buf = s.lease.b[:s.lazy]
	}
	n, errno := receive(fd, h.buf, 0)
	if errno == unix.EAGAIN {
		if s.lazy > 0 {
			s.lease.free()
			s.lease, h.buf = nil, nil
		}
		h.waits(s.clock)
		return false
	}
	h.n, h.err = n, nil
	switch {
	case errno != 0:
		h.n, h.err = 0, os.NewSyscallError("recvfrom", errno)
	case n == 0:
		h.err = io.EOF
	}
	return true
}

// Read reads what is there, or waits.
func (s *sock) Read(into []byte) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	if len(s.early) > 0 {
		n := copy(into, s.early)
		s.early = s.early[n:]
		return n, nil
	}
	if s.far != nil {
		s.in.waits(s.clock)
		n, err := s.far.Read(into)
		s.in.waited()
		return n, err
	}
	s.in.buf = into
	err := s.raw.Read(s.in.try)
	s.in.waited()
	s.in.buf = nil
	if err != nil {
		return 0, err
	}
	return s.in.n, s.in.err
}

// first waits for bytes without a buffer, and returns them in one, so many at most.
func (s *sock) first(most int) (*buffer, error) {
	s.lazy = most
	n, err := s.wait()
	s.lazy = 0
	b := s.lease
	s.lease = nil
	if err != nil {
		b.free()
		return nil, err
	}
	b.to = n
	return b, nil
}

func (s *sock) wait() (int, error) {
	err := s.raw.Read(s.in.try)
	s.in.waited()
	s.in.buf = nil
	if err != nil {
		return 0, err
	}
	return s.in.n, s.in.err
}

func (s *sock) tryWrite(fd uintptr) bool {
	h := &s.out
	for len(h.buf) > 0 {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&h.buf[0])), uintptr(len(h.buf)), unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			h.buf = h.buf[n:]
			h.n += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			h.waits(s.clock)
			return false
		default:
			h.err = os.NewSyscallError("sendto", errno)
			return true
		}
	}
	return true
}

// Write writes all of it. If it fails, it tells how much was written.
func (s *sock) Write(from []byte) (int, error) {
	h := &s.out
	if s.far != nil {
		h.waits(s.clock)
		n, err := s.far.Write(from)
		h.waited()
		return n, err
	}
	h.buf, h.n, h.err = from, 0, nil
	err := s.raw.Write(h.try)
	h.waited()
	h.buf = nil
	if err == nil {
		err = h.err
	}
	return h.n, err
}

// Close closes the connection.
func (s *sock) Close() error {
	if s.closed != nil {
		s.closed()
	}
	if s.far != nil {
		return s.far.Close()
	}
	return s.TCPConn.Close()
}

// SetReadDeadline ends waits for bytes.
func (s *sock) SetReadDeadline(t time.Time) error {
	if s.far != nil {
		return s.far.SetReadDeadline(t)
	}
	return s.TCPConn.SetReadDeadline(t)
}

// SetWriteDeadline ends waits for room.
func (s *sock) SetWriteDeadline(t time.Time) error {
	if s.far != nil {
		return s.far.SetWriteDeadline(t)
	}
	return s.TCPConn.SetWriteDeadline(t)
}

// SetDeadline ends both.
func (s *sock) SetDeadline(t time.Time) error {
	if s.far != nil {
		return s.far.SetDeadline(t)
	}
	return s.TCPConn.SetDeadline(t)
}

// quiet tells whether a connection that waits for nobody is open still, and no
// byte came that nobody has asked for.
func (s *sock) quiet() bool {
	s.silent = false
	err := s.raw.Control(s.listen)
	return s.silent && err == nil
}

func (s *sock) tryListen(fd uintptr) {
	_, errno := receive(fd, s.peeked[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	s.silent = errno == unix.EAGAIN
}

// lastRecord is how long a record of TLS may be that has an alert, as that of who closes
// a connection, in bytes; and the types of such records. No request is as short, and
// none without TLS begins so.
const (
	lastRecord             = 31
	typeAlert, typeCovered = 21, 23 // that of TLS 1.3 looks like any other
)

// left tells whether the other end sends no more. Who speaks TLS says so, and nobody
// reads that while an answer is awaited.
func (s *sock) left() bool {
	var b [lastRecord + 1]byte
	left := false
	_ = s.raw.Control(func(fd uintptr) {
		n, errno := receive(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case n <= 0:
			left = errno != unix.EAGAIN
		case n <= lastRecord && (b[0] == typeAlert || b[0] == typeCovered):
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			_, err := unix.Poll(poll, 0)
			left = err == nil && poll[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
		}
	})
	return left
}

// has tells whether there are bytes to be read.
func (s *sock) has() bool {
	var b [1]byte
	n := 0
	_ = s.raw.Control(func(fd uintptr) {
		if got, errno := receive(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT); errno == 0 {
			n = got
		}
	})
	return n > 0
}

// more reads what is there still, without waiting for it: none may be.
func (s *sock) more(into []byte) (n int) {
	_ = s.raw.Control(func(fd uintptr) {
		if got, errno := receive(fd, into, unix.MSG_DONTWAIT); errno == 0 {
			n = got
		}
	})
	return n
}

// past is a deadline that ends what waits now, and all that comes.
func past() time.Time { return time.Unix(1, 0) }
