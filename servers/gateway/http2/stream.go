package http2

import (
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// Stream is a request and its answer. What is read from it is the request's body as
// HTTP/1.1 has it, and what is written to it is an answer of HTTP/1.1, of which the
// head comes in one piece.
type Stream struct {
	conn *Conn
	id   uint32

	// Of the request, once it has begun.
	text     []byte
	long     bool  // it was longer than is taken
	length   int64 // that is declared; -1: none
	extended bool  // it is a CONNECT of RFC 8441
	whole    bool  // the text has all of the body

	patience   atomic.Int64
	readable   chan struct{}
	writable   chan struct{}
	readTimer  *time.Timer
	writeTimer *time.Timer

	// What follows is guarded by the connection's lock.
	body             pieces
	received         int64
	credit, consumed int64
	trailers         []byte
	window           int64
	err              error // why it was cut off
	ended            bool  // the client has sent all
	sent             bool  // and this side
	over             bool  // both, or it was cut off
	shut             bool  // nobody reads
	queued, turn     bool
	gone             func()

	// Of who reads.
	coded []byte // in chunks, and not read yet
	last  bool   // the last chunk is among them

	// Of who writes.
	answered bool  // the head was
	raw      bool  // what follows is no HTTP
	left     int64 // of the answer's body, or http1.Chunked
	chunks   http1.Chunks
	response http1.Response
	toHEAD   bool
}

// Why streams are cut off.
var (
	errReset   = errors.New("the client has reset the stream")
	errStalled = errors.New("the client gives no room for the answer")
	errAborted = errors.New("the stream was cut off")
	errShut    = errors.New("nobody reads the request any more")
)

var freeStreams = sync.Pool{New: func() any {
	return &Stream{readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}}

func newStream(c *Conn, id uint32) *Stream {
	s := freeStreams.Get().(*Stream)
	s.chunks.Reset()
	s.response.Reset()
	*s = Stream{
		conn: c, id: id, text: s.text[:0], trailers: s.trailers[:0], coded: s.coded[:0],
		readable: s.readable, writable: s.writable, readTimer: s.readTimer, writeTimer: s.writeTimer,
		credit: streamWindow, window: c.initial, chunks: s.chunks, response: s.response,
	}
	s.patience.Store(int64(c.config.Patience))
	if c.out == nil {
		c.out = takeOutput()
	}
	return s
}

// smallBody is what goes with the head, if it has come by then.
const smallBody = 8 << 10

// AppendRequest appends the request as HTTP/1.1 has it, and its body, if all of that
// has come and is short. It is called once, first. tooLong tells that the client
// sent more of a head than is taken, of which this is a part.
func (s *Stream) AppendRequest(b []byte) (all []byte, tooLong bool) {
	b = append(b, s.text...)
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	small := s.ended && s.body.size <= smallBody && len(s.trailers) == 0
	switch {
	case s.extended:
		s.whole = true
	case small && (s.body.size > 0 || s.length == 0):
		b = appendLength(b, int64(s.body.size))
		s.whole = true
	case small:
		s.whole = true
	case s.length >= 0:
		b = appendLength(b, s.length)
	default:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	b = append(b, "\r\n"...)
	if n := s.body.size; s.whole && !s.extended && n > 0 {
		at := len(b)
		b = append(b, make([]byte, n)...)
		s.body.read(b[at:])
		c.consume(s, int64(n))
	}
	return b, s.long
}

// Asks tells the stream about the request what its answer depends on.
func (s *Stream) Asks(head bool) { s.toHEAD = head }

// OnGone has a function called if the stream is cut off before End. It must not
// block, nor call the stream.
func (s *Stream) OnGone(f func()) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.gone = f
	if s.err != nil {
		f()
	}
}

// Bear sets how long each wait for the client may last.
func (s *Stream) Bear(patience time.Duration) { s.patience.Store(int64(patience)) }

func (s *Stream) wakeReader() { s.conn.notify(s.readable) }
func (s *Stream) wakeWriter() { s.conn.notify(s.writable) }

// cancel cuts the stream off. The lock is held.
func (s *Stream) cancel(why error) {
	if s.err != nil {
		return
	}
	s.err = why
	s.settle()
	s.wakeReader()
	s.wakeWriter()
	if s.gone != nil {
		s.gone()
	}
}

// settle takes note if the stream is over.
func (s *Stream) settle() {
	if !s.over && (s.err != nil || s.ended && s.sent) {
		s.over = true
		s.conn.open--
	}
}

// endOfBody takes note that the client has sent all. The lock is held.
func (s *Stream) endOfBody() *Error {
	s.ended = true
	if s.length >= 0 && s.received != s.length {
		return brokenStream(s.id, ProtocolError, "the body is shorter than Content-Length says")
	}
	s.settle()
	s.wakeReader()
	return nil
}

// wait waits for a sign, for as long as the stream bears. The lock is held, but not
// meanwhile.
func (s *Stream) wait(sign chan struct{}, timer **time.Timer) bool {
	c := s.conn
	c.mu.Unlock()
	defer c.mu.Lock()
	patience := time.Duration(s.patience.Load())
	if *timer == nil {
		*timer = time.NewTimer(patience)
	} else {
		(*timer).Reset(patience)
	}
	select {
	case <-sign:
		(*timer).Stop()
		return true
	case <-(*timer).C:
		return false
	}
}

// take reads bytes of the body.
func (s *Stream) take(into []byte) (int, error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case s.err != nil:
			return 0, s.err
		case s.shut:
			return 0, errShut
		case s.body.size > 0:
			n := s.body.read(into)
			c.consume(s, int64(n))
			return n, nil
		case s.ended:
			return 0, io.EOF
		}
		if !s.wait(s.readable, &s.readTimer) && s.body.size == 0 && s.err == nil && !s.ended {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// Read reads the body.
func (s *Stream) Read(into []byte) (int, error) {
	if s.length >= 0 || s.extended || len(into) == 0 {
		return s.take(into)
	}
	for len(s.coded) == 0 {
		if s.last {
			return 0, io.EOF
		}
		n, err := s.take(into[:max(len(into)-http1.ChunkRoom, 1)])
		s.coded = http1.AppendChunk(s.coded[:0], into[:n])
		switch {
		case errors.Is(err, io.EOF):
			s.last = true
			s.coded = append(s.coded, "0\r\n"...)
			s.coded = append(append(s.coded, s.trailers...), "\r\n"...)
		case err != nil:
			return 0, err
		}
	}
	n := copy(into, s.coded)
	s.coded = s.coded[n:]
	return n, nil
}

// Close ends reading, one that is under way too.
func (s *Stream) Close() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.shut = true
	s.wakeReader()
	return nil
}

// Abort cuts the stream off, whoever waits for the client.
func (s *Stream) Abort() {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.err == nil && !s.over {
		if !s.ended {
			c.remember(s.id)
		}
		c.out = appendReset(c.out, s.id, Cancel)
		c.flush()
		s.cancel(errAborted)
	}
}

// End tells that the stream is served, and nobody uses it any more. An answer that
// is not whole is cut off, and so is a request that nobody has read to its end.
func (s *Stream) End() {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.forgo()
	c.consume(nil, int64(s.body.drop()))
	switch {
	case s.err != nil:
	case !s.sent:
		if !s.ended {
			c.remember(s.id)
		}
		c.out = appendReset(c.out, s.id, InternalError)
		c.flush()
	case !s.ended:
		c.remember(s.id)
		if s.length < 0 || s.received < s.length {
			c.out = appendReset(c.out, s.id, NoError) // RFC 9113, section 8.1
			c.flush()
		}
	default:
		c.resets.Earn(1)
	}
	if !s.over {
		s.over = true
		c.open--
	}
	delete(c.streams, s.id)
	if len(c.streams) == 0 {
		if c.leaving {
			c.config.Stop()
		} else {
			c.config.Idle()
		}
	}
	s.gone = nil
	if cap(s.text) > 4<<10 || cap(s.coded) > 4<<10 {
		s.text, s.coded = nil, nil
	}
	freeStreams.Put(s)
	c.serving.Done()
}

func appendLength(b []byte, n int64) []byte {
	return append(strconv.AppendInt(append(b, "Content-Length: "...), n, 10), "\r\n"...)
}
