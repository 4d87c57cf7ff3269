package http1

import (
	"bytes"
	"strconv"
)

// Chunks reads a chunked body (RFC 9112, section 7.1). The zero value reads one.
type Chunks struct {
	state  chunkState
	digits uint8 // of the size
	left   int64 // of the chunk
	extra  int   // bytes of the extensions of this chunk
	line   int   // of the trailers, bytes so far
	tail   []byte
}

type chunkState uint8

const (
	inSize chunkState = iota
	inExtension
	afterSize // LF is due
	inChunk
	afterChunk // CR is due
	beforeNext // LF is due
	inTail
	ended
)

// Bounds of a chunked body.
const (
	maxDigits    = 15  // of a size, so that it fits
	maxExtension = 256 // bytes, of one chunk: nobody is known to use any
	maxTail      = 8 << 10
)

// Done tells whether the body has ended.
func (c *Chunks) Done() bool { return c.state == ended }

// Reset makes it ready for the next body.
func (c *Chunks) Reset() { *c = Chunks{tail: c.tail[:0]} }

// Decode takes the next bytes of a body. It moves the data in them to their front
// and returns how much that is, and how many bytes were used: less than all only
// if the body has ended.
func (c *Chunks) Decode(text []byte) (data, used int, err *Error) {
	for used < len(text) && c.state != ended {
		if c.state == inChunk {
			n := int(min(c.left, int64(len(text)-used)))
			copy(text[data:], text[used:used+n])
			data, used = data+n, used+n
			if c.left -= int64(n); c.left == 0 {
				c.state = afterChunk
			}
			continue
		}
		if err := c.frame(text[used]); err != nil {
			return data, used, err
		}
		used++
	}
	return data, used, nil
}

// frame takes a byte that is no data.
func (c *Chunks) frame(b byte) *Error {
	switch c.state {
	case inSize:
		return c.size(b)
	case inExtension:
		if b == '\r' {
			c.state = afterSize
			return nil
		}
		if c.extra++; c.extra > maxExtension || b < ' ' && b != '\t' || b == 0x7f {
			return errChunk
		}
	case afterSize:
		if b != '\n' {
			return errChunk
		}
		c.state = inChunk
		if c.left == 0 {
			c.state = inTail
		}
	case afterChunk:
		if b != '\r' {
			return errChunk
		}
		c.state = beforeNext
	case beforeNext:
		if b != '\n' {
			return errChunk
		}
		c.state, c.digits, c.extra = inSize, 0, 0
	case inTail:
		return c.trailer(b)
	}
	return nil
}

func (c *Chunks) size(b byte) *Error {
	switch {
	case octets[b]&hexadecimal != 0:
		if c.digits++; c.digits > maxDigits {
			return errChunkSize
		}
		c.left = c.left<<4 | int64(unhex(b))
	case c.digits == 0:
		return errChunk
	case b == '\r':
		c.state = afterSize
	case b == ';':
		c.state = inExtension
	default:
		return errChunk
	}
	return nil
}

// trailer takes a byte of the fields after the last chunk.
func (c *Chunks) trailer(b byte) *Error {
	if len(c.tail) == maxTail {
		return errLongHead
	}
	c.tail = append(c.tail, b)
	if b != '\n' {
		c.line++
		return nil
	}
	if n := len(c.tail); n < 2 || c.tail[n-2] != '\r' {
		return errLineEnd
	}
	if c.line == 1 { // of nothing but CR
		c.state = ended
		if len(c.tail) > 2 {
			return c.Trailers(&Head{})
		}
	}
	c.line = 0
	return nil
}

// HasTrailers tells whether there are fields after the last chunk.
func (c *Chunks) HasTrailers() bool { return len(c.tail) > 2 }

// Trailers reads the fields after the last chunk. Those that say how long a body
// is, to whom it goes, or who asks, are no trailers (RFC 9110, section 6.5.1): they
// are struck out.
func (c *Chunks) Trailers(into *Head) *Error {
	into.reset()
	into.text = c.tail
	if _, err := into.more(&Limits{Head: maxTail + 1, Fields: 64}); err != nil {
		return err
	}
	for i := range into.fields {
		f := &into.fields[i]
		if f.Known != Other || f.Underscore || bytes.EqualFold(into.Name(f), []byte("authorization")) || bytes.EqualFold(into.Name(f), []byte("cookie")) {
			f.Hop = true
		}
	}
	return nil
}

// ChunkRoom is how many bytes AppendChunk adds to the data, at most.
const ChunkRoom = 20

// AppendChunk appends a chunk of some data. Without any, it appends nothing: that
// would be the end.
func AppendChunk(b, data []byte) []byte {
	if len(data) == 0 {
		return b
	}
	b = append(strconv.AppendInt(b, int64(len(data)), 16), "\r\n"...)
	return append(append(b, data...), "\r\n"...)
}

// AppendEnd appends the end of a body, with the trailers that it had here.
func (c *Chunks) AppendEnd(b []byte) []byte {
	b = append(b, "0\r\n"...)
	if c.HasTrailers() {
		var h Head
		if c.Trailers(&h) == nil {
			for i := range h.fields {
				if f := &h.fields[i]; !f.Hop {
					b = append(append(append(append(b, h.Name(f)...), ": "...), h.Value(f)...), "\r\n"...)
				}
			}
		}
	}
	return append(b, "\r\n"...)
}
