package http3

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/multiplex"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// Conn is a connection of a client, whose handshake has ended.
type Conn struct {
	socket *Socket
	quic   *quic.Conn
	serves func(*Stream)

	serving sync.WaitGroup // of streams

	mu       sync.Mutex
	said     *quic.SendStream // the control stream; nil: there is none yet
	active   int              // streams that are served
	next     uint64           // the first stream that was not taken
	draining bool             // the client is to ask elsewhere
	leaving  bool             // and no stream begins any more
	known    [streamDecoder + 1]bool
	resets   multiplex.Budget
	frames   multiplex.Budget
	quiet    *time.Timer // ends the connection once it has had nothing to do
}

// What frames a client may send that bring nothing, and how many each request is worth:
// browsers say of each how urgent it is (RFC 9218, section 7.2).
const mostFrames, eachFrames, earnedByRequest = 500, 20, 4

// lastStream is the greatest that a client could begin.
const lastStream = 1<<62 - 4

func newConn(s *Socket, q *quic.Conn) *Conn {
	now := s.config.Now()
	c := &Conn{socket: s, quic: q, resets: multiplex.Resets(now), frames: multiplex.Budget{Most: mostFrames, Each: eachFrames, At: now}}
	c.quiet = time.AfterFunc(s.config.Idle, c.rest)
	return c
}

// State is what TLS has agreed on.
func (c *Conn) State() tls.ConnectionState { return c.quic.ConnectionState().TLS }

// Remote is who the client is now. It may move, and has shown then that the address
// is its own (RFC 9000, section 9).
func (c *Conn) Remote() netip.Addr { return AddrOf(c.quic.RemoteAddr()) }

// AddrOf is the address of a client of UDP.
func AddrOf(a net.Addr) netip.Addr {
	if udp, ok := a.(*net.UDPAddr); ok {
		return udp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// Serve serves until the client is gone, has broken a rule, or was drained. Then all
// streams have ended. Each has a goroutine, which start is to take over or to lead on,
// and End is called of each that start was given.
func (c *Conn) Serve(start func(*Stream)) {
	c.serves = start
	defer c.socket.forget(c)
	defer c.quiet.Stop()
	var reading sync.WaitGroup
	if c.begin() {
		reading.Go(func() { c.aside(&reading) })
		for {
			q, err := c.quic.AcceptStream(context.Background())
			if err != nil {
				break
			}
			c.take(q)
		}
	}
	c.close(codeNoError, "")
	c.serving.Wait()
	reading.Wait()
}

// begin opens the control stream.
func (c *Conn) begin() bool {
	said, err := c.quic.OpenUniStream()
	if err != nil {
		return false
	}
	b := appendSettings(quicvarint.Append(nil, streamControl), c.socket.config.Limits.Head)
	if said.TryWriteAll(b) != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.said = said; c.draining {
		c.goAway(lastStream)
	}
	return true
}

// goAway tells the client which stream is not served. The lock is held. If there is
// no room for it, the client hears when the connection ends.
func (c *Conn) goAway(first uint64) {
	if c.said != nil {
		_ = c.said.TryWriteAll(appendGoAway(nil, first))
	}
}

// aside takes the streams of one direction.
func (c *Conn) aside(reading *sync.WaitGroup) {
	for {
		in, err := c.quic.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		reading.Go(func() {
			var broke *fault
			if err := c.listen(in); errors.As(err, &broke) {
				c.close(broke.code, broke.reason)
			}
		})
	}
}

// listen reads a stream of one direction to its end.
func (c *Conn) listen(in *quic.ReceiveStream) error {
	_ = in.SetReadDeadline(time.Now().Add(c.socket.config.Header))
	kind, err := quicvarint.Read(quicvarint.NewReader(in))
	_ = in.SetReadDeadline(time.Time{})
	if err != nil {
		in.CancelRead(codeStreamCreation)
		return nil
	}
	switch {
	case kind == streamPush:
		return broken(codeStreamCreation, "clients push nothing")
	case kind > streamDecoder:
		in.CancelRead(codeStreamCreation)
		if !c.spendFrame() {
			return broken(codeExcessiveLoad, "too many streams that nobody knows")
		}
		return nil
	case c.again(kind):
		return broken(codeStreamCreation, "a stream is there twice")
	case kind == streamControl:
		return c.control(in)
	}
	return instructions(in, kind == streamEncoder)
}

// again tells whether there was a stream of this kind already.
func (c *Conn) again(kind uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.known[kind]
	c.known[kind] = true
	return was
}

// take begins a stream.
func (c *Conn) take(q *quic.Stream) {
	id := uint64(q.StreamID())
	c.mu.Lock()
	if c.leaving && id >= c.next {
		c.mu.Unlock()
		q.CancelRead(codeRequestRejected)
		q.CancelWrite(codeRequestRejected)
		return
	}
	c.active++
	c.frames.Earn(earnedByRequest)
	c.next = id + 4
	c.quiet.Stop()
	c.serving.Add(1)
	c.mu.Unlock()
	go newStream(c, q).begin()
}

// ended takes note of a stream that is served. Those that the client had end before
// their answer are paid for.
func (c *Conn) ended(how outcome) {
	c.mu.Lock()
	if c.active--; c.active == 0 {
		c.waits()
	}
	tooMany := false
	switch how {
	case answered:
		c.resets.Earn(1)
	case spent:
		tooMany = !c.resets.Spend(1, c.socket.config.Now())
	}
	c.mu.Unlock()
	if tooMany {
		c.close(codeExcessiveLoad, "too many requests end before their answer")
	}
	c.serving.Done()
}

func (c *Conn) spendFrame() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frames.Spend(1, c.socket.config.Now())
}

// waits has the connection end soon, since nothing is under way. The lock is held.
func (c *Conn) waits() {
	if c.leaving {
		c.quiet.Reset(c.socket.config.Linger)
		return
	}
	c.quiet.Reset(c.socket.config.Idle)
}

// rest ends a connection that has nothing to do. The client is told first which of its
// requests are not served, so that it may ask elsewhere.
func (c *Conn) rest() {
	c.mu.Lock()
	busy, told := c.active > 0, c.leaving
	if !busy && !told {
		c.leaving = true
		c.goAway(c.next)
		c.waits()
	}
	c.mu.Unlock()
	if !busy && told {
		c.close(codeNoError, "")
	}
}

// waiting tells whether no request is under way.
func (c *Conn) waiting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active == 0
}

// drain tells the client to ask elsewhere from now on; what is on its way is served
// (RFC 9114, section 5.2).
func (c *Conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.draining && !c.leaving { // what was said may only become less
		c.draining = true
		c.goAway(lastStream)
	}
}

// leave takes no streams any more. The connection ends some time after the last of
// those that there are, so that what was sent arrives.
func (c *Conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving {
		return
	}
	c.leaving = true
	c.goAway(c.next)
	if c.active == 0 {
		c.waits()
	}
}

// close ends the connection, and all that is under way.
func (c *Conn) close(code uint64, reason string) {
	_ = c.quic.CloseWithError(quic.ApplicationErrorCode(code), reason)
}
