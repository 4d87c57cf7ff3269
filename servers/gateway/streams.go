package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// streams serve the connections of HTTP/2, by the standard library. Each request is
// written down as one of HTTP/1.1 and read by http1 again: what is refused there is
// refused here, and all that follows is the same.
type streams struct {
	server *Server
	http   *http.Server
	conns  chan net.Conn
	ended  chan struct{}
	end    func() // closes ended
}

// Bounds of a connection of HTTP/2.
const (
	maxStreams  = 250 // at once; the standard library bounds those that were reset
	pingTimeout = 15 * time.Second
)

func newStreams(s *Server) *streams {
	h := &streams{server: s, conns: make(chan net.Conn), ended: make(chan struct{})}
	h.end = sync.OnceFunc(func() { close(h.ended) })
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	h.http = &http.Server{
		Handler: h, Protocols: protocols, TLSConfig: s.tls.Clone(),
		MaxHeaderBytes: s.settings.Limits.Head, IdleTimeout: s.settings.Idle,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, whose{}, conn.(*tls.Conn).NetConn().(*sock).client)
		},
		ErrorLog: log.New(io.Discard, "", 0),
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: s.settings.Idle, PingTimeout: pingTimeout, WriteByteTimeout: s.settings.Body},
	}
	return h
}

// run serves until the context ends, and what is under way for some time more.
func (h *streams) run(ctx context.Context) {
	var serving sync.WaitGroup
	serving.Go(func() { _ = h.http.Serve(h) })
	<-ctx.Done()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.server.settings.Drain)
	defer cancel()
	_ = h.http.Shutdown(last)
	_ = h.http.Close()
	serving.Wait()
}

// Accept, Close and Addr make it the listener of its server.
func (h *streams) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.ended:
		return nil, net.ErrClosed
	}
}

// Close ends accepting.
func (h *streams) Close() error {
	h.end()
	return nil
}

// Addr is of nowhere.
func (h *streams) Addr() net.Addr { return &net.TCPAddr{} }

// whose is the key of the client in the context of a request.
type whose struct{}

// serve serves a connection until it has ended.
func (h *streams) serve(conn *tls.Conn, c *client) {
	closed := make(chan struct{})
	c.sock.closed, c.sock.client = sync.OnceFunc(func() { close(closed) }), c
	c.sock.out.bear(0) // the library has its own timeouts
	c.sock.in.bear(0)
	select {
	case h.conns <- conn:
		<-closed
	case <-h.ended:
	}
}

// ServeHTTP answers a request.
func (h *streams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	of := r.Context().Value(whose{}).(*client)
	stream := &stream{w: w, r: r, control: http.NewResponseController(w), patience: h.server.settings.Body, toHEAD: r.Method == http.MethodHead}
	c := &client{server: of.server, core: of.core, counts: of.counts, wire: stream, stream: stream, remote: of.remote, at: of.at, name: of.name, peer: of.peer, clock: of.clock, forwarded: of.forwarded}
	c.begins()
	c.in = newBuffer()
	defer func() { c.in.free() }()
	head, ok := appendHead(c.in.b[:0], r)
	if !ok {
		c.refuse(http.StatusBadRequest, "the request has a line break where none belongs")
		return
	}
	if len(head) > len(c.in.b) {
		c.in.free()
		c.in = &buffer{b: head}
	}
	c.in.to = len(head)
	limits := h.server.settings.Limits
	limits.Head += limits.Line // HTTP/2 has counted otherwise
	switch done, refused := c.request.Parse(c.in.bytes(), &limits); {
	case refused != nil:
		c.refuse(refused.Status, refused.Reason)
	case !done:
		c.refuse(http.StatusBadRequest, "the request is no whole one")
	default:
		c.exchange()
	}
	if stream.broken {
		panic(http.ErrAbortHandler) // which resets the stream
	}
}

// appendHead writes a request down as one of HTTP/1.1. It returns false if
// something has a line break, which the library should have refused.
func appendHead(b []byte, r *http.Request) (head []byte, ok bool) {
	ok = true
	line := func(parts ...string) {
		for _, part := range parts {
			ok = ok && !strings.ContainsAny(part, "\r\n\x00")
			b = append(b, part...)
		}
		b = append(b, "\r\n"...)
	}
	line(r.Method, " ", r.RequestURI, " HTTP/1.1")
	line("Host: ", r.Host)
	for name, values := range r.Header {
		if name == "Content-Length" { // the library holds the client to it
			continue
		}
		for _, value := range values {
			line(name, ": ", value)
		}
	}
	switch {
	case r.ContentLength > 0:
		line("Content-Length: ", strconv.FormatInt(r.ContentLength, 10))
	case r.ContentLength < 0:
		line("Transfer-Encoding: chunked")
	}
	line()
	return b, ok
}

// stream is the wire of one request of HTTP/2: what is read from it is the body as
// HTTP/1.1 has it, and what is written to it is an answer of HTTP/1.1.
type stream struct {
	w        http.ResponseWriter
	r        *http.Request
	control  *http.ResponseController
	patience time.Duration
	toHEAD   bool
	broken   bool // the answer cannot be finished

	coded    []byte // of the body, in chunks, and not read yet
	whole    bool   // the last chunk is among them
	answered bool   // the head was
	left     int64  // of the answer's body, or Chunked
	chunks   http1.Chunks
}

// Read reads the body.
func (s *stream) Read(into []byte) (int, error) {
	if s.r.ContentLength >= 0 {
		_ = s.control.SetReadDeadline(time.Now().Add(s.patience))
		n, err := s.r.Body.Read(into)
		if n > 0 {
			err = nil // it comes again
		}
		return n, err
	}
	for len(s.coded) == 0 {
		if s.whole {
			return 0, io.EOF
		}
		_ = s.control.SetReadDeadline(time.Now().Add(s.patience))
		piece := into[:max(len(into)-http1.ChunkRoom, 1)]
		n, err := s.r.Body.Read(piece)
		s.coded = http1.AppendChunk(s.coded[:0], piece[:n])
		switch {
		case errors.Is(err, io.EOF):
			s.whole = true
			s.coded = append(s.coded, "0\r\n"...)
			for name, values := range s.r.Trailer {
				for _, value := range values {
					if !strings.ContainsAny(value, "\r\n\x00") {
						s.coded = append(append(append(append(s.coded, name...), ": "...), value...), "\r\n"...)
					}
				}
			}
			s.coded = append(s.coded, "\r\n"...)
		case err != nil:
			return 0, err
		}
	}
	n := copy(into, s.coded)
	s.coded = s.coded[n:]
	return n, nil
}

// Write takes an answer. Its head comes in one piece.
func (s *stream) Write(b []byte) (int, error) {
	all := len(b)
	if !s.answered {
		n, err := s.head(b)
		if err != nil || !s.answered {
			return all, err
		}
		b = b[n:]
	}
	ended := false
	if s.left == http1.Chunked {
		data, _, refused := s.chunks.Decode(b)
		if refused != nil {
			return 0, refused
		}
		b, ended = b[:data], s.chunks.Done()
	} else {
		b = b[:min(int64(len(b)), s.left)]
		s.left -= int64(len(b))
		ended = s.left == 0
	}
	if len(b) > 0 {
		if _, err := s.w.Write(b); err != nil {
			return 0, err
		}
	}
	if ended {
		return all, s.trailers()
	}
	return all, s.control.Flush() // nobody knows when more comes
}

// head takes that of the answer, or one that comes before.
func (s *stream) head(b []byte) (int, error) {
	var r http1.Response
	done, refused := r.Parse(b, s.toHEAD, &http1.Limits{Line: 1 << 20, Head: 1 << 20, Fields: 1 << 10})
	switch {
	case refused != nil:
		return 0, refused
	case !done:
		return 0, io.ErrShortWrite
	case r.Status < 200: // the library sends 100 itself
		return len(b), nil
	}
	for i := range r.Fields() {
		if f := &r.Fields()[i]; !f.Hop {
			s.w.Header().Add(string(r.Name(f)), string(r.Value(f)))
		}
	}
	s.w.WriteHeader(r.Status)
	s.answered, s.left = true, r.Length
	return r.Size(), nil
}

func (s *stream) trailers() error {
	if !s.chunks.HasTrailers() {
		return nil
	}
	var h http1.Head
	if refused := s.chunks.Trailers(&h); refused != nil {
		return refused
	}
	for i := range h.Fields() {
		if f := &h.Fields()[i]; !f.Hop {
			s.w.Header().Add(http.TrailerPrefix+string(h.Name(f)), string(h.Value(f)))
		}
	}
	return nil
}

// Close ends reading.
func (s *stream) Close() error { return s.r.Body.Close() }
