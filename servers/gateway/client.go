package gateway

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// client is a connection of one.
type client struct {
	server  *Server
	core    int
	counts  *counts
	wire    wire
	sock    *sock   // nil: it is one of the streams of a connection
	stream  *stream // nil: it is a connection
	of      *client // whose stream it is
	one     [1]byte // of a request of TLS, the first
	remote  netip.Addr
	at      Listener
	name    string // of TLS
	peer    *Peer  // likewise
	led     bool   // by a load balancer that said for whom it asks
	in      *buffer
	request http1.Request
	ask     Request
	clock   *clock

	held      int    // bytes of a head that is not whole, as Server.heads has them
	forwarded []byte // the fields that tell endpoints of the client

	// Of the table that was used last. All of it would be kept, long after it was
	// replaced, by who is silent or has a WebSocket.
	proxies  []netip.Prefix // Table.Trusted
	trusted  bool           // the client is one of them
	compress *Compression

	// Of the request that is under way.
	began   bool // some of the answer is written
	linger  bool // some of the request is not read, and will not be
	tried   []*endpoint
	upload  upload
	attempt attempt
	record  record
}

func newClient(s *Server, sock *sock, core int, at Listener) *client {
	remote := sock.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
	c := &client{server: s, core: core, counts: &s.counts[core], wire: sock, sock: sock, remote: remote, at: at, clock: &s.watch.clock}
	c.introduce()
	sock.out.bear(s.settings.Body)
	return c
}

// plain tells whether the client's bytes are those of its socket.
func (c *client) plain() bool { return c.sock != nil && c.wire == wire(c.sock) }

var errDeadline = os.ErrDeadlineExceeded

// run serves until the client, or the server, has had enough.
func (c *client) run() {
	if !c.introduced() || c.at.Secure && !c.handshake() {
		return
	}
	for c.next() && c.exchange() {
	}
	c.goodbye()
	if c.linger {
		c.lingers()
	}
	c.in.free()
}

// next reads the head of a request.
func (c *client) next() bool {
	c.request.Reset()
	c.began, c.linger = false, false
	if c.in != nil && len(c.in.bytes()) == 0 {
		c.in.free()
		c.in = nil
	}
	if c.in == nil && !c.first() {
		return false
	}
	c.begins()
	defer func() {
		c.holds(0)
		c.sock.in.by = 0
		c.sock.in.bear(c.server.settings.Body)
	}()
	for {
		done, refused := c.request.Parse(c.in.bytes(), &c.server.settings.Limits)
		switch {
		case refused != nil:
			c.refuse(refused.Status, refused.Reason)
			return false
		case done:
			return true
		}
		if c.sock.in.by == 0 {
			c.sock.in.by = c.clock.now() + int64(c.server.settings.Header)
		}
		room := c.waits()
		if room == nil {
			c.refuse(http.StatusServiceUnavailable, "too many clients have sent parts of a head, and no end of it")
			c.linger = false // which would need the memory that there is not
			return false
		}
		n, err := c.wire.Read(room)
		c.in.to += n
		if err != nil {
			if errors.Is(err, errDeadline) {
				c.refuse(http.StatusRequestTimeout, "the head of the request did not come in time")
			}
			return false
		}
	}
}

// first waits for the first bytes of a request, without a buffer if it can.
func (c *client) first() bool {
	s := c.sock
	s.in.bear(c.server.settings.Idle)
	s.waiting.Store(true)
	defer s.waiting.Store(false)
	if !c.plain() {
		n, err := c.wire.Read(c.one[:])
		if err != nil || n == 0 {
			return false
		}
		c.in = bufferOf(headSize)
		c.in.to = copy(c.in.b, c.one[:])
		return true
	}
	b, err := s.first(headSize)
	if errors.Is(err, errDeadline) && s.has() { // it came while the wait was ended
		_ = s.SetReadDeadline(time.Time{})
		b, err = s.first(headSize)
	}
	c.in = b
	if err == nil && b.to == len(b.b) { // there is more, such as a body
		c.in = newBuffer()
		c.in.to = copy(c.in.b, b.bytes())
		c.in.to += s.more(c.in.b[c.in.to:])
		b.free()
	}
	return err == nil
}

// refuse answers what is no request, or one of which not all is read.
func (c *client) refuse(status int, reason string) {
	c.linger = true
	c.answer(&Answer{Status: status, Body: page(status, reason)}, false)
}

// stopReading ends a read of the body that is under way, and all that would come.
func (c *client) stopReading() {
	if c.stream != nil {
		_ = c.stream.Close()
		return
	}
	_ = c.sock.SetReadDeadline(past())
}

// cutOff ends whatever waits for the client.
func (c *client) cutOff() {
	if c.stream != nil {
		c.stream.Abort()
		return
	}
	_ = c.sock.SetDeadline(past())
}

// abort lets the client know that the answer is not all of it.
func (c *client) abort() {
	if c.stream != nil { // its end tells
		return
	}
	_ = c.sock.SetLinger(0)
}

// page is the body of an answer of this server.
func page(status int, reason string) []byte {
	b := append(make([]byte, 0, 160), strconv.Itoa(status)...)
	b = append(append(b, ' '), http.StatusText(status)...)
	b = append(append(b, ": "...), reason...)
	return append(b, '\n')
}

// Bounds of reading what a client sends on after it was refused, so that it reads
// why, instead of hearing of a reset (RFC 9112, section 9.6).
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 1 << 20
)

func (c *client) lingers() {
	if c.sock.CloseWrite() != nil {
		return
	}
	c.sock.in.by = c.clock.now() + int64(lingerTime)
	c.sock.in.bear(0)
	if c.in == nil {
		c.in = newBuffer()
	}
	for left := lingerBytes; left > 0; {
		n, err := c.sock.Read(c.in.b)
		if err != nil {
			return
		}
		left -= n
	}
}
