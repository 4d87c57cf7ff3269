package http3

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// echo answers with what was asked for.
func echo(s *Stream) {
	s.OnGone(func() {})
	defer s.End()
	text, tooLong := s.AppendRequest(nil)
	if tooLong {
		_, _ = io.WriteString(s, "HTTP/1.1 431 Too Long\r\nContent-Length: 0\r\n\r\n")
		return
	}
	if !s.whole {
		body, err := io.ReadAll(s)
		if err != nil {
			return
		}
		text = append(text, body...)
	}
	_, _ = s.Write(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text))
}

// listen serves connections on loopback until the test ends.
func listen(t testing.TB, edit func(*Config), answer func(*Stream)) *Socket {
	t.Helper()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var serving sync.WaitGroup
	config := Config{
		TLS:    &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h3"}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		Limits: http1.Usual(), Streams: 100, Header: 5 * time.Second, Patience: 5 * time.Second, Idle: 5 * time.Second, Leave: time.Millisecond, Linger: time.Millisecond,
		Now:   func() int64 { return int64(time.Since(began)) },
		Admit: func() bool { return true }, Gone: func() {}, Hold: func(int) bool { return true },
		Accept: func(c *Conn) { serving.Go(func() { c.Serve(answer) }) },
	}
	if edit != nil {
		edit(&config)
	}
	s := Open(udp, config)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(); s.Cut(); serving.Wait() })
	return s
}

// raw is a client that may break rules.
type raw struct {
	*quic.Conn
	t      testing.TB
	stream *quic.Stream
	said   *quic.SendStream
}

func dial(t testing.TB, s *Socket) *raw {
	t.Helper()
	conn, err := quic.DialAddr(t.Context(), s.At().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	r := &raw{Conn: conn, t: t}
	if r.stream, err = conn.OpenStream(); err != nil {
		t.Fatal(err)
	}
	return r
}

// uni sends bytes on a stream of one direction.
func (r *raw) uni(b ...byte) *quic.SendStream {
	r.t.Helper()
	s, err := r.OpenUniStream()
	if err != nil {
		r.t.Fatal(err)
	}
	_, _ = s.Write(b)
	return s
}

func block(fields ...string) []byte {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(qpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

func frame(kind uint64, payload []byte) []byte {
	return append(appendFrame(nil, kind, uint64(len(payload))), payload...)
}

var get = []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"}

// send sends frames, and the end.
func (r *raw) send(frames ...[]byte) {
	for _, f := range frames {
		_, _ = r.stream.Write(f)
	}
	_ = r.stream.Close()
}

// outcome is what became of the stream, or of the connection.
func (r *raw) outcome() string {
	_ = r.stream.SetReadDeadline(time.Now().Add(10 * time.Second))
	text, err := io.ReadAll(r.stream)
	var reset *quic.StreamError
	var closed *quic.ApplicationError
	switch {
	case errors.As(err, &closed):
		return fmt.Sprintf("closed %#x", uint64(closed.ErrorCode))
	case errors.As(err, &reset):
		return fmt.Sprintf("reset %#x", uint64(reset.ErrorCode))
	case err != nil:
		return err.Error()
	}
	status, body := answerOf(r.t, text)
	return strings.TrimSpace(status + " " + strings.ReplaceAll(body, "\r\n", "\n"))
}

// answerOf reads the frames of an answer.
func answerOf(t testing.TB, text []byte) (status, body string) {
	for len(text) > 0 {
		kind, n, err := quicvarint.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		length, m, err := quicvarint.Parse(text[n:])
		if err != nil {
			t.Fatal(err)
		}
		payload := text[n+m:][:length]
		text = text[n+m+int(length):]
		if kind == frameData {
			body += string(payload)
			continue
		}
		for next := qpack.NewDecoder().Decode(payload); ; {
			f, err := next()
			if err != nil {
				break
			}
			if f.Name == ":status" {
				status = f.Value
			}
		}
	}
	return status, body
}

// TestRules: what a client may not do is answered as RFC 9114 says, and what it may is
// served.
func TestRules(t *testing.T) {
	socket := listen(t, nil, echo)
	with := func(fields ...string) []string { return append(append([]string{}, get...), fields...) }
	asks := func(fields ...string) func(*raw) {
		return func(r *raw) { r.send(frame(frameHeaders, block(fields...))) }
	}
	bodied := func(fields []string, bodies ...string) func(*raw) {
		return func(r *raw) {
			frames := [][]byte{frame(frameHeaders, block(fields...))}
			for _, b := range bodies {
				frames = append(frames, frame(frameData, []byte(b)))
			}
			r.send(frames...)
		}
	}
	sends := func(frames ...[]byte) func(*raw) { return func(r *raw) { r.send(frames...) } }
	head := frame(frameHeaders, block(get...))
	control := func(b ...byte) func(*raw) { return func(r *raw) { r.uni(b...) } }
	const isBad = "reset 0x10e"
	const plain = "200 GET / HTTP/1.1\nHost: a\n"
	for _, c := range []struct {
		name string
		do   func(*raw)
		want string
	}{
		{"a request", asks(get...), plain},
		{"a body", bodied(get, "a", "b"), plain + "Content-Length: 2\n\nab"},
		{"a length that is right", bodied(with("content-length", "2"), "a", "b"), plain + "Content-Length: 2\n\nab"},
		{"a length of nothing", asks(with("content-length", "0")...), plain + "Content-Length: 0"},
		{"cookies", asks(with("cookie", "a=b", "cookie", "c=d")...), plain + "Cookie: a=b; c=d"},
		{"trailers", sends(head, frame(frameData, []byte("x")), frame(frameHeaders, block("a", "b"))), plain + "Transfer-Encoding: chunked\n\n1\nx\n0\na: b"},
		{"frames that nobody knows", sends(frame(0x21, []byte("abc")), head, frame(0x40, nil), frame(frameData, []byte("x")), frame(0x41, []byte("x"))), plain + "Content-Length: 1\n\nx"},
		{"a head in pieces", func(r *raw) {
			for i := range head {
				_, _ = r.stream.Write(head[i : i+1])
				time.Sleep(time.Millisecond)
			}
			r.send()
		}, plain},
		{"streams that nobody knows", func(r *raw) { r.uni(0x21, 1); r.uni(0x40, 0x42); r.send(head) }, plain},
		{"the streams of a connection", func(r *raw) {
			r.uni(0, frameSettings, 2, 0x21, 7, 0xd, 1, 9, 0x21, 0)
			r.uni(2, 0x20)
			r.uni(3, 0x40)
			r.send(head)
		}, plain},

		{"capital letters", asks(with("A", "b")...), isBad},
		{"a name with a colon", asks(with("a:b", "c")...), isBad},
		{"a name with a space", asks(with("a b", "c")...), isBad},
		{"a name with a line break", asks(with("a\r\nb", "c")...), isBad},
		{"CR LF in a value", asks(with("a", "b\r\nc: d")...), isBad},
		{"CR in a value", asks(with("a", "b\rc")...), isBad},
		{"LF in a value", asks(with("a", "b\nc")...), isBad},
		{"NUL in a value", asks(with("a", "b\x00")...), isBad},
		{"Connection", asks(with("connection", "close")...), isBad},
		{"Transfer-Encoding", asks(with("transfer-encoding", "chunked")...), isBad},
		{"Upgrade", asks(with("upgrade", "websocket")...), isBad},
		{"Keep-Alive", asks(with("keep-alive", "1")...), isBad},
		{"TE", asks(with("te", "gzip")...), isBad},
		{"another Host", asks(with("host", "b")...), isBad},
		{"two Hosts", asks(with("host", "a", "host", "a")...), isBad},
		{"no method", asks(get[2:]...), isBad},
		{"no scheme", asks(":method", "GET", ":authority", "a", ":path", "/"), isBad},
		{"no path", asks(get[:6]...), isBad},
		{"a URL for a path", asks(append(get[:6:6], ":path", "http://b/")...), isBad},
		{"a path with a space", asks(append(get[:6:6], ":path", "/ HTTP/1.1")...), isBad},
		{"a path with a line break", asks(append(get[:6:6], ":path", "/\r\nA:b")...), isBad},
		{"a method with a line break", asks(append([]string{":method", "GET /\r\n"}, get[2:]...)...), isBad},
		{"two methods", asks(append([]string{":method", "GET"}, get...)...), isBad},
		{"a pseudo-header of answers", asks(append([]string{":status", "200"}, get...)...), isBad},
		{"a pseudo-header after a field", asks(":method", "GET", ":scheme", "https", ":path", "/", "a", "b", ":authority", "a"), isBad},
		{"a WebSocket", asks(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/"), isBad},
		{"lengths that differ", asks(with("content-length", "0", "content-length", "1")...), isBad},
		{"a list of lengths", asks(with("content-length", "0, 0")...), isBad},
		{"a length and no body", asks(with("content-length", "1")...), isBad},
		{"a longer body", bodied(with("content-length", "1"), "ab"), isBad},
		{"a longer body, in pieces", bodied(with("content-length", "1"), "a", "b"), isBad},
		{"a shorter body", bodied(with("content-length", "3"), "ab"), isBad},
		{"a shorter body that is large", bodied(with("content-length", "30000"), strings.Repeat("a", 29_000)), isBad},
		{"pseudo-headers in trailers", sends(head, frame(frameHeaders, block(get...))), isBad},
		{"a long head", asks(with("a", strings.Repeat("~", 60_000))...), "431"},
		{"a very long head", func(r *raw) { _, _ = r.stream.Write(appendFrame(nil, frameHeaders, 1<<40)) }, "431"},
		{"many fields", asks(with(strings.Split(strings.Repeat("a b ", 200), " ")[:400]...)...), "431"},
		{"much that nobody knows", sends(appendFrame(nil, 0x21, 1<<30)), "reset 0x107"},
		{"more and more that nobody knows", sends(frame(0x21, make([]byte, mostPassed)), appendFrame(nil, 0x21, 1<<30)), "reset 0x107"},
		{"nothing", sends(), "reset 0x10d"},

		{"a body before its head", sends(frame(frameData, nil)), "closed 0x105"},
		{"a body after trailers", sends(head, frame(frameHeaders, block("a", "b")), frame(frameData, nil)), "closed 0x105"},
		{"settings in a request", sends(frame(frameSettings, nil)), "closed 0x105"},
		{"a frame of HTTP/2", sends(frame(0x8, nil)), "closed 0x105"},
		{"half a frame", sends(head[:len(head)-1]), "closed 0x106"},
		{"half a frame of data", sends(head, frame(frameData, []byte("abc"))[:3]), "closed 0x106"},
		{"a frame without a length", sends(head, []byte{0}), "closed 0x106"},
		{"an index that is none", sends(frame(frameHeaders, []byte{0, 0, 0xff, 0xff, 0x7f})), "closed 0x200"},
		{"the dynamic table", sends(frame(frameHeaders, []byte{2, 0, 0x80})), "closed 0x200"},
		{"half a field", sends(frame(frameHeaders, block(get...)[:9])), "closed 0x200"},
		{"no fields at all", sends(frame(frameHeaders, nil)), "closed 0x200"},
		{"a push", control(1, 0), "closed 0x103"},
		{"two control streams", func(r *raw) { r.uni(0, frameSettings, 0); r.uni(0, frameSettings, 0) }, "closed 0x103"},
		{"no settings", control(0, 0xd, 1, 0), "closed 0x10a"},
		{"settings twice", control(0, frameSettings, 0, frameSettings, 0), "closed 0x105"},
		{"a request on the control stream", control(0, frameSettings, 0, frameHeaders, 0), "closed 0x105"},
		{"a setting of HTTP/2", control(0, frameSettings, 2, 2, 0), "closed 0x109"},
		{"a setting twice", control(0, frameSettings, 4, 6, 0, 6, 0), "closed 0x109"},
		{"half a setting", control(0, frameSettings, 1, 6), "closed 0x106"},
		{"a control stream that ends", func(r *raw) { _ = r.uni(0, frameSettings, 0).Close() }, "closed 0x104"},
		{"a dynamic table", control(2, 0x3f, 0xe1, 0x1f), "closed 0x201"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := dial(t, socket)
			r.t = t
			c.do(r)
			if got := r.outcome(); got != strings.TrimSpace(c.want) {
				t.Errorf("%q, not %q", got, c.want)
			}
		})
	}
}

// TestFloods: what brings nothing has the connection ended, whoever sends on.
func TestFloods(t *testing.T) {
	socket := listen(t, nil, echo)
	for name, send := range map[string]func(*raw) error{
		"requests that are malformed": func(r *raw) error {
			s, err := r.OpenStreamSync(r.Context())
			if err == nil {
				_, err = s.Write(frame(frameHeaders, block("A", "b")))
				s.CancelRead(0)
			}
			return err
		},
		"streams that nobody knows": func(r *raw) error {
			s, err := r.OpenUniStreamSync(r.Context())
			if err == nil {
				_, err = s.Write([]byte{0x21})
				_ = s.Close()
			}
			return err
		},
		"frames of the control stream": func(r *raw) error {
			if r.said == nil {
				r.said = r.uni(0, frameSettings, 0)
			}
			_, err := r.said.Write([]byte{0xd, 1, 0})
			return err
		},
		"frames of data that are empty": func(r *raw) error {
			if r.said == nil {
				r.said = r.uni(0, frameSettings, 0)
				_, _ = r.stream.Write(frame(frameHeaders, block(get...)))
			}
			_, err := r.stream.Write(bytes.Repeat(frame(frameData, nil), 20))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := dial(t, socket)
			for n := 0; n < 20_000 && send(r) == nil && r.Context().Err() == nil; n++ {
			}
			select {
			case <-r.Context().Done():
			case <-time.After(5 * time.Second):
			}
			var closed *quic.ApplicationError
			if cause := context.Cause(r.Context()); !errors.As(cause, &closed) || closed.ErrorCode != codeExcessiveLoad {
				t.Errorf("it may go on: %v", cause)
			}
		})
	}
}

// TestRetry: who claims to begin many connections at once has to show that its address
// is its own, and is served then.
func TestRetry(t *testing.T) {
	var shown atomic.Bool
	socket := listen(t, func(c *Config) { c.shown = shown.Store }, echo)
	socket.handshakes.Add(maxHandshakes)
	r := dial(t, socket)
	r.send(frame(frameHeaders, block(get...)))
	if got := r.outcome(); !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
	if !shown.Load() {
		t.Error("the address was not shown")
	}
}

// TestHold: heads that are not whole have so much memory together.
func TestHold(t *testing.T) {
	var held atomic.Int64
	socket := listen(t, func(c *Config) {
		c.Hold = func(n int) bool { return held.Add(int64(n)) <= 50<<10 }
	}, echo)
	part := frame(frameHeaders, block(append(get[:8:8], "a", strings.Repeat("~", 20_000))...))
	first, second := dial(t, socket), dial(t, socket)
	_, _ = first.stream.Write(part[:5000])
	for end := time.Now().Add(5 * time.Second); held.Load() < 20_000 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	_, _ = second.stream.Write(part[:5000])
	if got := second.outcome(); got != "reset 0x107" {
		t.Error(got)
	}
	first.send(part[5000:])
	if got := first.outcome(); !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
	if n := held.Load(); n != 0 {
		t.Errorf("%d bytes are held", n)
	}
}

// TestStop: a client is told to ask elsewhere, has what it asked for, and the port is
// given up; until then it may be listened at again.
func TestStop(t *testing.T) {
	began, release := make(chan struct{}, 1), make(chan struct{})
	socket := listen(t, nil, func(s *Stream) { began <- struct{}{}; <-release; echo(s) })
	r := dial(t, socket)
	r.send(frame(frameHeaders, block(get...)))
	<-began
	stopped := make(chan struct{})
	go func() { socket.Stop(); close(stopped) }()
	<-stopped
	in, err := r.AcceptUniStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := appendGoAway(appendGoAway(appendSettings([]byte{streamControl}, http1.Usual().Head), lastStream), 4)
	said := make([]byte, len(want))
	if _, err := io.ReadFull(in, said); err != nil || !bytes.Equal(said, want) {
		t.Errorf("it is told %x, not %x: %v", said, want, err)
	}
	late, err := r.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = late.Write(frame(frameHeaders, block(get...)))
	_ = late.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err = io.ReadAll(late)
	if reset := (*quic.StreamError)(nil); !errors.As(err, &reset) || reset.ErrorCode != codeRequestRejected {
		t.Errorf("who asks late has %v", err)
	}
	if err := socket.Listen(); err != nil {
		t.Error(err)
	}
	other := dial(t, socket)
	close(release)
	other.send(frame(frameHeaders, block(get...)))
	for _, one := range []*raw{r, other} {
		if got := one.outcome(); !strings.HasPrefix(got, "200") {
			t.Error(got)
		}
	}
	select {
	case <-r.Context().Done():
	case <-time.After(5 * time.Second):
		t.Error("the connection has not ended")
	}
	socket.Stop()
	for end := time.Now().Add(5 * time.Second); !errors.Is(socket.Listen(), errClosed); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the port is not given up")
		}
		socket.Stop()
	}
}
