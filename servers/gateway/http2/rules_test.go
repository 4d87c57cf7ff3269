package http2

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestRules: what a client may not do is answered as RFC 9113 says, and what it may
// is served.
func TestRules(t *testing.T) {
	with := func(fields ...string) []string { return append(append([]string{}, get...), fields...) }
	asks := func(fields ...string) func(*raw) { return func(r *raw) { r.ask(1, true, fields...) } }
	bodied := func(fields []string, bodies ...string) func(*raw) {
		return func(r *raw) {
			r.ask(1, false, fields...)
			for i, body := range bodies {
				_ = r.WriteData(1, i == len(bodies)-1, []byte(body))
			}
		}
	}
	window := func(stream, n uint32) func(*raw) {
		return func(r *raw) { r.ask(1, false); _ = r.WriteWindowUpdate(stream, n) }
	}
	rawFrame := func(kind http2.FrameType, flags http2.Flags, stream uint32, payload ...byte) func(*raw) {
		return func(r *raw) { _ = r.WriteRawFrame(kind, flags, stream, payload) }
	}
	for _, c := range []struct {
		name string
		do   func(*raw)
		want string
	}{
		{"a request", asks(get...), "1 200"},
		{"a request with a body", bodied(get, "a", "b"), "1 200"},
		{"a length that is right", bodied(with("content-length", "2"), "a", "b"), "1 200"},
		{"padding and priority", func(r *raw) {
			_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.fields(get...), EndHeaders: true, PadLength: 7, Priority: http2.PriorityParam{StreamDep: 3, Weight: 1}})
			_ = r.WriteDataPadded(1, true, []byte("x"), make([]byte, 9))
		}, "1 200"},
		{"a head in pieces", func(r *raw) {
			b := r.fields(with("a", "b")...)
			_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:3], EndStream: true})
			_ = r.WriteContinuation(1, false, b[3:5])
			_ = r.WriteContinuation(1, true, b[5:])
		}, "1 200"},
		{"a kind of frame that nobody knows", func(r *raw) { _ = r.WriteRawFrame(77, 0xff, 9, []byte("abc")); r.ask(1, true) }, "1 200"},
		{"a setting that nobody knows", func(r *raw) { _ = r.WriteSettings(http2.Setting{ID: 99, Val: 7}); r.ask(1, true) }, "1 200"},
		{"trailers", func(r *raw) { r.ask(1, false); _ = r.WriteData(1, false, []byte("x")); r.ask(1, true, "a", "b") }, "1 200"},

		{"capital letters", asks(with("A", "b")...), "RST 1 PROTOCOL_ERROR"},
		{"a name with a colon", asks(with("a:b", "c")...), "RST 1 PROTOCOL_ERROR"},
		{"a name with a space", asks(with("a b", "c")...), "RST 1 PROTOCOL_ERROR"},
		{"a name with a line break", asks(with("a\r\nb", "c")...), "RST 1 PROTOCOL_ERROR"},
		{"no name", asks(with("", "c")...), "RST 1 PROTOCOL_ERROR"},
		{"CR LF in a value", asks(with("a", "b\r\nc: d")...), "RST 1 PROTOCOL_ERROR"},
		{"CR in a value", asks(with("a", "b\rc")...), "RST 1 PROTOCOL_ERROR"},
		{"LF in a value", asks(with("a", "b\nc")...), "RST 1 PROTOCOL_ERROR"},
		{"NUL in a value", asks(with("a", "b\x00")...), "RST 1 PROTOCOL_ERROR"},
		{"Connection", asks(with("connection", "close")...), "RST 1 PROTOCOL_ERROR"},
		{"Transfer-Encoding", asks(with("transfer-encoding", "chunked")...), "RST 1 PROTOCOL_ERROR"},
		{"Upgrade", asks(with("upgrade", "websocket")...), "RST 1 PROTOCOL_ERROR"},
		{"Keep-Alive", asks(with("keep-alive", "1")...), "RST 1 PROTOCOL_ERROR"},
		{"Proxy-Connection", asks(with("proxy-connection", "x")...), "RST 1 PROTOCOL_ERROR"},
		{"TE", asks(with("te", "gzip")...), "RST 1 PROTOCOL_ERROR"},
		{"TE: trailers", asks(with("te", "trailers")...), "1 200"},
		{"another Host", asks(with("host", "b")...), "RST 1 PROTOCOL_ERROR"},
		{"the same Host", asks(with("host", "A")...), "1 200"},
		{"two Hosts", asks(with("host", "a", "host", "a")...), "RST 1 PROTOCOL_ERROR"},
		{"no method", asks(get[2:]...), "RST 1 PROTOCOL_ERROR"},
		{"no scheme", asks(":method", "GET", ":authority", "a", ":path", "/"), "RST 1 PROTOCOL_ERROR"},
		{"no path", asks(get[:6]...), "RST 1 PROTOCOL_ERROR"},
		{"an empty path", asks(append(get[:6:6], ":path", "")...), "RST 1 PROTOCOL_ERROR"},
		{"a URL for a path", asks(append(get[:6:6], ":path", "http://b/")...), "RST 1 PROTOCOL_ERROR"},
		{"a path with a space", asks(append(get[:6:6], ":path", "/ HTTP/1.1")...), "RST 1 PROTOCOL_ERROR"},
		{"a path with a line break", asks(append(get[:6:6], ":path", "/\r\nA:b")...), "RST 1 PROTOCOL_ERROR"},
		{"a method with a line break", asks(append([]string{":method", "GET /\r\n"}, get[2:]...)...), "RST 1 PROTOCOL_ERROR"},
		{"a scheme of nobody", asks(append([]string{":method", "GET", ":scheme", "ftp"}, get[4:]...)...), "RST 1 PROTOCOL_ERROR"},
		{"two methods", asks(append([]string{":method", "GET"}, get...)...), "RST 1 PROTOCOL_ERROR"},
		{"a pseudo-header of answers", asks(append([]string{":status", "200"}, get...)...), "RST 1 PROTOCOL_ERROR"},
		{"a pseudo-header after a field", asks(":method", "GET", ":scheme", "https", ":path", "/", "a", "b", ":authority", "a"), "RST 1 PROTOCOL_ERROR"},
		{"CONNECT with a path", asks(append([]string{":method", "CONNECT"}, get[2:]...)...), "RST 1 PROTOCOL_ERROR"},
		{"a protocol without CONNECT", asks(append([]string{":protocol", "websocket"}, get...)...), "RST 1 PROTOCOL_ERROR"},
		{"lengths that differ", asks(with("content-length", "0", "content-length", "1")...), "RST 1 PROTOCOL_ERROR"},
		{"a list of lengths", asks(with("content-length", "0, 0")...), "RST 1 PROTOCOL_ERROR"},
		{"a length and no body", asks(with("content-length", "1")...), "RST 1 PROTOCOL_ERROR"},
		{"a longer body", bodied(with("content-length", "1"), "ab"), "RST 1 PROTOCOL_ERROR"},
		{"a shorter body", bodied(with("content-length", "3"), "ab"), "RST 1 PROTOCOL_ERROR"},
		{"pseudo-headers in trailers", func(r *raw) { r.ask(1, false); r.ask(1, true, get...) }, "RST 1 PROTOCOL_ERROR"},
		{"trailers that are not the end", func(r *raw) { r.ask(1, false); r.ask(1, false, "a", "b") }, "RST 1 PROTOCOL_ERROR"},
		{"a long head", asks(with("a", strings.Repeat("x", 60_000))...), "1 431"},
		{"a very long head", func(r *raw) {
			r.hpack.SetMaxDynamicTableSize(0)
			for i := 0; i < 20; i++ {
				if i == 0 {
					_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.fields("a", strings.Repeat("~", 5_000))})
				}
				_ = r.WriteContinuation(1, false, r.fields("a", strings.Repeat("~", 5_000)))
			}
		}, "GOAWAY ENHANCE_YOUR_CALM"},

		{"no preface", func(r *raw) { _ = r.conn.Close() }, "closed"},
		{"an even stream", func(r *raw) { r.ask(2, true) }, "GOAWAY PROTOCOL_ERROR"},
		{"stream 0", func(r *raw) { r.ask(0, true) }, "GOAWAY PROTOCOL_ERROR"},
		{"a stream before another one", func(r *raw) { r.ask(5, false); r.ask(3, true) }, "GOAWAY STREAM_CLOSED"},
		{"a head after the end", func(r *raw) { r.ask(1, true); r.ask(1, true) }, "GOAWAY STREAM_CLOSED"},
		{"a body of a stream that never began", func(r *raw) { _ = r.WriteData(1, true, nil) }, "GOAWAY PROTOCOL_ERROR"},
		{"a reset of a stream that never began", func(r *raw) { _ = r.WriteRSTStream(1, http2.ErrCodeCancel) }, "GOAWAY PROTOCOL_ERROR"},
		{"a window of a stream that never began", func(r *raw) { _ = r.WriteWindowUpdate(1, 1) }, "GOAWAY PROTOCOL_ERROR"},
		{"CONTINUATION of nothing", func(r *raw) { _ = r.WriteContinuation(1, true, nil) }, "GOAWAY PROTOCOL_ERROR"},
		{"a head that is interrupted", func(r *raw) {
			_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.fields(get...)})
			_ = r.WritePing(false, [8]byte{})
		}, "GOAWAY PROTOCOL_ERROR"},
		{"PUSH_PROMISE", rawFrame(http2.FramePushPromise, 0, 1, 0, 0, 0, 2), "GOAWAY PROTOCOL_ERROR"},
		{"a long frame", rawFrame(http2.FrameData, 0, 1, make([]byte, maxFrame+1)...), "GOAWAY FRAME_SIZE_ERROR"},
		{"a PING of 7 bytes", rawFrame(http2.FramePing, 0, 0, 1, 2, 3, 4, 5, 6, 7), "GOAWAY FRAME_SIZE_ERROR"},
		{"a PING of a stream", rawFrame(http2.FramePing, 0, 1, make([]byte, 8)...), "GOAWAY PROTOCOL_ERROR"},
		{"SETTINGS of 5 bytes", rawFrame(http2.FrameSettings, 0, 0, 1, 2, 3, 4, 5), "GOAWAY FRAME_SIZE_ERROR"},
		{"SETTINGS of a stream", rawFrame(http2.FrameSettings, 0, 1), "GOAWAY PROTOCOL_ERROR"},
		{"an answer to SETTINGS with some", rawFrame(http2.FrameSettings, 1, 0, 0, 1, 0, 0, 0, 0), "GOAWAY FRAME_SIZE_ERROR"},
		{"a push that is neither on nor off", func(r *raw) { _ = r.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 2}) }, "GOAWAY PROTOCOL_ERROR"},
		{"a first window that is too large", func(r *raw) { _ = r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}) }, "GOAWAY FLOW_CONTROL_ERROR"},
		{"frames that are too small", func(r *raw) { _ = r.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 100}) }, "GOAWAY PROTOCOL_ERROR"},
		{"padding that is all and more", rawFrame(http2.FrameHeaders, flagPadded|flagEndHeaders, 1, 9, 0), "GOAWAY PROTOCOL_ERROR"},
		{"HPACK of an index that is none", rawFrame(http2.FrameHeaders, flagEndStream|flagEndHeaders, 1, 0xff, 0xff, 0x7f), "GOAWAY COMPRESSION_ERROR"},
		{"HPACK that ends early", rawFrame(http2.FrameHeaders, flagEndStream|flagEndHeaders, 1, 0x40, 0x0a, 'a'), "GOAWAY COMPRESSION_ERROR"},
		{"a stream's window that overflows", window(1, 1<<31-1), "RST 1 FLOW_CONTROL_ERROR"},
		{"the connection's window that overflows", window(0, 1<<31-1), "GOAWAY FLOW_CONTROL_ERROR"},
		{"a stream's window that grows by 0", window(1, 0), "RST 1 PROTOCOL_ERROR"},
		{"the connection's window that grows by 0", window(0, 0), "GOAWAY PROTOCOL_ERROR"},
		{"PRIORITY of another size", rawFrame(http2.FramePriority, 0, 1, 1), "RST 1 FRAME_SIZE_ERROR"},
		{"GOAWAY", rawFrame(http2.FrameGoAway, 0, 3, make([]byte, 8)...), "GOAWAY PROTOCOL_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := dial(t, nil, echo)
			c.do(r)
			if got := r.outcome(); got != c.want {
				t.Errorf("%s, not %s", got, c.want)
			}
		})
	}
}

// TestText: a request reads in HTTP/1.1 as it was asked.
func TestText(t *testing.T) {
	for _, c := range []struct {
		name   string
		fields []string
		body   string
		want   string
	}{
		{"no body", append(get[:8:8], "cookie", "a=b", "x", " y ", "cookie", "c=d"), "", "GET / HTTP/1.1\nHost: a\nx:  y \nCookie: a=b; c=d\n\n"},
		{"Host only", []string{":method", "GET", ":scheme", "https", ":path", "/x?y", "host", "b"}, "", "GET /x?y HTTP/1.1\nHost: b\n\n"},
		{"no Host", []string{":method", "GET", ":scheme", "https", ":path", "/"}, "", "GET / HTTP/1.1\n\n"},
		{"the server", []string{":method", "OPTIONS", ":scheme", "https", ":authority", "a", ":path", "*"}, "", "OPTIONS * HTTP/1.1\nHost: a\n\n"},
		{"CONNECT", []string{":method", "CONNECT", ":authority", "a:1"}, "", "CONNECT a:1 HTTP/1.1\nHost: a:1\n\n"},
		{"a length", append(get[:8:8], "content-length", "2"), "hi", "GET / HTTP/1.1\nHost: a\nContent-Length: 2\n\nhi"},
		{"no length", get, "hi", "GET / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n2\nhi\n0\n\n"},
		{"a length of 0", append(get[:8:8], "content-length", "0"), "", "GET / HTTP/1.1\nHost: a\nContent-Length: 0\n\n"},
		{"a WebSocket", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/w", "sec-websocket-version", "13"}, "",
			"GET /w HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nsec-websocket-version: 13\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := dial(t, nil, echo)
			r.ask(1, c.body == "", c.fields...)
			if c.body != "" { // once the head is read
				_ = r.WritePing(false, [8]byte{1})
				for {
					f, err := r.ReadFrame()
					if err != nil {
						t.Fatal(err)
					}
					if f.Header().Type == http2.FramePing {
						break
					}
				}
				_ = r.WriteData(1, true, []byte(c.body))
			}
			status, body := r.answer(1)
			body = strings.ReplaceAll(body, "\r\n", "\n")
			want := c.want
			if c.body != "" && body != want { // it may have come with the head
				want = "GET / HTTP/1.1\nHost: a\nContent-Length: 2\n\nhi"
			}
			if status != "200" || body != want {
				t.Errorf("%s\n%q, not\n%q", status, body, want)
			}
		})
	}
}

// TestStreamsAreReused: what one request left is not in the next one.
func TestStreamsAreReused(t *testing.T) {
	r := dial(t, nil, echo)
	for i := range 50 {
		id := uint32(2*i + 1)
		fields := append(get[:8:8], fmt.Sprintf("x-%d", i%7), strings.Repeat("v", i%5))
		if i%3 == 0 {
			r.ask(id, false, fields...)
			_ = r.WriteData(id, true, bytes.Repeat([]byte{'x'}, 100*i))
		} else {
			r.ask(id, true, fields...)
		}
		status, body := r.answer(id)
		if status != "200" || strings.Count(body, "\r\nx-") != 1 || !strings.Contains(body, fmt.Sprintf("\r\nx-%d: ", i%7)) || i%3 != 0 && !strings.HasSuffix(body, "\r\n\r\n") {
			t.Fatalf("%d: %s %q", i, status, body)
		}
	}
}

// waits is a wire that knows how much room its reader waits with.
type waits struct {
	net.Conn
	room atomic.Int64
}

func (w *waits) Read(into []byte) (int, error) {
	w.room.Store(int64(len(into)))
	return w.Conn.Read(into)
}

// TestIdleClientHasNoBuffer: nor has one whose stream is served, or was served last.
func TestIdleClientHasNoBuffer(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	wire, release := &waits{Conn: near}, make(chan struct{})
	s := newServed(wire, func() { _ = near.Close() }, nil, func(s *Stream) { <-release; echo(s) })
	go func() { s.ended <- s.Serve() }()
	_ = far.SetDeadline(time.Now().Add(20 * time.Second))
	r := &raw{Framer: http2.NewFramer(far, far), conn: far, t: t, served: s}
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.hpack = hpack.NewEncoder(&r.block)
	small := func(when string) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); wire.room.Load() > frameHead; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s it waits with %d bytes", when, wire.room.Load())
			}
		}
	}
	go func() { // the other end of a pipe waits until it is read
		_, _ = io.WriteString(far, preface)
		_ = r.WriteSettings()
		r.ask(1, true)
	}()
	for {
		if f, err := r.ReadFrame(); err != nil {
			t.Fatal(err)
		} else if _, is := f.(*http2.SettingsFrame); is && f.Header().Flags.Has(http2.FlagSettingsAck) {
			break
		}
	}
	small("while a stream is served,")
	close(release)
	if status, _ := r.answer(1); status != "200" {
		t.Fatal(status)
	}
	small("after it,")
}
