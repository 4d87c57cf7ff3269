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

	mu    sync.Mutex
	conns []*http.ClientConn
}

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
	b.mu.Lock()
	live := b.conns[:0]
	var chosen *http.ClientConn
	for _, conn := range b.conns {
		if conn.Err() != nil {
			_ = conn.Close()
			continue
		}
		live = append(live, conn)
		if chosen == nil && conn.Available() > 0 && conn.Reserve() == nil {
			chosen = conn
		}
	}
	clear(b.conns[len(live):])
	b.conns = live
	b.mu.Unlock()
	if chosen != nil {
		return chosen, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := b.transport.NewClientConn(ctx, b.scheme, p.authority())
	if err != nil {
		return nil, err
	}
	if err := conn.Reserve(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	b.mu.Lock()
	b.conns = append(b.conns, conn)
	b.mu.Unlock()
	return conn, nil
}

// expire closes the connections that nobody uses; all: whoever uses them.
func (b *bridge) expire(all bool) (left int) {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := b.conns[:0]
	for _, conn := range b.conns {
		if all || conn.Err() != nil || conn.InFlight() == 0 {
			_ = conn.Close()
		} else {
			kept = append(kept, conn)
		}
	}
	clear(b.conns[len(kept):])
	b.conns = kept
	return len(kept)
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
