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
		value := r.Value(f)
		if z == squeezed && dropped(f, name) {
			continue
		}
		b = append(append(b, name...), ": "...)
		if z == squeezed && len(value) > 0 && value[0] == '"' && isETag(name) {
			b = append(b, "W/"...)
		}
		b = append(edits.value(b, name, value, &c.ask), "\r\n"...)
	}
	b = appendSqueezed(b, z)
	for i := range c.ask.Also {
		b = c.ask.Also[i].append(b, &c.ask)
	}
	return edits.append(b, &c.ask, r.Status)
}

func isETag(name []byte) bool { return len(name) == 4 && strings.EqualFold(text(name), "etag") }

// relay passes an answer on, and returns whether the client's connection goes on.
func (c *client) relay(u *upstream, a *attempt) bool {
	r := &u.response
	keep := c.request.Persist && !c.server.draining.Load() && c.upload.done()
	length := r.Length
	z := c.squeezes(r)
	switch {
	case z == squeezed:
		defer c.unsqueezed()
		length = http1.Chunked
	case length < 0 && c.request.Minor == 1:
		length = http1.Chunked
	case length < 0:
		length, keep = http1.UntilClose, false
	}
	if c.stream != nil {
		c.awaits(u) // an endpoint that is silent is left as soon as the client has left
	}
	out := newBuffer()
	defer out.free()
	b := c.appendFields(appendStatus(out.b[:0], r.Status, r.Reason), u, a.route, z)
	if length == http1.Chunked {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	b = append(c.appendConnection(b, keep), "\r\n"...)
	c.answered(r.Status, len(b))
	status, persist, chunked := r.Status, r.Persist, r.Length == http1.Chunked
	if a.route.Rate.PerSecond > 0 {
		was := c.wire
		c.wire = &throttled{wire: was, client: c, rate: Rate{PerSecond: a.route.Rate.PerSecond, After: a.route.Rate.After + int64(len(b))}}
		defer func() { c.wire = was }()
	}
	var failed *side
	switch {
	case z == squeezed:
		persist = persist && r.Length != http1.UntilClose
		failed = c.relaySqueezed(u, b, r.Length)
	case r.Length >= 0:
		failed = c.relayLength(u, b, r.Length)
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
	if c.stream != nil && c.left() {
		persist = false
	}
	if persist && uploaded && (u.in == nil || len(u.in.bytes()) == 0) {
		c.server.keep(u)
	} else {
		c.server.end(u)
	}
	return keep && uploaded
}

// relayLength passes a body on whose length is known, after some bytes.
func (c *client) relayLength(u *upstream, b []byte, length int64) *side {
	n := int(min(length, int64(len(u.in.bytes()))))
	have := u.in.bytes()[:n]
	if len(b)+n <= cap(b) {
		b, have = append(b, have...), nil
	}
	if err := c.write(b); err != nil {
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
// piece is passed on as it comes.
func (c *client) relayStream(u *upstream, out *buffer, b []byte, from, to bool) *side {
	var chunks http1.Chunks
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
			b = out.b[:0]
		}
		if ended {
			return nil
		}
		u.in.from, u.in.to = 0, 0
		n, err := u.Read(u.in.b[:bufferSize-64])
		switch {
		case err == nil:
			u.in.to = n
		case errors.Is(err, io.EOF) && !from:
			if to {
				err = c.write([]byte("0\r\n\r\n"))
				if err != nil {
					return &side{err: err}
				}
			}
			return nil
		default:
			return &side{err: err, reading: true}
		}
	}
}
