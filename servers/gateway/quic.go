package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/fairlead-net/fairlead/servers/gateway/http3"
	"golang.org/x/sys/unix"
)

// quic serves the connections of HTTP/3. Its requests are served as those of HTTP/2
// are, by the same crews.
type quic struct {
	server *Server
	tls    *tls.Config
	offers atomic.Pointer[map[netip.Addr][]byte] // to those who come by TCP, by where; nil: none
	spoken map[netip.Addr]bool                   // where it was offered

	mu      sync.Mutex
	sockets map[netip.AddrPort]*http3.Socket // the last one of each address, as it was wanted
	warned  bool
}

// errPassed is why a connection does not begin whose name a backend speaks TLS for:
// that it would have to be led there is known of TCP alone.
var errPassed = errors.New("connections with this name are passed through, which QUIC is not")

// errNameless is why none begins that comes by a load balancer which says by TCP for
// whom it asks: by UDP it cannot.
var errNameless = errors.New("the load balancer does not say for whom it asks")

func newQUIC(s *Server) *quic {
	q := &quic{server: s, spoken: map[netip.Addr]bool{}, sockets: map[netip.AddrPort]*http3.Socket{}}
	q.tls = s.newTLS(tls.VersionTLS13, "h3")
	judge := q.tls.GetConfigForClient
	q.tls.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if passes := s.table.Load().Passes; passes != nil && passes(strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))) != nil {
			return nil, errPassed
		}
		if within(s.table.Load().Introduced, http3.AddrOf(hello.Conn.RemoteAddr())) {
			return nil, errNameless
		}
		return judge(hello)
	}
	return q
}

// receiveBuffer is how much the kernel should let wait to be read, in bytes as it
// counts them, so that bursts of uploads are not lost.
const receiveBuffer = 4 << 20

// openDoor listens at an address for QUIC. The port is shared with no other process:
// the kernel would lead packets of one connection to either.
func (q *quic) openDoor(ctx context.Context, l Listener) (*door, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := q.sockets[l.At]; s != nil && s.Listen() == nil { // it was not given up yet
		return q.door(s, l), nil
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if !l.At.Addr().Is6() {
			return nil
		}
		if failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_V6ONLY, 1) }); failed != nil {
			return failed
		}
		return err
	}}
	conn, err := config.ListenPacket(ctx, "udp", l.At.String())
	if err != nil {
		return nil, fmt.Errorf("listen on UDP %s for HTTP/3: %w", l.At, err)
	}
	s := http3.Open(conn.(*net.UDPConn), q.config(l))
	if err := s.Listen(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen on UDP %s for HTTP/3: %w", l.At, err)
	}
	q.sockets[l.At] = s
	if has := s.ReceiveBuffer(); has < receiveBuffer && !q.warned {
		q.warned = true
		q.server.log.Warn("the kernel lets few packets of HTTP/3 wait, so that large uploads are slow",
			"bytes", has, "wanted", receiveBuffer, "remedy", "sysctl -w net.core.rmem_max=7500000 net.core.wmem_max=7500000 on the node, and start the gateway again")
	}
	return q.door(s, l), nil
}

func (q *quic) door(s *http3.Socket, l Listener) *door {
	l.At = netip.AddrPortFrom(l.At.Addr(), s.At().Port())
	return &door{at: l, quic: s}
}

func (q *quic) config(l Listener) http3.Config {
	s := q.server
	settings := &s.settings
	return http3.Config{
		TLS: q.tls, Limits: settings.Limits, Streams: maxStreams,
		Header: settings.Header, Patience: settings.Body, Idle: settings.Idle, Leave: min(leavePause, settings.DrainIdle), Linger: settings.DrainIdle,
		Now: s.watch.clock.now,
		Admit: func() bool {
			if s.clients.Add(1) > int64(settings.Clients) {
				s.clients.Add(-1)
				s.refused.Add(1)
				return false
			}
			return true
		},
		Gone:   func() { s.clients.Add(-1) },
		Hold:   s.hold,
		Accept: func(c *http3.Conn) { s.running.Go(func() { q.serve(c, l) }) },
	}
}

// serve serves a connection until it has ended.
func (q *quic) serve(conn *http3.Conn, l Listener) {
	s := q.server
	core := rand.IntN(len(s.counts))
	s.counts[core].accepted.Add(1)
	s.counts[core].quic.Add(1)
	state := conn.State()
	name, peer := strings.ToLower(state.ServerName), &Peer{Certificates: state.PeerCertificates}
	var of atomic.Pointer[client]
	of.Store(s.newRemote(conn.Remote(), core, l, name, peer))
	conn.Serve(func(stream *http3.Stream) {
		c := of.Load()
		if at := conn.Remote(); at != c.remote { // the client has moved
			c = s.newRemote(at, core, l, name, peer)
			of.Store(c)
		}
		if within(s.table.Load().Introduced, c.remote) {
			s.counts[core].nameless.Add(1)
			stream.OnGone(func() {})
			stream.End() // nobody says for whom the load balancer asks
			return
		}
		s.streams.crews[core].serve(job{stream, c, 3})
	})
}

// newRemote is a client without a socket.
func (s *Server) newRemote(remote netip.Addr, core int, at Listener, name string, peer *Peer) *client {
	c := &client{server: s, core: core, counts: &s.counts[core], remote: remote, at: at, name: name, peer: peer, clock: &s.watch.clock}
	c.introduce()
	return c
}

// waiting counts the connections that have no request under way.
func (q *quic) waiting() (n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.sockets {
		n += s.Waiting()
	}
	return n
}

// cut ends all connections.
func (q *quic) cut() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.sockets {
		s.Cut()
	}
}

// offerLife is for how many seconds clients take an offer for granted. Those who have
// not heard that HTTP/3 is switched off may wait so long for nobody.
const offerLife = 3600

// offer has answers by TCP and TLS say where HTTP/3 is spoken: at the addresses that
// are open (RFC 7838); where it was, that it is not. Without any, another process
// follows, and nothing is said. The calls follow one another.
func (q *quic) offer(open []Listener) {
	offers := map[netip.Addr][]byte{}
	for _, l := range open {
		if l.HTTP3 {
			offers[l.At.Addr()] = appendField(nil, "Alt-Svc", `h3=":`+strconv.Itoa(int(l.port()))+`"; ma=`+strconv.Itoa(offerLife))
			q.spoken[l.At.Addr()] = true
		}
	}
	for addr := range q.spoken {
		if offers[addr] == nil {
			offers[addr] = appendField(nil, "Alt-Svc", "clear")
		}
	}
	if len(offers) == 0 || len(open) == 0 {
		q.offers.Store(nil)
		return
	}
	q.offers.Store(&offers)
}

// offer is the field that says where the client may ask by HTTP/3, or nothing.
func (c *client) offer() []byte {
	offers := c.server.quic.offers.Load()
	if offers == nil || !c.at.Secure || c.at.HTTP3 || c.led {
		return nil
	}
	return (*offers)[c.at.At.Addr()]
}
