package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// upstream is a connection to an endpoint. It belongs to one request, or to a pool.
type upstream struct {
	*sock
	tls      *tls.Conn // on it; nil: none
	endpoint *endpoint
	core     int
	in       *buffer // nil while it is in a pool
	response http1.Response
	reused   bool
	since    int64 // when it came into the pool
}

// maxIdle bounds the connections that one core keeps to one endpoint.
const maxIdle = 64

// pooled returns a connection that waits for a request, or nil. One that was closed
// meanwhile is not used, nor one on which something came that nobody has asked for:
// it would be taken for the answer to the next request.
func (s *Server) pooled(p *endpoint, core int) *upstream {
	pool := &p.pools[core]
	for {
		pool.mu.Lock()
		n := len(pool.idle)
		if n == 0 {
			pool.mu.Unlock()
			return nil
		}
		u := pool.idle[n-1]
		pool.idle[n-1] = nil
		pool.idle = pool.idle[:n-1]
		pool.mu.Unlock()
		u.sock.in.until.Store(0)
		if !u.quiet() {
			s.end(u)
			continue
		}
		u.reused = true
		return u
	}
}

// dial makes a connection.
func (s *Server) dial(p *endpoint, core int, timeout time.Duration) (*upstream, error) {
	if p.http2 {
		return s.call(p, core, timeout)
	}
	ctx, cancel := s.context, context.CancelFunc(func() {})
	if p.name != "" { // finding its address takes time, too
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	conn, err := p.connect(ctx, timeout)
	if err != nil {
		return nil, err
	}
	sock, err := newSock(conn.(*net.TCPConn), &s.watch)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	s.watch.add(sock)
	u := &upstream{sock: sock, endpoint: p, core: core}
	if p.tls != nil {
		if err := u.secure(p.tls, timeout); err != nil {
			s.end(u)
			return nil, err
		}
	}
	return u, nil
}

// connect makes a connection of TCP.
func (p *endpoint) connect(ctx context.Context, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout, KeepAlive: -1}
	if p.name != "" {
		dialer.ControlContext = p.refuses
	}
	return dialer.DialContext(ctx, "tcp", p.authority())
}

var errHere = errors.New("the name leads to this machine or its link, where nothing is for others")

// Elsewhere refuses addresses that nothing which Ingresses and Services name must lead
// to: who may write one may not, by that, reach what listens for this machine alone.
// It is for net.Dialer's ControlContext.
func Elsewhere(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if a := at.Addr().Unmap(); a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast() {
		return errHere
	}
	return nil
}

// keep puts a connection back that has nothing under way.
func (s *Server) keep(u *upstream) {
	u.in.free()
	u.in = nil
	if u.sock.in.until.Swap(0) != 0 { // an upload that ended after its answer has set it
		_ = u.sock.SetReadDeadline(time.Time{})
	}
	u.since = s.watch.clock.now()
	pool := &u.endpoint.pools[u.core]
	pool.mu.Lock()
	if len(pool.idle) >= maxIdle || s.draining.Load() || u.endpoint.forgotten.Load() {
		pool.mu.Unlock()
		s.end(u)
		return
	}
	pool.idle = append(pool.idle, u)
	pool.mu.Unlock()
}

// end closes a connection.
func (s *Server) end(u *upstream) {
	s.watch.remove(u.sock)
	_ = u.Close()
	u.in.free()
	u.in = nil
}

// sweep closes the connections of pools that have waited too long, or that the
// endpoint has closed, until the context ends.
func (s *Server) sweep(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			s.sweepOnce(0)
			return
		case <-ticker.C:
			s.sweepOnce(s.settings.UpstreamIdle)
			s.streams.sweep()
		}
	}
}

func (s *Server) sweepOnce(idle time.Duration) {
	s.endpoints.mu.Lock()
	defer s.endpoints.mu.Unlock()
	now := s.watch.clock.now()
	for at, p := range s.endpoints.known {
		kept := 0
		for core := range p.pools {
			gone, left := p.pools[core].expire(now, idle)
			kept += left
			for _, u := range gone {
				s.end(u)
			}
		}
		kept += p.bridge.expire(now, int64(idle))
		if kept == 0 && p.active.Load() == 0 && now-p.used.Load() > int64(s.settings.Forget) {
			p.forgotten.Store(true)
			delete(s.endpoints.known, at)
		}
	}
}

// expire takes out the connections that have waited too long, or that the endpoint
// has closed, and tells how many are left.
func (p *pool) expire(now int64, idle time.Duration) (gone []*upstream, left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.idle[:0]
	for _, u := range p.idle {
		if idle == 0 || now-u.since > int64(idle) || !u.quiet() {
			gone = append(gone, u)
		} else {
			kept = append(kept, u)
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	return gone, len(kept)
}

// head reads the head of the answer.
func (u *upstream) head(toHEAD bool, limits *http1.Limits) error {
	u.response.Reset()
	if u.in == nil && u.plain() {
		var err error
		if u.in, err = u.sock.first(bufferSize); err != nil {
			return err
		}
	}
	if u.in == nil {
		u.in = newBuffer()
	}
	for {
		if len(u.in.bytes()) > 0 {
			done, refused := u.response.Parse(u.in.bytes(), toHEAD, limits)
			if refused != nil {
				return refused
			}
			if done {
				u.in.take(u.response.Size())
				return nil
			}
		}
		n, err := u.Read(u.in.room())
		u.in.to += n
		if err != nil {
			return err
		}
	}
}
