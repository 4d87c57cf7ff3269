package http3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
	"github.com/fairlead-net/fairlead/servers/gateway/multiplex"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// next begins another stream.
func (r *raw) next() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	s, err := r.OpenStreamSync(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	r.stream = s
}

// TestPriorities: browsers say of each request how urgent it is, as often as they like
// to ask (RFC 9218, section 7.2).
func TestPriorities(t *testing.T) {
	r := dial(t, listen(t, nil, echo))
	said := r.uni(streamControl, frameSettings, 0)
	for n := range 1000 {
		id := quicvarint.Append(nil, uint64(r.stream.StreamID()))
		_, _ = said.Write(frame(0xf0700, append(id, "u=1"...)))
		r.send(frame(frameHeaders, block(get...)))
		if got := r.outcome(); got[:3] != "200" {
			t.Fatalf("request %d: %s", n, got)
		}
		r.next()
	}
}

// TestWhoPays: answers that endpoints break off cost the client nothing; others that
// are not whole do.
func TestWhoPays(t *testing.T) {
	partial := func(s *Stream) {
		_, _ = s.AppendRequest(nil)
		_, _ = io.WriteString(s, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\na")
	}
	for name, c := range map[string]struct {
		answer func(*Stream)
		leaves bool
		ends   bool
	}{
		"the endpoint breaks off": {answer: func(s *Stream) { s.OnGone(func() {}); partial(s); s.End() }},
		"the endpoint breaks off while the request comes": {answer: func(s *Stream) {
			s.OnGone(func() {})
			partial(s)
			s.Abort()
			_, _ = s.Read(make([]byte, 10))
			s.End()
		}},
		"the client leaves": {answer: func(s *Stream) {
			gone := make(chan struct{})
			s.OnGone(func() { close(gone) })
			partial(s)
			<-gone
			s.End()
		}, leaves: true, ends: true},
		"nobody is asked": {answer: func(s *Stream) { s.OnGone(func() {}); s.End() }, ends: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := dial(t, listen(t, nil, c.answer))
			for range 2 * multiplex.MostResets {
				_, _ = r.stream.Write(frame(frameHeaders, block(append(get[2:8:8], ":method", "POST")...)))
				_ = r.stream.SetReadDeadline(time.Now().Add(10 * time.Second))
				if c.leaves {
					_, _ = r.stream.Read(make([]byte, 1))
					r.stream.CancelRead(codeRequestCancelled)
				} else {
					_, _ = io.ReadAll(r.stream)
				}
				r.stream.CancelWrite(codeRequestCancelled)
				var err error
				if r.stream, err = r.OpenStreamSync(r.Context()); err != nil {
					break
				}
			}
			if c.ends { // which the client hears a moment later
				select {
				case <-r.Context().Done():
				case <-time.After(10 * time.Second):
				}
			}
			if ended := r.Context().Err() != nil; ended != c.ends {
				t.Errorf("the connection has ended: %v, %v", ended, context.Cause(r.Context()))
			}
		})
	}
}

// TestIdle: a client that has nothing to ask is told that the connection ends, and which
// of its requests are not served: it may ask elsewhere.
func TestIdle(t *testing.T) {
	socket := listen(t, func(c *Config) { c.Idle, c.Linger = 100*time.Millisecond, 500*time.Millisecond }, echo)
	r := dial(t, socket)
	r.send(frame(frameHeaders, block(get...)))
	if got := r.outcome(); got[:3] != "200" {
		t.Fatal(got)
	}
	in, err := r.AcceptUniStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := appendGoAway(appendSettings([]byte{streamControl}, http1.Usual().Head), 4)
	said := make([]byte, len(want))
	if _, err := io.ReadFull(in, said); err != nil || !bytes.Equal(said, want) {
		t.Errorf("it is told %x, not %x: %v", said, want, err)
	}
	r.next()
	r.send(frame(frameHeaders, block(get...)))
	if got := r.outcome(); got != "reset 0x10b" {
		t.Errorf("who asks late has %s", got)
	}
	socket.Stop()
	var closed *quic.ApplicationError
	if more, err := io.ReadAll(in); len(more) > 0 || !errors.As(err, &closed) || closed.ErrorCode != codeNoError {
		t.Errorf("it is told %x, and then %v", more, err)
	}
}
