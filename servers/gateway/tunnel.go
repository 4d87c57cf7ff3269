package gateway

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// switched makes a connection what its client and the endpoint have agreed on, such
// as a WebSocket: bytes both ways until both ends have ended it, or nothing was said
// for as long as the route allows.
func (c *client) switched(u *upstream, a *attempt) bool {
	if a.upgrade == nil {
		c.server.end(u)
		return c.fail(http.StatusBadGateway, "the endpoint switched to a protocol that nobody has asked for")
	}
	b := c.appendFields(appendStatus(nil, http.StatusSwitchingProtocols, u.response.Reason), u, a.route, asItIs)
	b = append(append(append(b, "Connection: Upgrade\r\nUpgrade: "...), u.response.UpgradeTo()...), "\r\n\r\n"...)
	b = append(b, u.in.bytes()...)
	u.in.free()
	u.in = nil
	c.answered(http.StatusSwitchingProtocols, len(b))
	err := c.write(b)
	early := c.in.bytes()[c.upload.used:]
	if err == nil && len(early) > 0 {
		_, err = u.Write(early)
	}
	c.remembers()
	a.free()
	if err != nil {
		return c.broken(u)
	}
	c.counts.upgrades.Add(1)
	c.counts.requests[1].Add(1)
	c.tunnel(u, a.timeouts.Response)
	c.server.end(u)
	if c.server.measures {
		c.measure(http.StatusSwitchingProtocols)
	}
	return false
}

// tunnel passes bytes on until both sides have ended, or neither has said anything for
// as long as is borne; 0: for ever.
func (c *client) tunnel(u *upstream, patience time.Duration) {
	t := &tunnel{client: c, u: u, patience: patience}
	t.last.Store(c.clock.now())
	u.sock.moved = &t.last
	if c.sock != nil {
		c.sock.moved = &t.last
	}
	up := make(chan struct{})
	c.server.running.Go(func() {
		defer close(up)
		t.copy(u.wire(), u.sock, c.wire, c.sock)
	})
	t.copy(c.wire, c.sock, u.wire(), u.sock)
	<-up
}

// tunnel is a connection that is HTTP no more.
type tunnel struct {
	client   *client
	u        *upstream
	patience time.Duration
	last     atomic.Int64 // when a byte came, from either side
}

// copy passes on what comes from one side, and its end.
func (t *tunnel) copy(to wire, toSock *sock, from wire, fromSock *sock) {
	if fromSock != nil {
		fromSock.in.bear(t.patience)
	} else {
		t.client.stream.Bear(t.patience)
	}
	for {
		var failed *side
		if to == wire(toSock) && from == wire(fromSock) {
			failed = t.splice(toSock, fromSock)
		} else {
			failed = t.copyPieces(to, from)
		}
		if failed != nil && failed.reading && errors.Is(failed.err, errDeadline) && t.goesOn(fromSock) {
			continue
		}
		if failed != nil {
			t.client.cutOff()
			_ = t.u.SetDeadline(past())
			return
		}
		if closer, ok := to.(interface{ CloseWrite() error }); ok {
			_ = closer.CloseWrite()
		}
		return
	}
}

// goesOn tells whether the other side spoke meanwhile, so that the silence of this
// one means nothing.
func (t *tunnel) goesOn(from *sock) bool {
	if t.client.server.cutting.Load() || t.client.clock.now()-t.last.Load() >= int64(t.patience) {
		return false
	}
	if from != nil {
		_ = from.SetReadDeadline(time.Time{})
	}
	return true
}

func (t *tunnel) copyPieces(to, from wire) *side {
	b := newBuffer()
	defer b.free()
	for {
		n, err := from.Read(b.b)
		if n > 0 {
			t.last.Store(t.client.clock.now())
			if _, err := to.Write(b.b[:n]); err != nil {
				return &side{err: err}
			}
			t.count(to, int64(n))
		}
		if err != nil {
			return ending(err)
		}
	}
}

func (t *tunnel) splice(to, from *sock) *side {
	for {
		b, err := from.first(bufferSize)
		if err != nil {
			return ending(err)
		}
		t.last.Store(t.client.clock.now())
		n, err := to.Write(b.bytes())
		t.count(to, int64(n))
		full := b.to == len(b.b)
		b.free()
		if err != nil {
			return &side{err: err}
		}
		if full { // more than messages: what follows is moved by the kernel
			moved, failed := splice(to, from, pipeSize*4)
			if t.count(to, moved); failed != nil {
				if errors.Is(failed.err, errShort) {
					return nil
				}
				return failed
			}
		}
	}
}

// count adds what the client was sent.
func (t *tunnel) count(to wire, n int64) {
	if to == t.client.wire {
		t.client.record.sent += n
	}
}

// ending tells an end from a failure.
func ending(err error) *side {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return &side{err: err, reading: true}
}
