package gateway

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// Mirror is where copies of requests go. What is answered is nobody's business, and
// no request waits for its copy: where too many are under way, or a body is too long,
// there is none.
type Mirror struct {
	To     func(into []byte, r *Request) []byte // a URL
	Host   string                               // that it is told; empty: that of the URL
	NoBody bool
}

// Bounds of copies.
const (
	maxMirrors = 256       // under way at once
	mirrorBody = 256 << 10 // bytes of one body
	mirrorTime = 10 * time.Second
)

// mirrors sends copies.
type mirrors struct {
	client *http.Client
	room   chan struct{}
}

func newMirrors(refuses func(ctx context.Context, network, address string, conn syscall.RawConn) error) mirrors {
	return mirrors{room: make(chan struct{}, maxMirrors), client: &http.Client{
		Timeout:       mirrorTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: (&net.Dialer{ControlContext: refuses}).DialContext, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, DisableCompression: true},
	}}
}

// copied is a request that is to be sent once all of its body is there.
type copied struct {
	request *http.Request // nil: it is too long
	body    []byte
}

// mirror makes a copy of a request, and sends it as soon as its body is there.
func (c *client) mirror(m *Mirror) {
	if len(c.server.mirrors.room) == maxMirrors {
		return
	}
	request, err := http.NewRequest(string(c.request.Method), string(m.To(nil, &c.ask)), http.NoBody)
	if err != nil { // a client's bytes made it one that is none
		return
	}
	for i := range c.request.Fields() {
		if f := &c.request.Fields()[i]; f.Known == http1.Other && !f.Hop && !f.Underscore {
			request.Header.Add(string(c.request.Name(f)), string(c.request.Value(f)))
		}
	}
	request.Host = m.Host
	copied := &copied{request: request}
	switch {
	case m.NoBody:
		copied.send(c.server)
	case c.upload.whole:
		copied.add(c.upload.have)
		copied.send(c.server)
	case c.upload.length <= mirrorBody:
		copied.add(c.upload.have)
		c.upload.copied = copied
	}
}

// add takes a piece of the body.
func (m *copied) add(piece []byte) {
	if m == nil || m.request == nil {
		return
	}
	if m.body = append(m.body, piece...); len(m.body) > mirrorBody {
		m.request, m.body = nil, nil
	}
}

// send sends it, unless too many are under way.
func (m *copied) send(s *Server) {
	if m == nil || m.request == nil {
		return
	}
	select {
	case s.mirrors.room <- struct{}{}:
	default:
		return
	}
	s.running.Go(func() {
		defer func() { <-s.mirrors.room }()
		ctx, cancel := context.WithTimeout(s.context, mirrorTime)
		defer cancel()
		request := m.request.WithContext(ctx)
		if len(m.body) > 0 {
			request.Body, request.ContentLength = io.NopCloser(bytes.NewReader(m.body)), int64(len(m.body))
		}
		response, err := s.mirrors.client.Do(request)
		if err != nil {
			return // it is a copy
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, mirrorBody)) // so that the connection is kept
		_ = response.Body.Close()
	})
}
