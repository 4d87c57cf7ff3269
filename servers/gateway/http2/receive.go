package http2

// headers begins a head.
func (r *reader) headers(f *frame) *Error {
	payload, err := f.unpadded()
	if err != nil {
		return err
	}
	if f.has(flagPriority) {
		if len(payload) < 5 {
			return broken(FrameSizeError, "HEADERS have no room for their priority")
		}
		payload = payload[5:] // which nobody follows: RFC 9113, section 5.3.2
	}
	if f.stream%2 == 0 {
		return broken(ProtocolError, "clients begin streams of odd numbers")
	}
	r.block = block{stream: f.stream, end: f.has(flagEndStream)}
	c := r.conn
	c.mu.Lock()
	s := c.streams[f.stream]
	switch {
	case f.stream > c.last:
		c.last = f.stream
		if c.leaving {
			r.block.of = toDrop
			c.remember(f.stream)
		}
	case c.endedEarly(f.stream):
		r.block.of = toDrop
	case s == nil || s.ended:
		err = broken(StreamClosed, "a stream goes on that has ended")
	default:
		r.block.of = toTrail
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	limits := &c.config.Limits
	r.head.Reset(limits.Head+limits.Line, limits.Fields, r.block.of == toTrail)
	r.hpack.SetEmitEnabled(r.block.of != toDrop)
	return r.fragment(payload, f.has(flagEndHeaders))
}

// fragment takes a piece of a head.
func (r *reader) fragment(b []byte, last bool) *Error {
	r.block.frames++
	if r.block.size += len(b); r.block.size > r.longest() || r.block.frames > maxBlockFrames {
		return broken(EnhanceYourCalm, "a head is too long")
	}
	if _, err := r.hpack.Write(b); err != nil {
		return broken(CompressionError, "the fields cannot be read")
	}
	if r.head.Long || r.head.Malformed != "" {
		r.hpack.SetEmitEnabled(false) // only the table is kept: what is repeated costs nothing
	}
	if !last {
		return nil
	}
	if r.hpack.Close() != nil {
		return broken(CompressionError, "the last field is not whole")
	}
	block := r.block
	r.block.stream = 0
	r.head.End(block.end)
	switch block.of {
	case toDrop:
		return r.idle()
	case toTrail:
		return r.trail(block)
	}
	return r.begin(block)
}

// begin begins a stream.
func (r *reader) begin(b block) *Error {
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	full := c.open >= c.config.Streams || len(c.streams) >= 2*c.config.Streams
	if (full || r.head.Malformed != "") && !b.end {
		c.remember(b.stream)
	}
	switch {
	case r.head.Malformed != "":
		return brokenStream(b.stream, ProtocolError, r.head.Malformed)
	case full:
		return brokenStream(b.stream, RefusedStream, "there are too many streams")
	}
	c.served = b.stream
	c.idle.Earn(earnedByRequest)
	s := newStream(c, b.stream)
	s.text = append(s.text, r.head.Text...)
	s.long, s.length, s.ended = r.head.Long, r.head.Length, b.end
	s.extended = r.head.Protocol != ""
	c.streams[b.stream] = s
	c.open++
	c.serving.Add(1)
	r.begun = append(r.begun, s)
	return nil
}

// trail takes the trailers of a body.
func (r *reader) trail(b block) *Error {
	switch {
	case !b.end:
		return brokenStream(b.stream, ProtocolError, "trailers are not the end")
	case r.head.Malformed != "":
		return brokenStream(b.stream, ProtocolError, r.head.Malformed)
	case r.head.Long:
		return brokenStream(b.stream, ProtocolError, "the trailers are too long")
	}
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[b.stream]
	if s == nil || s.over {
		return nil
	}
	s.trailers = append(s.trailers[:0], r.head.Text...)
	return s.endOfBody()
}

// data takes a piece of a body.
func (r *reader) data(f *frame) *Error {
	payload, err := f.unpadded()
	if err != nil {
		return err
	}
	c := r.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s, n := c.streams[f.stream], int64(len(f.payload))
	if f.stream%2 == 0 || f.stream > c.last {
		return broken(ProtocolError, "there is a body of a stream that never began")
	}
	if n > c.credit {
		return broken(FlowControlError, "more has come than the connection's window")
	}
	c.credit -= n
	switch {
	case s == nil || s.over:
		if s == nil && !c.endedEarly(f.stream) {
			return broken(StreamClosed, "there is a body of a stream that has ended")
		}
		c.consume(nil, n)
		return c.spend()
	case s.ended:
		c.consume(nil, n)
		return brokenStream(f.stream, StreamClosed, "a body goes on that has ended")
	case n > s.credit:
		c.consume(nil, n)
		return brokenStream(f.stream, FlowControlError, "more has come than the stream's window")
	}
	s.credit -= n
	if s.received += int64(len(payload)); s.length >= 0 && s.received > s.length {
		c.consume(nil, n)
		return brokenStream(f.stream, ProtocolError, "the body is longer than Content-Length says")
	}
	s.body.write(payload)
	c.consume(s, n-int64(len(payload)))
	switch {
	case f.has(flagEndStream):
		return s.endOfBody()
	case len(payload) == 0:
		return c.spend()
	}
	c.idle.Earn(len(payload) >> 10 * earnedByData)
	s.wakeReader()
	return nil
}

// consume takes note of bytes of a body that need no room any more, and tells the
// client once they are many.
func (c *Conn) consume(s *Stream, n int64) {
	if c.consumed += n; c.consumed >= connectionWindow/2 {
		c.out = appendWindowUpdate(c.out, 0, int(c.consumed))
		c.credit += c.consumed
		c.consumed = 0
		c.flush()
	}
	if s == nil || s.ended {
		return
	}
	if s.consumed += n; s.consumed >= streamWindow/2 {
		c.out = appendWindowUpdate(c.out, s.id, int(s.consumed))
		s.credit += s.consumed
		s.consumed = 0
		c.flush()
	}
}
