package gateway

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http2"
)

// streams serve the connections of HTTP/2, and the requests of HTTP/3. Each request
// comes as one of HTTP/1.1 (http2, http3) and is read by http1: what is refused there
// is refused here, and all that follows is the same.
type streams struct {
	server *Server
	crews  []crew // one for each core

	mu    sync.Mutex
	conns map[*http2.Conn]bool
	tell  func(*http2.Conn) // what a connection is told when it begins; nil: nothing
}

// maxStreams bounds those of a connection at once.
const maxStreams = 128

// leavePause is how long a client has to hear that it shall ask elsewhere.
const leavePause = time.Second

func newStreams(s *Server) *streams {
	return &streams{server: s, crews: make([]crew, len(s.counts)), conns: map[*http2.Conn]bool{}}
}

// run waits for the context's end, and then tells all connections: first that they
// shall ask elsewhere, and once they know, that what they ask here is not answered.
func (h *streams) run(ctx context.Context) {
	<-ctx.Done()
	h.each((*http2.Conn).Drain)
	pause := time.NewTimer(leavePause)
	defer pause.Stop()
	select {
	case <-pause.C:
		h.each((*http2.Conn).Leave)
	case <-h.server.context.Done():
	}
}

// sweep sends those away that had nothing to do since the last time.
func (h *streams) sweep() {
	for i := range h.crews {
		h.crews[i].rest(false)
	}
}

// end ends those that served.
func (h *streams) end() {
	for i := range h.crews {
		h.crews[i].rest(true)
		h.crews[i].working.Wait()
	}
}

// each tells all connections something, and those that come.
func (h *streams) each(tell func(*http2.Conn)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tell = tell
	for conn := range h.conns {
		tell(conn)
	}
}

// serve serves a connection until it has ended.
func (h *streams) serve(tls *tls.Conn, c *client) {
	settings := &h.server.settings
	in := &c.sock.in
	conn := http2.New(tls, http2.Config{
		Limits: settings.Limits, Streams: maxStreams, Patience: settings.Body, Now: c.clock.now,
		Hold:  h.server.hold,
		Start: func(s *http2.Stream) { h.crews[c.core].serve(job{s, c, 2}) },
		Wait: func(what http2.Waiting) {
			switch what {
			case http2.ForRest:
				if in.by == 0 {
					in.by = c.clock.now() + int64(settings.Header)
				}
				return
			case http2.ForFrame:
				in.bear(0)
			case http2.ForRequest:
				in.bear(settings.Idle)
			}
			in.by = 0
		},
		Idle: func() {
			in.bear(settings.Idle)
			in.until.CompareAndSwap(0, c.clock.now()+int64(settings.Idle))
		},
		Stop: func() { _ = c.sock.SetReadDeadline(past()) },
	})
	h.mu.Lock()
	h.conns[conn] = true
	if h.tell != nil {
		h.tell(conn)
	}
	h.mu.Unlock()
	_ = conn.Serve() // why it ended, the client was told
	h.mu.Lock()
	delete(h.conns, conn)
	h.mu.Unlock()
	_ = c.sock.SetReadDeadline(time.Time{})
	c.linger = true
}

// crew are those that serve streams: they are there for the next one, with the
// memory that the last one took.
type crew struct {
	working sync.WaitGroup

	mu    sync.Mutex
	idle  []*worker
	least int  // of them, since they were counted
	ended bool // nobody is needed any more
	_     [64]byte
}

// worker serves one stream after another.
type worker struct {
	client client
	stream stream
	jobs   chan job
}

// multiplexed is a request of a connection that has many: a stream of HTTP/2 or 3.
type multiplexed interface {
	io.ReadWriteCloser
	AppendRequest(b []byte) (all []byte, tooLong bool)
	Asks(head bool)
	OnGone(f func())
	Bear(patience time.Duration)
	CloseWrite() error
	Abort()
	End()
}

// job is a stream, and whose it is.
type job struct {
	stream multiplexed
	of     *client
	major  uint8 // of the version of HTTP
}

// serve has somebody serve a stream.
func (w *crew) serve(j job) {
	w.mu.Lock()
	n := len(w.idle)
	if n == 0 {
		w.mu.Unlock()
		one := &worker{jobs: make(chan job, 1)}
		one.jobs <- j
		w.working.Go(func() { one.run(w) })
		return
	}
	one := w.idle[n-1]
	w.idle = w.idle[:n-1]
	w.least = min(w.least, n-1)
	w.mu.Unlock()
	one.jobs <- j
}

// run works until there is nothing to do for some time.
func (one *worker) run(w *crew) {
	for j := range one.jobs {
		one.serve(j)
		w.mu.Lock()
		ended := w.ended
		if !ended {
			w.idle = append(w.idle, one)
		}
		w.mu.Unlock()
		if ended {
			return
		}
	}
}

// rest sends those away that had nothing to do since the last time, or all.
func (w *crew) rest(all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.least
	if all {
		n, w.ended = len(w.idle), true
	}
	for _, one := range w.idle[:n] { // those that were used last are at the end
		close(one.jobs)
	}
	w.idle = append(w.idle[:0], w.idle[n:]...)
	w.least = len(w.idle)
}

// serve answers a request.
func (one *worker) serve(j job) {
	c, of := &one.client, j.of
	one.stream.begin(j)
	if c.of != of { // the last one was another connection's
		c.server, c.core, c.counts, c.clock = of.server, of.core, of.counts, of.clock
		c.remote, c.at, c.name, c.peer, c.forwarded = of.remote, of.at, of.name, of.peer, of.forwarded
		c.led = of.led
		c.of, c.wire, c.stream = of, &one.stream, &one.stream
	}
	c.began, c.linger = false, false
	c.begins()
	c.request.Reset()
	c.in = bufferOf(headSize)
	text, tooLong := j.stream.AppendRequest(c.in.b[:0])
	if len(text) > len(c.in.b) {
		c.in.free()
		c.in = &buffer{b: text}
	}
	c.in.to = len(text)
	limits := &c.server.settings.Limits
	done, refused := c.request.Parse(c.in.bytes(), limits)
	j.stream.Asks(string(c.request.Method) == http.MethodHead)
	switch {
	case one.stream.cut.Load(): // before anybody was asked
		c.ended(0)
	case tooLong:
		c.refuse(http.StatusRequestHeaderFieldsTooLarge, "the header fields are too long")
	case refused != nil:
		c.refuse(refused.Status, refused.Reason)
	case !done:
		c.refuse(http.StatusBadRequest, "the request is no whole one")
	default:
		c.upload.ended = nil
		c.exchange()
		c.upload.abandon()
	}
	c.in.free()
	c.in = nil
	one.stream.end()
}

// stream is the wire of one request of HTTP/2 or 3.
type stream struct {
	multiplexed
	major  uint8                // of the version
	awaits atomic.Pointer[sock] // as a sock has it
	cut    atomic.Bool          // by the client
	left   func()               // gone, as a value: it costs memory
}

func (s *stream) begin(j job) {
	s.multiplexed, s.major = j.stream, j.major
	s.cut.Store(false)
	if s.left == nil {
		s.left = s.gone
	}
	j.stream.OnGone(s.left)
}

func (s *stream) end() {
	s.awaits.Store(nil)
	s.multiplexed.End()
	s.multiplexed = nil
}

// await has a wait for an endpoint end once the client is gone.
func (s *stream) await(up *sock) {
	s.awaits.Store(up)
	if s.cut.Load() {
		s.gone()
	}
}

// gone ends waiting for the answer of who is gone.
func (s *stream) gone() {
	s.cut.Store(true)
	if up := s.awaits.Swap(nil); up != nil {
		_ = up.SetDeadline(past())
	}
}
