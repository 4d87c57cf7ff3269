package http2

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// echo answers with what was asked for.
func echo(s *Stream) {
	text, tooLong := s.AppendRequest(nil)
	if tooLong {
		_, _ = io.WriteString(writer{s}, "HTTP/1.1 431 Too Long\r\nContent-Length: 0\r\n\r\n")
		return
	}
	if !s.whole {
		body, err := io.ReadAll(s)
		if err != nil {
			return
		}
		text = append(text, body...)
	}
	_, _ = fmt.Fprintf(writer{s}, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nServer: test\r\n\r\n%s", len(text), text)
}

// writer gives a stream all that is written at once.
type writer struct{ s *Stream }

func (w writer) Write(b []byte) (int, error) { return w.s.Write(bytes.Clone(b)) }

// served is a connection that is served.
type served struct {
	*Conn
	ended chan error
	mu    sync.Mutex
	began int
	most  int // streams at once
	now   int
}

// listen serves connections on loopback.
func listen(t testing.TB, edit func(*Config), answer func(*Stream)) (at string, conns chan *served) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns = make(chan *served, 16)
	var serving sync.WaitGroup
	ended := make(chan struct{})
	t.Cleanup(func() { _ = listener.Close(); close(ended); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s := newServed(conn, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }, edit, answer)
			conns <- s
			go func() {
				<-ended
				_ = conn.Close()
			}()
			serving.Go(func() {
				s.ended <- s.Serve()
				_ = conn.(*net.TCPConn).CloseWrite()
				_ = conn.SetReadDeadline(time.Now().Add(time.Second))
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			})
		}
	})
	return listener.Addr().String(), conns
}

func newServed(wire io.ReadWriter, stop func(), edit func(*Config), answer func(*Stream)) *served {
	s := &served{ended: make(chan error, 1)}
	began := time.Now()
	config := Config{
		Limits: http1.Usual(), Streams: 100, Patience: 5 * time.Second,
		Now:  func() int64 { return int64(time.Since(began)) },
		Hold: func(int) bool { return true },
		Wait: func(Waiting) {}, Idle: func() {}, Stop: stop,
		Start: func(stream *Stream) {
			s.mu.Lock()
			s.began++
			s.now++
			s.most = max(s.most, s.now)
			s.mu.Unlock()
			go func() {
				answer(stream)
				s.mu.Lock()
				s.now--
				s.mu.Unlock()
				stream.End()
			}()
		},
	}
	if edit != nil {
		edit(&config)
	}
	s.Conn = New(wire, config)
	return s
}

// raw is a client that may break rules.
type raw struct {
	*http2.Framer
	conn   net.Conn
	t      testing.TB
	block  bytes.Buffer
	hpack  *hpack.Encoder
	served *served
}

// dial begins a connection.
func dial(t testing.TB, edit func(*Config), answer func(*Stream), settings ...http2.Setting) *raw {
	t.Helper()
	at, conns := listen(t, edit, answer)
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	r := &raw{Framer: http2.NewFramer(conn, conn), conn: conn, t: t, served: <-conns}
	r.AllowIllegalWrites = true
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.hpack = hpack.NewEncoder(&r.block)
	_, _ = io.WriteString(conn, preface)
	_ = r.WriteSettings(settings...)
	return r
}

// fields encodes some, "name: value" each.
func (r *raw) fields(fields ...string) []byte {
	r.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = r.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(r.block.Bytes())
}

var get = []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"}

// ask begins a stream.
func (r *raw) ask(id uint32, end bool, fields ...string) {
	if fields == nil {
		fields = get
	}
	b := r.fields(fields...)
	n := min(len(b), maxFrame)
	_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b[:n], EndStream: end, EndHeaders: n == len(b)})
	for b = b[n:]; len(b) > 0; b = b[n:] {
		n = min(len(b), maxFrame)
		_ = r.WriteContinuation(id, n == len(b), b[:n])
	}
}

// outcome is the first thing of note that the server says.
func (r *raw) outcome() string {
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			return fmt.Sprintf("GOAWAY %v", f.ErrCode)
		case *http2.RSTStreamFrame:
			return fmt.Sprintf("RST %d %v", f.StreamID, f.ErrCode)
		case *http2.MetaHeadersFrame:
			return fmt.Sprintf("%d %s", f.StreamID, f.PseudoValue("status"))
		}
	}
}

// answer reads that of a stream, and returns what came first of: its body, a reset,
// GOAWAY.
func (r *raw) answer(id uint32) (status, body string) {
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return status, "closed: " + err.Error()
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return status, fmt.Sprintf("GOAWAY %v", f.ErrCode)
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return status, fmt.Sprintf("RST %v", f.ErrCode)
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == id {
				if status = f.PseudoValue("status"); f.StreamEnded() {
					return status, body
				}
			}
		case *http2.DataFrame:
			if f.StreamID == id {
				if body += string(f.Data()); f.StreamEnded() {
					return status, body
				}
			}
		}
	}
}

// until reads until the server ends the connection, and tells with what word.
func (r *raw) until() (code string) {
	code = "nothing"
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return code
		}
		if g, ok := f.(*http2.GoAwayFrame); ok && g.ErrCode != http2.ErrCodeNo {
			code = g.ErrCode.String()
		}
	}
}
