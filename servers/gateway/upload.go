package gateway

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// upload is the body of a request. What came with the head is sent with the head.
// If that is not all, a goroutine sends the rest while the answer is awaited: an
// endpoint may answer before it has read all, and may not read on until its answer
// is taken.
type upload struct {
	length int64  // that the endpoint is told
	have   []byte // what has come, without the frames of chunks
	used   int    // bytes of the client's buffer that head and body are
	left   int64  // bytes that have not come, of a length that is known
	whole  bool   // all has come
	chunks http1.Chunks

	// Of the goroutine.
	client  *client
	wire    wire // the client's
	plain   bool // it is its socket
	max     int64
	sent    atomic.Int64
	ended   chan struct{}
	last    atomic.Bool  // the last piece is being written
	stopped atomic.Bool  // nothing more is asked of it: what fails from now on says nothing
	refused *http1.Error // why the client's body is refused
	gone    bool         // the client is
	failed  bool         // the endpoint takes no more
	in      *buffer      // of the last piece, and then what was read beyond the body; nil: nothing
	copied  *copied      // of the body, for a mirror; nil: none
}

var (
	errLargeBody = &http1.Error{Status: http.StatusRequestEntityTooLarge, Reason: "the body is longer than this route takes"}
	errSlowBody  = &http1.Error{Status: http.StatusRequestTimeout, Reason: "the body of the request did not come in time"}
)

// begin looks at what has come.
func (l *upload) begin(c *client) *http1.Error {
	l.client, l.length, l.have, l.used, l.left, l.whole = c, c.request.Length, nil, c.request.Size(), 0, false
	l.refused, l.gone, l.failed, l.in, l.copied = nil, false, false, nil, nil
	l.last.Store(false)
	l.stopped.Store(false)
	l.sent.Store(0)
	rest := c.in.bytes()[l.used:]
	switch {
	case l.length == 0:
		l.whole = true
	case l.length > 0:
		n := min(int64(len(rest)), l.length)
		l.have, l.left = rest[:n], l.length-n
		l.used += int(n)
		l.whole = l.left == 0
	default:
		l.chunks.Reset()
		data, used, err := l.chunks.Decode(rest)
		if err != nil {
			return err
		}
		l.have = rest[:data]
		l.used += used
		if l.whole = l.chunks.Done(); l.whole && !l.chunks.HasTrailers() {
			l.length = int64(data)
		}
	}
	return nil
}

func (l *upload) exceeds(limit int64) bool {
	return l.length > limit || int64(len(l.have)) > limit
}

// append adds what has come to a message, or returns what is to be written after.
func (l *upload) append(message []byte) (now, then []byte) {
	if l.length != http1.Chunked {
		if len(message)+len(l.have) <= cap(message) {
			return append(message, l.have...), nil
		}
		return message, l.have
	}
	message = http1.AppendChunk(message, l.have)
	if l.whole {
		message = l.chunks.AppendEnd(message)
	}
	return message, nil
}

// start sends the rest. failed is why the endpoint took no more already.
func (l *upload) start(u *upstream, a *attempt, failed error) {
	c := l.client
	l.max = a.route.MaxBody
	l.sent.Store(int64(len(l.have)))
	l.ended = make(chan struct{})
	if failed != nil {
		l.failed = true
		close(l.ended)
		return
	}
	u.sock.in.bear(0) // the endpoint has time until it has all
	if u.endpoint.http2 {
		// In a stream of gRPC either side may have nothing to say for long: the client may
		// be silent for as long as the endpoint may (proxy-read-timeout).
		c.bears(max(c.server.settings.Body, a.timeouts.Response))
	}
	if c.request.Expects && len(l.have) == 0 {
		_, err := c.wire.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
		l.gone = err != nil
	}
	l.wire, l.plain = c.wire, c.plain() // an answer that is slowed down has another one
	c.server.running.Go(func() {
		defer close(l.ended)
		if !l.gone {
			l.run(u)
		}
		if l.gone || l.refused != nil {
			_ = u.SetReadDeadline(past()) // nobody waits for the answer
			return
		}
		if !l.failed {
			u.sock.in.bear(a.timeouts.Response)
			u.sock.in.until.CompareAndSwap(0, c.clock.now()+int64(a.timeouts.Response))
		}
	})
}

// bears sets how long the client may take for the next piece of a body, of this
// request.
func (c *client) bears(patience time.Duration) {
	if c.stream != nil {
		c.stream.Bear(patience)
		return
	}
	c.sock.in.bear(patience)
}

// run copies the rest of the body.
func (l *upload) run(u *upstream) {
	c := l.client
	if l.plain && u.plain() && l.copied == nil && l.left > spliceFrom {
		n, side := splice(u.sock, c.sock, l.left-bufferSize) // the last piece is written below
		l.left -= n
		l.judge(side)
		if side != nil {
			return
		}
	}
	for l.left > 0 || l.length == http1.Chunked && !l.chunks.Done() {
		piece, err := l.next()
		if err != nil {
			l.judge(&side{err: err, reading: true})
			return
		}
		var out *buffer
		if l.length == http1.Chunked {
			data, used, refused := l.chunks.Decode(piece)
			if refused != nil {
				l.refused = refused
				return
			}
			if sent := l.sent.Add(int64(data)); l.max > 0 && sent > l.max {
				l.refused = errLargeBody
				return
			}
			l.in.from, l.in.to = used, len(piece)
			l.copied.add(piece[:data])
			out = newBuffer()
			piece = http1.AppendChunk(out.b[:0], piece[:data])
			if l.chunks.Done() {
				piece = l.chunks.AppendEnd(piece)
			}
		} else {
			l.left -= int64(len(piece))
			l.copied.add(piece)
		}
		l.last.Store(l.left == 0 && (l.length != http1.Chunked || l.chunks.Done()))
		_, err = u.Write(piece)
		out.free()
		if err != nil {
			l.failed = true
			return
		}
	}
	l.copied.send(c.server)
}

// next reads the next piece. While it is waited for there is no buffer, if the client
// does not speak TLS.
func (l *upload) next() ([]byte, error) {
	most := bufferSize - 64
	if l.left > 0 {
		most = int(min(int64(most), l.left))
	}
	if l.plain {
		l.in.free()
		var err error
		if l.in, err = l.client.sock.first(most); err != nil {
			return nil, err
		}
		n := l.in.to
		l.in.to = 0
		return l.in.b[:n], nil
	}
	if l.in == nil {
		l.in = newBuffer()
	}
	n, err := l.wire.Read(l.in.b[:most])
	return l.in.b[:n], err
}

// judge takes note of why copying ended.
func (l *upload) judge(s *side) {
	switch {
	case s == nil:
	case l.stopped.Load(), !s.reading:
		l.failed = true
	case errors.Is(s.err, errDeadline):
		l.refused = errSlowBody
	default:
		l.gone = true
	}
}

// soon bounds how long an answer waits for the last piece of what it answers to be
// written. It is there: only the goroutine that wrote it has to say so.
const soon = time.Second

// done tells whether all has been sent, so that both connections may go on.
func (l *upload) done() bool {
	if l.whole {
		return true
	}
	if !l.last.Load() { // it is answered early
		return false
	}
	timer := time.NewTimer(soon)
	defer timer.Stop()
	select {
	case <-l.ended:
		return !l.gone && !l.failed && l.refused == nil
	case <-timer.C:
		return false
	}
}

// stop ends the goroutine, and tells what it thinks of the client: also if it has
// only just said that nobody waits for the answer, and not ended yet.
func (l *upload) stop(u *upstream) (refused *http1.Error, gone bool) {
	select {
	case <-l.ended:
		return l.refused, l.gone
	default:
	}
	l.stopped.Store(true)
	l.client.stopReading()
	_ = u.SetWriteDeadline(past())
	<-l.ended
	if l.client.sock != nil {
		_ = l.client.sock.SetReadDeadline(time.Time{})
	}
	return l.refused, l.gone
}

// abandon waits for the goroutine, if there is one, and whatever became of it.
func (l *upload) abandon() {
	if !l.whole && l.ended != nil {
		l.client.stopReading()
		<-l.ended
	}
}

// finish gives the client's buffer what follows the body. It returns false if some
// of the body was not read.
func (l *upload) finish(u *upstream) bool {
	c := l.client
	if l.whole {
		c.in.take(l.used)
		return true
	}
	ok := l.done()
	if !ok {
		l.stop(u)
		c.linger = true
	}
	c.in.free()
	c.in, l.in = l.in, nil
	if c.in != nil && c.in.from == c.in.to {
		c.in.from, c.in.to = 0, 0
	}
	return ok
}

// side is which of two connections failed while one was copied to the other.
type side struct {
	err     error
	reading bool
}

var errShort = io.ErrUnexpectedEOF
