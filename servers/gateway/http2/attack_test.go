package http2

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/multiplex"
	"golang.org/x/net/http2"
)

// flood sends until the server has had enough, reading or not, and returns how often
// it did, and what the server said.
func (r *raw) flood(most int, reads bool, send func(i int) error) (n int, code string) {
	said := make(chan string, 1)
	if reads {
		go func() { said <- r.until() }()
	}
	for n < most && send(n) == nil {
		n++
	}
	if !reads {
		go func() { said <- r.until() }()
	} else {
		_ = r.conn.(*net.TCPConn).CloseWrite()
	}
	return n, <-said
}

// hang serves a stream for as long as its client is there.
func hang(s *Stream) {
	gone := make(chan struct{})
	s.OnGone(func() { close(gone) })
	<-gone
}

const calm = "ENHANCE_YOUR_CALM"

// TestFloods: who asks for work and brings none is told to be calm, after not much
// of it.
func TestFloods(t *testing.T) {
	for _, c := range []struct {
		name string
		most int // times that are taken before
		send func(r *raw, i int) error
	}{
		{"rapid reset", 4 * multiplex.MostResets, func(r *raw, i int) error {
			r.ask(uint32(2*i+1), true)
			return r.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
		}},
		{"resets that are provoked", 4 * multiplex.MostResets, func(r *raw, i int) error {
			r.ask(uint32(2*i+1), false)
			return r.WriteWindowUpdate(uint32(2*i+1), 0)
		}},
		{"resets that are provoked by bodies", 4 * multiplex.MostResets, func(r *raw, i int) error {
			r.ask(uint32(2*i+1), true)
			return r.WriteData(uint32(2*i+1), true, []byte("x"))
		}},
		{"requests that are malformed", 4 * multiplex.MostResets, func(r *raw, i int) error {
			r.ask(uint32(2*i+1), true, "A", "b")
			return nil
		}},
		{"CONTINUATION", maxBlockFrames + 1, func(r *raw, i int) error {
			if i == 0 {
				return r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			}
			return r.WriteContinuation(1, false, []byte{0x82})
		}},
		{"CONTINUATION of nothing", maxBlockFrames + 1, func(r *raw, i int) error {
			if i == 0 {
				return r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
			}
			return r.WriteContinuation(1, false, nil)
		}},
		{"PING", 2 * mostIdle, func(r *raw, i int) error { return r.WritePing(false, [8]byte{}) }},
		{"SETTINGS", 2 * mostIdle, func(r *raw, i int) error {
			return r.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(i)})
		}},
		{"answers to SETTINGS", 2 * mostIdle, func(r *raw, i int) error { return r.WriteSettingsAck() }},
		{"PRIORITY", 2 * mostIdle, func(r *raw, i int) error {
			return r.WritePriority(uint32(2*i+1), http2.PriorityParam{Weight: uint8(i)})
		}},
		{"frames of no kind", 2 * mostIdle, func(r *raw, i int) error { return r.WriteRawFrame(99, 0, 0, nil) }},
		{"empty DATA", 2 * mostIdle, func(r *raw, i int) error {
			if i == 0 {
				r.ask(1, false)
			}
			return r.WriteData(1, false, nil)
		}},
		{"DATA of nothing but padding", 2 * mostIdle, func(r *raw, i int) error {
			if i == 0 {
				r.ask(1, false)
			}
			return r.WriteDataPadded(1, false, nil, make([]byte, 200))
		}},
		{"windows", 2 * mostIdle, func(r *raw, i int) error { return r.WriteWindowUpdate(0, 1) }},
	} {
		for name, reads := range map[string]bool{" of who reads": true, " of who does not read": false} {
			t.Run(c.name+name, func(t *testing.T) {
				t.Parallel()
				r := dial(t, nil, hang)
				if !reads {
					_ = r.conn.(*net.TCPConn).SetReadBuffer(4 << 10)
				}
				most := 0
				n, code := r.flood(100*mostIdle, reads, func(i int) error {
					if i%100 == 0 {
						r.served.Conn.mu.Lock()
						most = max(most, len(r.served.out))
						r.served.Conn.mu.Unlock()
					}
					return c.send(r, i)
				})
				if code != calm && (reads || code != "nothing") { // who sends on and reads late may be cut off
					t.Errorf("%s after %d", code, n)
				}
				r.served.mu.Lock()
				defer r.served.mu.Unlock()
				if r.served.began > c.most || r.served.most > 2*100 {
					t.Errorf("%d streams were served, %d at once", r.served.began, r.served.most)
				}
				if most > 4*outputRoom {
					t.Errorf("%d bytes waited to be written", most)
				}
			})
		}
	}
}

// TestUsualIsCalm: what clients do is not taken for a flood.
func TestUsualIsCalm(t *testing.T) {
	r := dial(t, nil, echo)
	for i := range 3000 {
		id := uint32(2*i + 1)
		r.ask(id, false)
		_ = r.WriteData(id, true, []byte("x"))
		_ = r.WritePing(false, [8]byte{})
		_ = r.WriteWindowUpdate(0, 100)
		if i%4 == 3 {
			_ = r.WriteRSTStream(id, http2.ErrCodeCancel)
		} else if status, body := r.answer(id); status != "200" {
			t.Fatalf("request %d: %s %s", i, status, body)
		}
	}
}

// TestHeaderBomb: a few bytes of HPACK do not become many in memory.
func TestHeaderBomb(t *testing.T) {
	r := dial(t, nil, echo)
	value := strings.Repeat("v", 4000)
	r.ask(1, true, append(get[:8:8], "bomb", value)...)
	if status, _ := r.answer(1); status != "200" {
		t.Fatal(status)
	}
	block := append(r.fields(get...), bytes.Repeat([]byte{0x80 | 62}, 15_000)...) // 60 MB
	for i := range 20 {
		id := uint32(2*i + 3)
		_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true})
		if status, body := r.answer(id); status != "431" {
			t.Fatalf("%s %s", status, body)
		}
	}
	if n := testing.AllocsPerRun(1, func() {
		_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 101, BlockFragment: block, EndStream: true, EndHeaders: true})
		_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 103, BlockFragment: block, EndStream: true, EndHeaders: true})
		r.answer(103)
	}); n > 5000 {
		t.Errorf("%v allocations", n)
	}
}

// TestZeroWindow: who gives no room for an answer is waited for only so long, and
// holds nobody's memory for longer.
func TestZeroWindow(t *testing.T) {
	for name, settings := range map[string][]http2.Setting{
		"of the streams":    {{ID: http2.SettingInitialWindowSize, Val: 0}},
		"of the connection": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := make(chan error, 100)
			r := dial(t, func(c *Config) { c.Patience = 300 * time.Millisecond }, func(s *Stream) {
				_, _ = s.AppendRequest(nil)
				body := strings.Repeat("x", 20_000)
				_, err := io.WriteString(writer{s}, "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n"+body)
				failed <- err
			}, settings...)
			for i := range 50 {
				r.ask(uint32(2*i+1), true)
			}
			for range 50 {
				select {
				case err := <-failed:
					if settings != nil && err != errStalled {
						t.Errorf("an answer without room: %v", err)
					}
				case <-time.After(10 * time.Second):
					t.Fatal("an answer waits for ever")
				}
			}
			r.ask(201, true, append(get[:8:8], "x", "y")...)
			for {
				f, err := r.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				if f, ok := f.(*http2.MetaHeadersFrame); ok && f.StreamID == 201 {
					break // the connection goes on
				}
			}
		})
	}
}

// TestUploadWindow: more than its window of a body is refused, and what nobody reads
// is not held beyond it.
func TestUploadWindow(t *testing.T) {
	release := make(chan struct{})
	r := dial(t, nil, func(s *Stream) { <-release; _, _ = s.AppendRequest(nil) })
	defer close(release)
	piece := make([]byte, maxFrame)
	r.ask(1, false)
	for range streamWindow/maxFrame + 1 {
		_ = r.WriteData(1, false, piece)
	}
	if got := r.outcome(); got != "RST 1 FLOW_CONTROL_ERROR" {
		t.Errorf("beyond the stream's window: %s", got)
	}
	for i := range connectionWindow / streamWindow {
		id := uint32(2*i + 3)
		r.ask(id, false)
		for range streamWindow / maxFrame {
			_ = r.WriteData(id, false, piece)
		}
	}
	_ = r.WriteData(3, false, piece)
	if got := r.outcome(); !strings.HasPrefix(got, "GOAWAY FLOW") && !strings.HasPrefix(got, "RST") {
		t.Errorf("beyond the connection's window: %s", got)
	}
}

// TestManyStreams: those beyond what was allowed are refused, and may be asked for
// again.
func TestManyStreams(t *testing.T) {
	release := make(chan struct{})
	r := dial(t, func(c *Config) { c.Streams = 5 }, func(s *Stream) { <-release; echo(s) })
	for i := range 6 {
		r.ask(uint32(2*i+1), true)
	}
	if got := r.outcome(); got != "RST 11 REFUSED_STREAM" {
		t.Errorf("one too many: %s", got)
	}
	close(release)
	if status, _ := r.answer(9); status != "200" {
		t.Errorf("the last that was allowed: %s", status)
	}
}
