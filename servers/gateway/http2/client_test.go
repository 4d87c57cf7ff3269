package http2

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// library is the client of golang.org/x/net, without TLS.
func library(t *testing.T) *http2.Transport {
	transport := &http2.Transport{AllowHTTP: true, DisableCompression: true, DialTLSContext: func(_ context.Context, network, at string, _ *tls.Config) (net.Conn, error) {
		return net.Dial(network, at)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// mirror sends a body back as it comes, in chunks or with its length, and its
// trailers.
func mirror(s *Stream) {
	text, _ := s.AppendRequest(nil)
	w := writer{s}
	head, rest, _ := strings.Cut(string(text), "\r\n\r\n")
	s.Asks(strings.HasPrefix(head, "HEAD "))
	switch {
	case strings.Contains(head, "/early"):
		_, _ = io.WriteString(w, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		return
	case strings.Contains(head, "/cut"):
		_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno")
		return
	case strings.Contains(head, "/hints"):
		_, _ = io.WriteString(w, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
	}
	if strings.Contains(strings.ToLower(head), "expect: 100-continue") {
		_, _ = io.WriteString(w, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	if s.whole {
		_, _ = fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(rest), rest)
		return
	}
	chunked := strings.Contains(head, "chunked")
	if chunked {
		_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
	} else {
		_, length, _ := strings.Cut(head, "Content-Length: ")
		_, _ = fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n", length)
	}
	buffer := make([]byte, 10_000)
	for {
		n, err := s.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// TestLibrary: bodies of all sizes go both ways at once, on one connection.
func TestLibrary(t *testing.T) {
	at, conns := listen(t, nil, mirror)
	transport := library(t)
	var asking sync.WaitGroup
	for i, size := range []int{0, 1, 100, smallBody, smallBody + 1, maxFrame, 70_000, streamWindow, 3 << 20, 1, 100, 3 << 20} {
		for _, known := range []bool{true, false} {
			asking.Go(func() {
				body := bytes.Repeat([]byte{byte('a' + i)}, size)
				r, _ := http.NewRequest("POST", "http://"+at+"/", bytes.NewReader(body))
				if !known {
					r.Body, r.ContentLength, r.Trailer = io.NopCloser(bytes.NewReader(body)), -1, http.Header{"X-Sum": {"1"}}
				}
				response, err := transport.RoundTrip(r)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(response.Body)
				if err != nil || !bytes.Equal(got, body) || !known && response.Trailer.Get("X-Sum") != "1" {
					t.Errorf("%d bytes of %d, trailers %v, %v", len(got), len(body), response.Trailer, err)
				}
			})
		}
	}
	asking.Wait()
	if n := len(conns); n != 1 {
		t.Errorf("%d connections", n)
	}
	conn := <-conns
	for range 100 {
		conn.Conn.mu.Lock()
		left := len(conn.streams)
		conn.Conn.mu.Unlock()
		if left == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	conn.Conn.mu.Lock()
	defer conn.Conn.mu.Unlock()
	if conn.open != 0 || len(conn.streams) != 0 || conn.promised != 0 || len(conn.queue) != 0 || conn.credit+conn.consumed != connectionWindow {
		t.Errorf("left: %d open, %d streams, %d promised, %d in the queue, %d+%d of the window", conn.open, len(conn.streams), conn.promised, len(conn.queue), conn.credit, conn.consumed)
	}
}

// TestAnswers: those that are no usual ones.
func TestAnswers(t *testing.T) {
	at, _ := listen(t, nil, mirror)
	transport := library(t)
	var hints, goOn int
	trace := &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { hints++; return nil },
		Got100Continue: func() { goOn++ },
	}
	ask := func(method, path, body string, expects bool) (*http.Response, string, error) {
		r, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), method, "http://"+at+path, nil)
		if body != "" {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		}
		if expects {
			r.Header.Set("Expect", "100-continue")
		}
		response, err := transport.RoundTrip(r)
		if err != nil {
			return nil, "", err
		}
		got, err := io.ReadAll(response.Body)
		return response, string(got), err
	}
	if r, body, err := ask("HEAD", "/", "", false); err != nil || r.StatusCode != 200 || body != "" {
		t.Errorf("HEAD: %v %q %v", r, body, err)
	}
	if _, body, err := ask("GET", "/hints", "", false); err != nil || body != "" || hints == 0 {
		t.Errorf("hints: %q %v %d", body, err, hints)
	}
	if _, body, err := ask("POST", "/", strings.Repeat("x", 20_000), true); err != nil || len(body) != 20_000 || goOn != 1 {
		t.Errorf("100: %d %v %d", len(body), err, goOn)
	}
	if r, body, err := ask("POST", "/early", strings.Repeat("x", 5<<20), false); err != nil || r.StatusCode != 403 || body != "no" {
		t.Errorf("an early answer: %v %q %v", r, body, err)
	}
	if _, _, err := ask("GET", "/cut", "", false); err == nil {
		t.Error("an answer that was cut off is taken for whole")
	}
	if _, body, err := ask("POST", "/", "y", false); err != nil || body != "y" {
		t.Errorf("then: %q %v", body, err)
	}
}

// TestDrain: what is under way finishes, what comes until the client knows is
// answered, and then the connection ends.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	r := dial(t, nil, func(s *Stream) { <-release; echo(s) })
	r.ask(1, true)
	_ = r.WritePing(false, [8]byte{1})
	next := func(kind http2.FrameType) http2.Frame {
		t.Helper()
		for {
			f, err := r.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if f.Header().Type == kind {
				return f
			}
		}
	}
	next(http2.FramePing)
	r.served.Drain()
	if f := next(http2.FrameGoAway).(*http2.GoAwayFrame); f.LastStreamID != maxWindow || f.ErrCode != http2.ErrCodeNo {
		t.Errorf("first %v", f)
	}
	r.ask(3, true) // which was on its way
	mark := next(http2.FramePing).(*http2.PingFrame)
	_ = r.WritePing(true, mark.Data)
	if f := next(http2.FrameGoAway).(*http2.GoAwayFrame); f.LastStreamID != 3 || f.ErrCode != http2.ErrCodeNo {
		t.Errorf("then %v", f)
	}
	r.ask(5, false)
	_ = r.WriteData(5, true, []byte("x"))
	close(release)
	answered := map[uint32]bool{}
	for {
		f, err := r.ReadFrame()
		if err != nil {
			break
		}
		if f, ok := f.(*http2.DataFrame); ok && f.StreamEnded() {
			answered[f.StreamID] = true
		}
	}
	if !answered[1] || !answered[3] || answered[5] {
		t.Errorf("answered: %v", answered)
	}
}

// TestLeave: a client that says nothing does not keep a connection that drains.
func TestLeave(t *testing.T) {
	r := dial(t, nil, echo)
	r.ask(1, true)
	if status, _ := r.answer(1); status != "200" {
		t.Fatal(status)
	}
	r.served.Drain()
	r.served.Leave()
	if code := r.until(); code != "nothing" {
		t.Error(code)
	}
}

// TestGone: who serves a stream hears that its client is gone.
func TestGone(t *testing.T) {
	for name, leave := range map[string]func(*raw){
		"a reset":     func(r *raw) { _ = r.WriteRSTStream(1, http2.ErrCodeCancel) },
		"an end":      func(r *raw) { _ = r.conn.Close() },
		"a bad frame": func(r *raw) { _ = r.WriteData(0, false, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			heard, read := make(chan struct{}), make(chan error, 1)
			r := dial(t, nil, func(s *Stream) {
				_, _ = s.AppendRequest(nil)
				s.OnGone(func() { close(heard) })
				_, err := s.Read(make([]byte, 100))
				read <- err
			})
			r.ask(1, false)
			leave(r)
			select {
			case <-heard:
			case <-time.After(5 * time.Second):
				t.Fatal("it hears nothing")
			}
			if err := <-read; err == nil || err == io.EOF {
				t.Errorf("its body ends with %v", err)
			}
		})
	}
}

// TestTunnel: a WebSocket is a stream of bytes both ways, whose ends are ends of it.
func TestTunnel(t *testing.T) {
	r := dial(t, nil, func(s *Stream) {
		_, _ = s.AppendRequest(nil)
		_, _ = io.WriteString(writer{s}, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n")
		b := make([]byte, 100)
		for {
			n, err := s.Read(b)
			if err != nil {
				break
			}
			_, _ = writer{s}.Write(b[:n])
		}
		_, _ = io.WriteString(writer{s}, "bye")
		_ = s.CloseWrite()
	})
	r.ask(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/")
	f, err := r.ReadFrame()
	for err == nil && f.Header().Type != http2.FrameHeaders {
		f, err = r.ReadFrame()
	}
	head, ok := f.(*http2.MetaHeadersFrame)
	if !ok || head.PseudoValue("status") != "200" || len(head.RegularFields()) != 1 || head.StreamEnded() {
		t.Fatalf("%v %v", f, err)
	}
	_ = r.WriteData(1, false, []byte("hello "))
	_ = r.WriteData(1, true, []byte("you "))
	if _, body := r.answer(1); body != "hello you bye" {
		t.Errorf("%q", body)
	}
}
