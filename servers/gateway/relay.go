package gateway

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// appendFields writes the fields of an answer that the client gets.
func (c *client) appendFields(b []byte, u *upstream, route *Route, z squeeze) []byte {
	r := &u.response
	edits := &route.Response
	untouched := edits.empty()
	offer := c.offer()
	for i := range r.Fields() {
		f := &r.Fields()[i]
		if f.Hop || f.Known == http1.ContentLength && r.Status == http.StatusNoContent {
			continue
		}
		name := r.Name(f)
		if len(c.ask.Also) > 0 && also(c.ask.Also, name) {
			continue
		}
		if !untouched && f.Known != http1.ContentLength && edits.replaces(name) {
			continue
		}
		if offer != nil && isName(name, "alt-svc") {
			offer = nil // the backend knows better
		}
		value := r.Value(f)
		if z.is() && dropped(f, name) {
			continue
		}
		b = append(append(b, name...), ": "...)
		if z.is() && len(value) > 0 && value[0] == '"' && isETag(name) {
			b = append(b, "W/"...)
		}
		b = append(edits.value(b, name, value, &c.ask), "\r\n"...)
	}
	b = append(appendSqueezed(b, z), offer...)
	for i := range c.ask.Also {
		b = c.ask.Also[i].append(b, &c.ask)
	}
	return edits.append(b, &c.ask, r.Status)
}

func isETag(name []byte) bool { return isName(name, "etag") }

func isName(name []byte, lower string) bool {
	return len(name) == len(lower) && strings.EqualFold(text(name), lower)
}

// relay passes an answer on, and returns whether the client's connection goes on.
func (c *client) relay(u *upstream, a *attempt) bool {
	r := &u.response
	keep := c.request.Persist && !c.server.draining.Load() && c.upload.done()
	length := r.Length
	z := c.squeezes(r)
	switch {
	case z.is():
		defer c.unsqueezed()
		length = http1.Chunked
	case length < 0 && c.request.Minor == 1:
		length = http1.Chunked
	case length < 0:
		length, keep = http1.UntilClose, false
	}
	awaits := c.stream != nil || r.Length < 0
	if awaits {
		c.awaits(u) // an endpoint that is silent is left as soon as the client has left
	}
	out := newBuffer()
	b := c.appendFields(appendStatus(out.b[:0], r.Status, r.Reason), u, a.route, z)
	if length == http1.Chunked {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	b = append(c.appendConnection(b, keep), "\r\n"...)
	c.answered(r.Status, len(b))
	status, persist, chunked := r.Status, r.Persist, r.Length == http1.Chunked
	defer c.throttle(a.route.Rate, len(b))()
	var failed *side
	switch {
	case z.is():
		persist = persist && r.Length != http1.UntilClose
		failed = c.relaySqueezed(u, out, b, r.Length, z)
	case r.Length >= 0:
		failed = c.relayLength(u, out, b, r.Length)
	default:
		persist = persist && chunked
		failed = c.relayStream(u, out, b, chunked, length == http1.Chunked)
	}
	if failed != nil {
		if !c.upload.whole {
			c.upload.stop(u)
		}
		return c.broken(u)
	}
	c.ended(status)
	uploaded := c.upload.finish(u)
	if awaits && c.left() {
		persist = false
	}
	if persist && uploaded && (u.in == nil || len(u.in.bytes()) == 0) {
		c.server.keep(u)
	} else {
		c.server.end(u)
	}
	return keep && uploaded
}

// throttle slows down what is written behind a head, until it is undone.
func (c *client) throttle(rate Rate, head int) (undo func()) {
	if rate.PerSecond == 0 {
		return func() {}
	}
	was := c.wire
	rate.After += int64(head)
	c.wire = &throttled{wire: was, client: c, rate: rate}
	return func() { c.wire = was }
}

// relayLength passes a body on whose length is known, after some bytes, which are in a
// buffer that it gives back.
func (c *client) relayLength(u *upstream, out *buffer, b []byte, length int64) *side {
	n := int(min(length, int64(len(u.in.bytes()))))
	have := u.in.bytes()[:n]
	if len(b)+n <= cap(b) {
		b, have = append(b, have...), nil
	}
	err := c.write(b)
	out.free()
	if err != nil {
		return &side{err: err}
	}
	if len(have) > 0 {
		if err := c.write(have); err != nil {
			return &side{err: err}
		}
	}
	u.in.take(n)
	left := length - int64(n)
	if left > spliceFrom && c.plain() && u.plain() {
		u.in.free()
		u.in = nil
		moved, failed := splice(c.sock, u.sock, left)
		c.record.sent += moved
		return failed
	}
	for left > 0 {
		room := u.in.b[:min(int64(len(u.in.b)), left)]
		n, err := u.Read(room)
		if err != nil {
			return &side{err: err, reading: true}
		}
		if err := c.write(room[:n]); err != nil {
			return &side{err: err}
		}
		left -= int64(n)
	}
	return nil
}

// relayStream passes a body on whose length is not known: one in chunks, or one
// that ends with the connection; in chunks, or until the connection ends. Each
// piece is passed on as it comes, and no buffer waits for it.
func (c *client) relayStream(u *upstream, out *buffer, b []byte, from, to bool) *side {
	var chunks http1.Chunks
	defer func() { out.free() }()
	for {
		piece := u.in.bytes()
		ended := false
		if from {
			data, used, refused := chunks.Decode(piece)
			if refused != nil {
				return &side{err: refused, reading: true}
			}
			piece, ended = piece[:data], chunks.Done()
			u.in.from += used
		} else {
			u.in.from = u.in.to
		}
		if len(b)+len(piece)+http1.ChunkRoom > cap(b) {
			if err := c.write(b); err != nil {
				return &side{err: err}
			}
			b = out.b[:0]
		}
		if to {
			b = http1.AppendChunk(b, piece)
		} else {
			b = append(b, piece...)
		}
		if ended && to {
			b = chunks.AppendEnd(b)
		}
		if len(b) > 0 {
			if err := c.write(b); err != nil {
				return &side{err: err}
			}
		}
		if ended {
			return nil
		}
		out.free()
		out = nil
		ended, failed := u.next(from)
		if failed != nil {
			return failed
		}
		if ended {
			if to {
				if err := c.write([]byte("0\r\n\r\n")); err != nil {
					return &side{err: err}
				}
			}
			return nil
		}
		out = newBuffer()
		b = out.b[:0]
	}
}

// next reads the next piece of a body of chunks, or of one that ends with the
// connection.
func (u *upstream) next(chunks bool) (ended bool, failed *side) {
	var err error
	if u.plain() {
		u.in.free()
		u.in, err = u.sock.first(bufferSize - 64)
	} else {
		u.in.from = 0
		u.in.to, err = u.Read(u.in.b[:bufferSize-64])
	}
	if errors.Is(err, io.EOF) && !chunks {
		return true, nil
	}
	if err != nil {
		return false, &side{err: err, reading: true}
	}
	return false, nil
}
