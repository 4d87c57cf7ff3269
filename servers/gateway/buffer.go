package gateway

import "sync"

// bufferSize is that of one read of a body, and of the longest head that is usual.
// headSize is enough for most heads, with the body of a small message. A connection
// that is idle has no buffer; one whose answer is awaited, or is taken slowly, has
// small ones.
const (
	bufferSize = 16 << 10
	headSize   = 4 << 10
)

// buffer holds bytes that were read and not used yet: those between from and to.
type buffer struct {
	b        []byte
	from, to int
}

var (
	buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, bufferSize)} }}
	heads   = sync.Pool{New: func() any { return &buffer{b: make([]byte, headSize)} }}
)

func newBuffer() *buffer { return buffers.Get().(*buffer) }

// bufferOf returns one that has room for so many bytes, if any has.
func bufferOf(size int) *buffer {
	if size <= headSize {
		return heads.Get().(*buffer)
	}
	return newBuffer()
}

// pooled tells whether the buffer is as it was made.
func (b *buffer) pooled() bool { return len(b.b) == bufferSize || len(b.b) == headSize }

// free gives a buffer back. One that has grown is not kept.
func (b *buffer) free() {
	if b == nil {
		return
	}
	switch len(b.b) {
	case bufferSize:
		b.from, b.to = 0, 0
		buffers.Put(b)
	case headSize:
		b.from, b.to = 0, 0
		heads.Put(b)
	}
}

func (b *buffer) bytes() []byte { return b.b[b.from:b.to] }

// take uses up some bytes.
func (b *buffer) take(n int) {
	if b.from += n; b.from == b.to {
		b.from, b.to = 0, 0
	}
}

// room is where the next bytes may be read to. There is some: a full buffer is
// moved to its front, or grows.
func (b *buffer) room() []byte {
	if b.to == len(b.b) {
		if b.from > 0 {
			b.to = copy(b.b, b.bytes())
			b.from = 0
		} else {
			b.b = append(b.b, make([]byte, len(b.b))...)
		}
	}
	return b.b[b.to:]
}
