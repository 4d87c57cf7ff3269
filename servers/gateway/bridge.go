package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// bridge are the connections to an endpoint of HTTP/2, by the standard library. For
// the rest of the server each request to it is one of HTTP/1.1, by a connection of
// its own that exists in memory only: what is written there is what was decided on,
// to the byte, and all that is said of answers, deadlines and uploads holds.
type bridge struct {
	transport *http.Transport
	scheme    string

	mu      sync.Mutex
	conns   []*carrier
	dialing *dialing // nil: nobody makes a connection
}

// carrier is a connection to an endpoint of HTTP/2.
type carrier struct {
	*http.ClientConn
	idle int64 // since when it was seen to carry nothing; 0: it carries something
}

// dialing is a connection that is being made. Who needs one meanwhile waits for it:
// it carries many requests.
type dialing struct {
	done chan struct{}
	err  error
}

// pingTimeout is how long an endpoint of HTTP/2 may be silent until it is asked
// whether it is there, and how long its answer may take.
const pingTimeout = 15 * time.Second

// newBridge is that of an endpoint.
func newBridge(p *endpoint) *bridge {
	b := &bridge{scheme: "http"}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	b.transport = &http.Transport{
		Protocols: protocols, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return p.connect(ctx, 0) },
		HTTP2:       &http.HTTP2Config{SendPingTimeout: pingTimeout, PingTimeout: pingTimeout},
	}
	if p.tls != nil {
		protocols.SetHTTP2(true)
		protocols.SetUnencryptedHTTP2(false)
		b.scheme, b.transport.TLSClientConfig = "https", p.tls.Clone()
		b.transport.TLSClientConfig.NextProtos = []string{"h2"}
	}
	return b
}

// take returns a connection that has room for one more request, which is reserved.
func (b *bridge) take(ctx context.Context, p *endpoint, timeout time.Duration) (*http.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		b.mu.Lock()
		conn := b.reserve()
		awaited := b.dialing
		if conn == nil && awaited == nil {
			b.dialing = &dialing{done: make(chan struct{})}
		}
		b.mu.Unlock()
		switch {
		case conn != nil:
			return conn, nil
		case awaited == nil:
			return b.dial(ctx, p)
		}
		select {
		case <-awaited.done:
			if awaited.err != nil {
				return nil, awaited.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// reserve finds room on a connection that there is. The first ones are filled first,
// so that the others fall idle. The caller holds the lock.
func (b *bridge) reserve() (chosen *http.ClientConn) {
	b.keep(func(conn *carrier) bool {
		if conn.Err() != nil {
			return false
		}
		if chosen == nil && conn.Available() > 0 && conn.Reserve() == nil {
			chosen, conn.idle = conn.ClientConn, 0
		}
		return true
	})
	return chosen
}

// keep closes the connections that are not to stay. The caller holds the lock.
func (b *bridge) keep(stays func(*carrier) bool) {
	kept := b.conns[:0]
	for _, conn := range b.conns {
		if stays(conn) {
			kept = append(kept, conn)
		} else {
			_ = conn.Close()
		}
	}
	clear(b.conns[len(kept):])
	b.conns = kept
}

// dial makes a connection, and tells those that wait for it.
func (b *bridge) dial(ctx context.Context, p *endpoint) (*http.ClientConn, error) {
	conn, err := b.transport.NewClientConn(ctx, b.scheme, p.authority())
	if err == nil {
		if err = conn.Reserve(); err != nil {
			_ = conn.Close()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dialing.err = err
	close(b.dialing.done)
	b.dialing = nil
	if err != nil {
		return nil, err
	}
	b.conns = append(b.conns, &carrier{ClientConn: conn})
	return conn, nil
}

// expire closes the connections that have carried nothing for some time; 0: all of
// them, whatever they carry. It tells how many are left.
func (b *bridge) expire(now, idle int64) (left int) {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keep(func(conn *carrier) bool {
		switch {
		case idle == 0 || conn.Err() != nil:
			return false
		case conn.InFlight() > 0:
			conn.idle = 0
		case conn.idle == 0:
			conn.idle = now
		default:
			return now-conn.idle <= idle
		}
		return true
	})
	return len(b.conns)
}

// call makes a connection for one request to an endpoint of HTTP/2.
func (s *Server) call(p *endpoint, core int, timeout time.Duration) (*upstream, error) {
	conn, err := p.bridge.take(s.context, p, timeout)
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(s.context)
	sock := &sock{far: near, clock: &s.watch.clock, pipes: &s.watch.pipes, closed: cancel}
	s.watch.add(sock)
	s.running.Go(func() {
		defer cancel()
		defer far.Close()
		carry(ctx, conn, p, far)
	})
	return &upstream{sock: sock, endpoint: p, core: core}, nil
}

// carry reads a request of HTTP/1.1, sends it by HTTP/2, and writes down what is
// answered. Without an answer it writes nothing.
func carry(ctx context.Context, conn *http.ClientConn, p *endpoint, wire io.ReadWriter) {
	r, err := http.ReadRequest(bufio.NewReaderSize(wire, bufferSize))
	if err != nil {
		conn.Release()
		return
	}
	path, query, asked := strings.Cut(r.RequestURI, "?")
	r.URL = &url.URL{Scheme: p.bridge.scheme, Host: p.authority(), Opaque: path, RawQuery: query, ForceQuery: asked} // as it is written
	r.RequestURI = ""
	r.Header.Set("Te", "trailers") // without which servers of gRPC answer nothing
	if len(r.Header["User-Agent"]) == 0 {
		r.Header["User-Agent"] = []string{""} // none
	}
	response, err := conn.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return
	}
	defer response.Body.Close()
	toHEAD := r.Method == http.MethodHead
	head, chunked := appendResponse(nil, response, toHEAD)
	if _, err := wire.Write(head); err != nil || toHEAD {
		return
	}
	out := newBuffer()
	defer out.free()
	in := newBuffer()
	defer in.free()
	for {
		n, err := response.Body.Read(in.b[:bufferSize-http1.ChunkRoom])
		piece := in.b[:n]
		if chunked {
			piece = http1.AppendChunk(out.b[:0], piece)
		}
		if len(piece) > 0 {
			if _, err := wire.Write(piece); err != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) && chunked {
			_, _ = wire.Write(appendTrailers([]byte("0\r\n"), response.Trailer))
		}
		if err != nil {
			return
		}
	}
}

// appendResponse writes down the head of an answer, and tells whether its body is to
// come in chunks: whenever trailers may follow it.
func appendResponse(b []byte, r *http.Response, toHEAD bool) (head []byte, chunked bool) {
	b = appendStatus(b, r.StatusCode, []byte(http.StatusText(r.StatusCode)))
	for name, values := range r.Header {
		if name == "Content-Length" {
			continue
		}
		for _, value := range values {
			b = appendField(b, name, value)
		}
	}
	empty := r.Body == http.NoBody || r.ContentLength == 0 && len(r.Trailer) == 0
	switch {
	case r.StatusCode == http.StatusNoContent || r.StatusCode == http.StatusNotModified:
	case toHEAD && r.ContentLength < 0:
	case toHEAD || empty:
		b = appendField(b, "Content-Length", strconv.FormatInt(max(r.ContentLength, 0), 10))
	default:
		chunked = true
		b = appendField(b, "Transfer-Encoding", "chunked")
	}
	return append(b, "Connection: close\r\n\r\n"...), chunked
}

func appendTrailers(b []byte, trailers http.Header) []byte {
	for name, values := range trailers {
		for _, value := range values {
			b = appendField(b, name, value)
		}
	}
	return append(b, "\r\n"...)
}
