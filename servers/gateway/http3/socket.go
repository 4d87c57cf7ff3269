package http3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// Config is what a Socket goes by. The functions are called from many goroutines, and
// must not block, nor call the Socket.
type Config struct {
	TLS     *tls.Config
	Limits  http1.Limits  // of the text of requests
	Streams int           // of a connection at once
	Header  time.Duration // for all of a head to come
	// Patience is how long a stream waits for a piece of its body, or for room to send
	// one.
	Patience time.Duration
	Idle     time.Duration // for a client to send another request
	Leave    time.Duration // for a client to hear that it shall ask elsewhere
	Linger   time.Duration // for what was sent to arrive, before the connection ends
	// Now is the time in nanoseconds; it need not be precise.
	Now func() int64
	// Admit tells whether one more connection may begin. Of those that may, Gone is
	// called once each has ended.
	Admit func() bool
	Gone  func()
	// Hold takes note of bytes more, or fewer, that heads have which are not whole; false:
	// that is too much.
	Hold func(bytes int) bool
	// Accept has a goroutine serve a connection.
	Accept func(*Conn)

	shown func(bool) // of tests: whether an address was shown to be its own
}

// Windows, in bytes, and for how long a client may be silent that has requests under
// way: it is asked whether it is there.
const (
	firstWindow      = 64 << 10
	streamWindow     = 256 << 10
	connectionWindow = 1 << 20
	silence          = 30 * time.Second
)

// maxHandshakes is how many connections may begin at once until clients have to show
// that their addresses are their own (RFC 9000, section 8.1.2).
const maxHandshakes = 64

// maxUni is how many streams of one direction a client may have: three that matter,
// and some that nobody knows (RFC 9114, section 6.2.3).
const maxUni = 8

// Socket is a UDP port where clients come.
type Socket struct {
	config     Config
	udp        *net.UDPConn
	transport  *quic.Transport
	handshakes atomic.Int64

	mu        sync.Mutex
	listener  *quic.Listener // nil: nobody else comes
	accepting sync.WaitGroup
	conns     map[*Conn]bool
	closed    bool
}

// Open makes a Socket of a UDP socket, which is its own from then on. Listen is to
// follow.
func Open(udp *net.UDPConn, config Config) *Socket {
	s := &Socket{config: config, udp: udp, conns: map[*Conn]bool{}}
	s.transport = &quic.Transport{
		Conn:                udp,
		VerifySourceAddress: func(net.Addr) bool { return s.handshakes.Load() >= maxHandshakes },
		ConnContext:         s.admit,
	}
	return s
}

// At is where it listens.
func (s *Socket) At() netip.AddrPort { return s.udp.LocalAddr().(*net.UDPAddr).AddrPort() }

// ReceiveBuffer is how many bytes may wait to be read by this process, as the kernel
// counts them; 0: that cannot be told.
func (s *Socket) ReceiveBuffer() (bytes int) {
	raw, err := s.udp.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		bytes, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
	})
	return bytes
}

// errClosed is what Listen returns when the port is no longer its own.
var errClosed = errors.New("the socket is closed")

// Listen takes connections, until Stop; then it may be called again, for as long as
// the last ones have not ended.
func (s *Socket) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if s.listener != nil {
		return nil
	}
	listener, err := s.transport.Listen(s.config.TLS, &quic.Config{
		HandshakeIdleTimeout: s.config.Header, MaxIdleTimeout: silence, KeepAlivePeriod: silence / 2,
		InitialStreamReceiveWindow: firstWindow, MaxStreamReceiveWindow: streamWindow,
		InitialConnectionReceiveWindow: streamWindow, MaxConnectionReceiveWindow: connectionWindow,
		MaxIncomingStreams: int64(s.config.Streams), MaxIncomingUniStreams: maxUni,
	})
	if err != nil {
		return fmt.Errorf("listen for QUIC: %w", err)
	}
	s.listener = listener
	s.accepting.Go(func() { s.accept(listener) })
	return nil
}

// visit is a connection from its first packet on.
type visit struct{ shaking atomic.Bool }

type visitKey struct{}

// admit decides whether a connection may begin.
func (s *Socket) admit(ctx context.Context, who *quic.ClientInfo) (context.Context, error) {
	if s.config.shown != nil {
		s.config.shown(who.AddrVerified)
	}
	if !s.config.Admit() {
		return nil, errors.New("there are too many connections")
	}
	v := &visit{}
	v.shaking.Store(true)
	s.handshakes.Add(1)
	context.AfterFunc(ctx, func() {
		s.shaken(v)
		s.config.Gone()
	})
	return context.WithValue(ctx, visitKey{}, v), nil
}

// shaken takes note that a handshake has ended, however it did.
func (s *Socket) shaken(v *visit) {
	if v.shaking.CompareAndSwap(true, false) {
		s.handshakes.Add(-1)
	}
}

func (s *Socket) accept(listener *quic.Listener) {
	for {
		q, err := listener.Accept(context.Background())
		if err != nil {
			return
		}
		if v, ok := q.Context().Value(visitKey{}).(*visit); ok {
			s.shaken(v)
		}
		c := newConn(s, q)
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		s.config.Accept(c)
	}
}

// Stop takes no more connections, and tells those that there are to ask elsewhere. The
// port is given up once the last one has ended.
func (s *Socket) Stop() {
	s.mu.Lock()
	listener := s.listener
	if s.listener = nil; listener == nil {
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	_ = listener.Close()
	s.accepting.Wait()
	all := s.all()
	for _, c := range all {
		c.drain()
	}
	time.AfterFunc(s.config.Leave, func() {
		for _, c := range all {
			c.leave()
		}
	})
	s.settle()
}

// Cut ends all connections.
func (s *Socket) Cut() {
	for _, c := range s.all() {
		c.close(codeNoError, "")
	}
}

// Waiting counts the connections that have no request under way.
func (s *Socket) Waiting() (n int64) {
	for _, c := range s.all() {
		if c.waiting() {
			n++
		}
	}
	return n
}

func (s *Socket) all() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.conns))
}

// forget takes note that a connection has ended.
func (s *Socket) forget(c *Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.settle()
}

// settle gives the port up if nobody needs it.
func (s *Socket) settle() {
	s.mu.Lock()
	unused := s.listener == nil && len(s.conns) == 0 && !s.closed
	s.closed = s.closed || unused
	s.mu.Unlock()
	if unused {
		_ = s.transport.Close()
		_ = s.udp.Close()
	}
}
