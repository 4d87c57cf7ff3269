package http2

import (
	"bytes"
	"encoding/binary"

	"github.com/fairlead-net/fairlead/servers/gateway/multiplex"
	"golang.org/x/net/http2/hpack"
)

// preface is how a connection begins (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// reader reads what a client sends.
type reader struct {
	conn     *Conn
	in       *input // nil: nothing has come that was not used
	from, to int
	first    [frameHead]byte // of a client that has no buffer
	held     int             // bytes that Config.Hold knows of
	tooMuch  bool            // it has said so
	settled  bool            // the client's SETTINGS have come
	hpack    *hpack.Decoder
	head     multiplex.Head
	block    block
	begun    []*Stream // by the frames of one read
}

// block is a head that comes, in one frame or several.
type block struct {
	stream uint32 // 0: there is none
	of     purpose
	end    bool // of the stream
	frames int
	size   int // bytes
}

type purpose uint8

const (
	toAsk   purpose = iota // a request
	toTrail                // trailers
	toDrop                 // of a stream that has ended
)

// maxBlockFrames bounds the frames of one head (CVE-2024-27316).
const maxBlockFrames = 32

func newReader(c *Conn) *reader {
	r := &reader{conn: c}
	r.hpack = newDecoder(r.longest(), func(f hpack.HeaderField) { r.head.Field(f.Name, f.Value) })
	return r
}

// longest is how many bytes a head may have, as it is sent. It is more than is
// taken, so that who sends little more is told what is wrong with it.
func (r *reader) longest() int { return 2 * (r.conn.config.Limits.Head + r.conn.config.Limits.Line) }

// run reads until something ends the connection.
func (r *reader) run() error {
	r.conn.config.Wait(ForRest)
	for r.in == nil || r.to-r.from < len(preface) {
		if err := r.fill(ForRest); err != nil {
			return err
		}
		if have := r.bytes(); !bytes.HasPrefix([]byte(preface), have[:min(len(have), len(preface))]) {
			return broken(ProtocolError, "the connection does not begin as one of HTTP/2")
		}
	}
	r.from += len(preface)
	for {
		for r.in != nil {
			f, size, err := cut(r.bytes())
			if err == nil && size == 0 {
				break
			}
			if err == nil {
				r.from += size
				err = r.take(&f)
			}
			if err != nil && err.Stream != 0 {
				r.conn.mu.Lock()
				err = r.conn.reset(err)
				r.conn.mu.Unlock()
			}
			if err != nil {
				r.start()
				return err
			}
		}
		r.start()
		if err := r.conn.breathe(); err != nil {
			return err
		}
		if err := r.fill(r.waiting()); err != nil {
			return err
		}
	}
}

// start has the streams served that have begun.
func (r *reader) start() {
	for i, s := range r.begun {
		r.conn.config.Start(s)
		r.begun[i] = nil
	}
	r.begun = r.begun[:0]
}

func (r *reader) bytes() []byte { return r.in.b[r.from:r.to] }

// waiting tells what the next read is for.
func (r *reader) waiting() Waiting {
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting := ForRequest
	switch {
	case r.block.stream != 0 || !r.settled:
		waiting = ForRest
	case len(c.streams) > 0:
		waiting = ForFrame
	case r.in != nil && r.to > r.from:
		waiting = ForRest
	}
	c.config.Wait(waiting) // while no stream ends: its end may say otherwise
	if waiting != ForRest {
		r.hold(0)
	}
	return waiting
}

// take takes a frame.
func (r *reader) take(f *frame) *Error {
	switch {
	case !r.settled && (f.kind != kindSettings || f.has(flagAck)):
		return broken(ProtocolError, "the first frame is not SETTINGS")
	case r.block.stream != 0 && (f.kind != kindContinuation || f.stream != r.block.stream):
		return broken(ProtocolError, "a head is interrupted by another frame")
	}
	r.settled = true
	switch f.kind {
	case kindData:
		return r.data(f)
	case kindHeaders:
		return r.headers(f)
	case kindContinuation:
		if r.block.stream == 0 {
			return broken(ProtocolError, "CONTINUATION continues nothing")
		}
		return r.fragment(f.payload, f.has(flagEndHeaders))
	case kindReset:
		return r.resets(f)
	case kindWindowUpdate:
		return r.windowUpdate(f)
	case kindPushPromise:
		return broken(ProtocolError, "clients promise nothing")
	}
	if err := r.idle(); err != nil {
		return err
	}
	switch f.kind {
	case kindSettings:
		return r.settings(f)
	case kindPing:
		return r.ping(f)
	case kindPriority:
		switch {
		case f.stream == 0:
			return broken(ProtocolError, "PRIORITY is of a stream")
		case len(f.payload) != 5:
			return brokenStream(f.stream, FrameSizeError, "PRIORITY is of another size")
		}
	case kindGoAway:
		if f.stream != 0 {
			return broken(ProtocolError, "GOAWAY is of no stream")
		}
	}
	return nil // what is not known here is passed over: section 5.5
}

// idle takes note of a frame that brings nothing.
func (r *reader) idle() *Error {
	r.conn.mu.Lock()
	defer r.conn.mu.Unlock()
	return r.conn.spend()
}

func (r *reader) ping(f *frame) *Error {
	switch {
	case f.stream != 0:
		return broken(ProtocolError, "PING is of no stream")
	case len(f.payload) != 8:
		return broken(FrameSizeError, "PING is of another size")
	}
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !f.has(flagAck) {
		c.out = appendPing(c.out, flagAck, f.payload)
		c.flush()
	} else if c.draining && [8]byte(f.payload) == drainMark {
		c.leave()
	}
	return nil
}

func (r *reader) resets(f *frame) *Error {
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case f.stream == 0 || f.stream > c.last || f.stream%2 == 0:
		return broken(ProtocolError, "a stream is reset that never began")
	case len(f.payload) != 4:
		return broken(FrameSizeError, "RST_STREAM is of another size")
	}
	s := c.streams[f.stream]
	if s == nil || s.over {
		return c.spend()
	}
	s.ended = true // nothing more of it comes
	s.cancel(errReset)
	return c.spendReset()
}

// windowUpdate gives room to a stream, or the connection.
func (r *reader) windowUpdate(f *frame) *Error {
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.spend(); err != nil {
		return err
	}
	if len(f.payload) != 4 {
		return broken(FrameSizeError, "WINDOW_UPDATE is of another size")
	}
	n := int64(binary.BigEndian.Uint32(f.payload) &^ (1 << 31))
	if f.stream == 0 {
		if n == 0 {
			return broken(ProtocolError, "a window grows by nothing")
		}
		if c.window += n; c.window > maxWindow {
			return broken(FlowControlError, "a window is larger than windows may be")
		}
		c.moved = c.config.Now()
		c.admit()
		return nil
	}
	s := c.streams[f.stream]
	switch {
	case f.stream > c.last || f.stream%2 == 0:
		return broken(ProtocolError, "a window is of a stream that never began")
	case s == nil || s.over:
		return nil
	case n == 0:
		return brokenStream(f.stream, ProtocolError, "a window grows by nothing")
	}
	if s.window += n; s.window > maxWindow {
		return brokenStream(f.stream, FlowControlError, "a window is larger than windows may be")
	}
	s.wakeWriter()
	return nil
}
