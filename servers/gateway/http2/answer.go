package http2

import (
	"io"
	"net/http"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// answerLimits bound the head of an answer: who writes it has judged it.
var answerLimits = http1.Limits{Line: 1 << 20, Head: 1 << 20, Fields: 1 << 10}

// Write takes an answer, or a piece of it.
func (s *Stream) Write(b []byte) (int, error) {
	all, c := len(b), s.conn
	headed := s.answered
	for !s.answered {
		n, err := s.readHead(b)
		if err != nil {
			return 0, err
		}
		b = b[n:]
		if !s.answered && len(b) == 0 {
			return all, nil
		}
	}
	data, ended, err := s.decode(b)
	if err != nil {
		return 0, err
	}
	trailing := ended && s.chunks.HasTrailers()
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.flush()
	if !headed {
		if err := s.fields(s.appendHead, ended && len(data) == 0 && !trailing); err != nil {
			return 0, err
		}
	}
	if err := s.pour(data, ended && !trailing && !s.sent); err != nil {
		return 0, err
	}
	if trailing {
		return all, s.trail()
	}
	return all, nil
}

// readHead reads the head of an answer, or of one that comes before it, which is
// sent at once.
func (s *Stream) readHead(b []byte) (int, error) {
	r := &s.response
	r.Reset()
	done, refused := r.Parse(b, s.toHEAD, &answerLimits)
	switch {
	case refused != nil:
		return 0, refused
	case !done:
		return 0, io.ErrShortWrite
	}
	switch {
	case r.Status >= 200:
		s.answered, s.left = true, r.Length
	case r.Status == http.StatusSwitchingProtocols && s.extended:
		s.answered, s.raw = true, true
	default:
		c := s.conn
		c.mu.Lock()
		defer c.mu.Unlock()
		defer c.flush()
		return r.Size(), s.fields(s.appendHead, false)
	}
	return r.Size(), nil
}

// appendHead writes the head that was read.
func (s *Stream) appendHead(b []byte) []byte {
	e, r := &s.conn.encoder, &s.response
	if s.raw {
		b = e.status(b, http.StatusOK) // RFC 8441, section 5
	} else {
		b = e.status(b, r.Status)
	}
	return appendFields(b, e, &r.Head, s.raw)
}

func appendFields(b []byte, e *encoder, h *http1.Head, raw bool) []byte {
	for i := range h.Fields() {
		f := &h.Fields()[i]
		if f.Hop || raw && isAccept(h.Name(f)) {
			continue
		}
		b = e.field(b, h.Name(f), h.Value(f))
	}
	return b
}

// isAccept tells whether a field proves that a WebSocket of HTTP/1.1 was meant.
func isAccept(name []byte) bool {
	return len(name) == len("sec-websocket-accept") && http.CanonicalHeaderKey(string(name)) == "Sec-Websocket-Accept"
}

// decode takes the frames of chunks away, and tells whether the body has ended.
func (s *Stream) decode(b []byte) (data []byte, ended bool, err error) {
	switch {
	case s.raw:
		return b, false, nil
	case s.left == http1.Chunked:
		n, _, refused := s.chunks.Decode(b)
		if refused != nil {
			return nil, false, refused
		}
		return b[:n], s.chunks.Done(), nil
	}
	b = b[:min(int64(len(b)), s.left)]
	s.left -= int64(len(b))
	return b, s.left == 0, nil
}

// trail sends the trailers of an answer, which end it. The lock is held.
func (s *Stream) trail() error {
	var h http1.Head
	if refused := s.chunks.Trailers(&h); refused != nil {
		return refused
	}
	return s.fields(func(b []byte) []byte { return appendFields(b, &s.conn.encoder, &h, false) }, true)
}

// CloseWrite ends what is no HTTP.
func (s *Stream) CloseWrite() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	defer s.conn.flush()
	if s.sent {
		return nil
	}
	return s.pour(nil, true)
}
