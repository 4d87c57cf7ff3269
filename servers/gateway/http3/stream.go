package http3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
	"github.com/fairlead-net/fairlead/servers/gateway/multiplex"
	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// Stream is a request and its answer. What is read from it is the request's body as
// HTTP/1.1 has it, and what is written to it is an answer of HTTP/1.1, of which the
// head comes in one piece.
type Stream struct {
	conn *Conn
	quic *quic.Stream

	// Of the request, once it has begun.
	text   []byte
	long   bool  // it was longer than is taken
	length int64 // of the body, that is declared; -1: none
	whole  bool  // what came early is all of the body

	patience atomic.Int64

	mu    sync.Mutex
	shut  bool // nobody reads
	gone  func()
	still func() bool // ends watching whether the client is there

	// Of who reads.
	in       []byte // that came, and was not read
	room     [2 << 10]byte
	fin      bool   // no more comes
	left     uint64 // bytes of the frame of data
	passed   uint64 // bytes of frames that nobody knows
	received int64
	early    []byte // of the body, what came with the head
	trailed  bool   // there were trailers
	trailers []byte
	coded    []byte // in chunks, and not read yet
	last     bool   // the last chunk is among them
	broke    bool   // the client has broken a rule, and was told

	// Of who writes.
	sent     bool  // the answer is whole
	answered bool  // its head was sent
	rest     int64 // of its body, or http1.Chunked
	chunks   http1.Chunks
	response http1.Response
	toHEAD   bool
}

const (
	// smallBody is what goes with the head, if it has come by then, in bytes.
	smallBody = 8 << 10
	// mostPassed bounds the frames that nobody knows, in bytes of one request.
	mostPassed = 64 << 10
	// soon is how long what follows a head may take to be read with it, and endSoon how
	// long the end of a request may that has no body.
	soon, endSoon = 2 * time.Millisecond, time.Second
)

func newStream(c *Conn, q *quic.Stream) *Stream {
	s := &Stream{conn: c, quic: q, length: -1, still: func() bool { return false }}
	s.patience.Store(int64(c.socket.config.Patience))
	return s
}

// begin reads the head, and has the stream served.
func (s *Stream) begin() {
	if s.readHead() {
		s.conn.serves(s)
		return
	}
	s.quic.CancelRead(codeNoError)
	s.quic.CancelWrite(codeRequestCancelled)
	s.conn.ended(spent)
}

// readHead reads the head, and what has come with it.
func (s *Stream) readHead() bool {
	config := &s.conn.socket.config
	_ = s.quic.SetReadDeadline(time.Now().Add(config.Header))
	if !config.Hold(len(s.room)) {
		config.Hold(-len(s.room))
		return s.wrong(&fault{codeExcessiveLoad, "too many heads are not whole", false})
	}
	defer config.Hold(-len(s.room))
	kind, length, err := s.frame()
	switch {
	case errors.Is(err, io.EOF):
		err = &fault{codeIncomplete, "there is no head", false}
	case err == nil && kind != frameHeaders:
		err = broken(codeFrameUnexpected, "a body comes before its head")
	}
	if err != nil {
		return s.wrong(err)
	}
	limits := &config.Limits
	if length > uint64(2*(limits.Head+limits.Line)) {
		s.long = true
		return true
	}
	var h multiplex.Head
	h.Reset(limits.Head+limits.Line, limits.Fields, false)
	if err := s.fields(length, &h); err != nil {
		return s.wrong(err)
	}
	s.length, s.long = h.Length, h.Long
	if h.Length <= smallBody && !h.Long && h.Malformed == "" {
		s.whole = s.gather(&h)
	}
	h.End(s.whole && len(s.early) == 0)
	if h.Protocol != "" {
		h.Malformed = "no protocol is spoken over HTTP/3"
	}
	if s.text = h.Text; h.Malformed != "" {
		return s.wrong(malformed(h.Malformed))
	}
	return !s.broke
}

// gather reads a short body, if it comes at once, and tells whether all of it has.
func (s *Stream) gather(h *multiplex.Head) bool {
	patience := soon
	switch h.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodDelete:
		if h.Length <= 0 {
			patience = endSoon
		}
	}
	var piece [1 << 10]byte
	for len(s.early) <= smallBody {
		_ = s.quic.SetReadDeadline(time.Now().Add(patience))
		err := s.fill()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		n := 0
		if err == nil || errors.Is(err, io.EOF) { // what has begun to come is waited for
			_ = s.quic.SetReadDeadline(time.Now().Add(s.conn.socket.config.Header))
			n, err = s.next(piece[:])
		}
		s.early = append(s.early, piece[:n]...)
		switch {
		case errors.Is(err, io.EOF):
			return !s.trailed
		case err != nil:
			s.wrong(err)
			return false
		}
		patience = soon
	}
	return false
}

// wrong tells a client what it did wrong, if it did, and returns false.
func (s *Stream) wrong(err error) bool {
	var f *fault
	var cut *quic.StreamError
	s.broke = !errors.As(err, &cut) || cut.Remote // else Abort did
	switch {
	case !errors.As(err, &f):
	case f.all:
		s.conn.close(f.code, f.reason)
	default:
		s.quic.CancelRead(quic.StreamErrorCode(f.code))
		s.quic.CancelWrite(quic.StreamErrorCode(f.code))
	}
	return false
}

// fields reads those of a head, or of trailers.
func (s *Stream) fields(length uint64, h *multiplex.Head) error {
	block, err := s.block(int(length))
	if err != nil {
		return err
	}
	next := qpack.NewDecoder().Decode(block)
	for !h.Long && h.Malformed == "" {
		f, err := next()
		switch {
		case errors.Is(err, io.EOF) && len(block) > 1:
			return nil
		case err != nil:
			return broken(codeDecompression, "the fields cannot be read")
		}
		h.Field(f.Name, f.Value)
	}
	return nil
}

// block reads a frame's payload. It lasts until the next read, if it has come whole.
func (s *Stream) block(length int) ([]byte, error) {
	if length <= len(s.in) {
		b := s.in[:length]
		s.in = s.in[length:]
		return b, nil
	}
	config := &s.conn.socket.config
	defer config.Hold(-length)
	if !config.Hold(length) {
		return nil, &fault{codeExcessiveLoad, "too many heads are not whole", false}
	}
	b := make([]byte, length)
	at := copy(b, s.in)
	s.in = nil
	for at < length {
		n, err := s.quic.Read(b[at:])
		at += n
		if errors.Is(err, io.EOF) {
			s.fin, err = true, nil
			if at < length {
				return nil, broken(codeFrameError, "a frame is not whole")
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// fill waits for something to come. io.EOF: nothing does any more.
func (s *Stream) fill() error {
	for len(s.in) == 0 {
		if s.fin {
			return io.EOF
		}
		n, err := s.quic.Read(s.room[:])
		s.in = s.room[:n]
		if errors.Is(err, io.EOF) {
			s.fin, err = true, nil
		}
		if err != nil && n == 0 {
			return err
		}
	}
	return nil
}

// number reads a number of QUIC.
func (s *Stream) number() (n uint64, err error) {
	if err := s.fill(); err != nil {
		return 0, err
	}
	var b [8]byte
	size := 1 << (s.in[0] >> 6)
	for i := range size {
		if err := s.fill(); errors.Is(err, io.EOF) {
			return 0, broken(codeFrameError, "a frame is not whole")
		} else if err != nil {
			return 0, err
		}
		b[i] = s.in[0]
		s.in = s.in[1:]
	}
	n, _, err = quicvarint.Parse(b[:size])
	return n, err
}

// frame reads where the next one begins that is known. io.EOF: there is none. What
// waiting cuts short within is lost: no frame can be read then.
func (s *Stream) frame() (kind, length uint64, err error) {
	for {
		if kind, err = s.number(); err != nil {
			return 0, 0, err
		}
		if length, err = s.number(); errors.Is(err, io.EOF) {
			err = broken(codeFrameError, "a frame is not whole")
		}
		switch {
		case err != nil:
			return 0, 0, err
		case kind == frameData && length == 0 && !s.conn.spendFrame():
			return 0, 0, broken(codeExcessiveLoad, "too many frames of data that have none")
		case kind == frameData || kind == frameHeaders:
			return kind, length, nil
		case isPlaced(kind):
			return 0, 0, broken(codeFrameUnexpected, "a frame is not for requests")
		case s.passed+length >= mostPassed:
			return 0, 0, &fault{codeExcessiveLoad, "too much that nobody knows", false}
		}
		s.passed += length + 1
		for length > 0 {
			if err := s.fill(); errors.Is(err, io.EOF) {
				return 0, 0, broken(codeFrameError, "a frame is not whole")
			} else if err != nil {
				return 0, 0, err
			}
			n := min(length, uint64(len(s.in)))
			s.in = s.in[n:]
			length -= n
		}
	}
}

// next reads bytes of the body as they come. There may be none where a frame begins.
func (s *Stream) next(into []byte) (int, error) {
	for s.left == 0 {
		kind, length, err := s.frame()
		switch {
		case errors.Is(err, io.EOF):
			if s.length >= 0 && s.received != s.length {
				return 0, malformed("the body is shorter than Content-Length says")
			}
			return 0, io.EOF
		case err != nil:
			return 0, err
		case s.trailed:
			return 0, broken(codeFrameUnexpected, "something follows the trailers")
		case kind == frameHeaders:
			if err := s.trail(length); err != nil {
				return 0, err
			}
		case s.length >= 0 && length > uint64(s.length-s.received):
			return 0, malformed("the body is longer than Content-Length says")
		default:
			if s.left = length; len(s.in) == 0 {
				return 0, nil
			}
		}
	}
	into = into[:min(uint64(len(into)), s.left)]
	n := copy(into, s.in)
	if s.in = s.in[n:]; n == 0 {
		var err error
		if s.fin {
			return 0, broken(codeFrameError, "a frame is not whole")
		}
		if n, err = s.quic.Read(into); errors.Is(err, io.EOF) {
			s.fin, err = true, nil
		}
		if err != nil && n == 0 {
			return 0, err
		}
	}
	s.left -= uint64(n)
	s.received += int64(n)
	return n, nil
}

// trail reads the trailers.
func (s *Stream) trail(length uint64) error {
	limits := &s.conn.socket.config.Limits
	if length > uint64(2*(limits.Head+limits.Line)) {
		return malformed("the trailers are too long")
	}
	var h multiplex.Head
	h.Reset(limits.Head+limits.Line, limits.Fields, true)
	if err := s.fields(length, &h); err != nil {
		return err
	}
	switch {
	case h.Malformed != "":
		return malformed(h.Malformed)
	case h.Long:
		return malformed("the trailers are too long")
	}
	s.trailed, s.trailers = true, h.Text
	return nil
}

// AppendRequest appends the request as HTTP/1.1 has it, and its body, if all of that
// has come and is short. It is called once, first. tooLong tells that the client
// sent more of a head than is taken, of which this is a part.
func (s *Stream) AppendRequest(b []byte) (all []byte, tooLong bool) {
	b = append(b, s.text...)
	switch {
	case s.whole && (len(s.early) > 0 || s.length == 0):
		b = appendLength(b, int64(len(s.early)))
	case s.whole:
	case s.length >= 0:
		b = appendLength(b, s.length)
	default:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	b = append(b, "\r\n"...)
	if s.whole {
		b = append(b, s.early...)
		s.early = nil
	}
	return b, s.long
}

func appendLength(b []byte, n int64) []byte {
	return append(strconv.AppendInt(append(b, "Content-Length: "...), n, 10), "\r\n"...)
}

// Asks tells the stream about the request what its answer depends on.
func (s *Stream) Asks(head bool) { s.toHEAD = head }

// OnGone has a function called if the client leaves before End, or Abort is called. It
// must not block, nor call the stream.
func (s *Stream) OnGone(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = f
	s.still = context.AfterFunc(s.quic.Context(), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.gone != nil && !errors.Is(context.Cause(s.quic.Context()), quic.ErrStreamClosed) {
			s.gone()
		}
	})
}

// Bear sets how long each wait for the client may last.
func (s *Stream) Bear(patience time.Duration) { s.patience.Store(int64(patience)) }

// past is a deadline that is over.
func past() time.Time { return time.Unix(1, 0) }

func (s *Stream) by() time.Time { return time.Now().Add(time.Duration(s.patience.Load())) }

// take reads bytes of the body, those that came early first.
func (s *Stream) take(into []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(into, s.early)
		s.early = s.early[n:]
		return n, nil
	}
	s.mu.Lock()
	if s.shut {
		s.mu.Unlock()
		return 0, errShut
	}
	_ = s.quic.SetReadDeadline(s.by())
	s.mu.Unlock()
	n, err := 0, error(nil)
	for n == 0 && err == nil {
		n, err = s.next(into)
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.wrong(err)
	}
	return n, err
}

// Read reads the body.
func (s *Stream) Read(into []byte) (int, error) {
	if s.length >= 0 || len(into) == 0 {
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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = true
	return s.quic.SetReadDeadline(past())
}
