package http2

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// recording is a client that has sent all it will.
type recording struct{ io.Reader }

func (recording) Write(b []byte) (int, error) { return len(b), nil }

// FuzzConn: whatever comes, a connection ends soon after it, with all its streams;
// and each text of a request is one request.
func FuzzConn(f *testing.F) {
	var seed bytes.Buffer
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(get); i += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: get[i], Value: get[i+1]})
	}
	framer := http2.NewFramer(&seed, nil)
	framer.AllowIllegalWrites = true
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	f.Add(bytes.Clone(seed.Bytes()))
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block.Bytes()[:2], PadLength: 3, Priority: http2.PriorityParam{Weight: 3}})
	_ = framer.WriteContinuation(3, true, block.Bytes()[2:])
	_ = framer.WriteDataPadded(3, false, []byte("hello"), make([]byte, 5))
	_ = framer.WriteWindowUpdate(3, 100)
	_ = framer.WriteRSTStream(1, http2.ErrCodeCancel)
	_ = framer.WritePing(false, [8]byte{})
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x00, 1, 'a', 1, 'b'}, EndHeaders: true, EndStream: true})
	_ = framer.WriteGoAway(0, 0, nil)
	f.Add(bytes.Clone(seed.Bytes()))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newServed(recording{strings.NewReader(preface + string(b))}, func() {}, func(c *Config) { c.Patience = time.Millisecond }, func(s *Stream) {
			text, tooLong := s.AppendRequest(nil)
			if !tooLong {
				judge(t, text, s.whole)
			}
			_, _ = io.Copy(io.Discard, io.LimitReader(s, 1<<20))
			_, _ = io.WriteString(writer{s}, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n01234567890123456789")
		})
		ended := make(chan struct{})
		go func() { _ = s.Serve(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("it goes on")
		}
		if len(s.streams) != 0 || s.open != 0 {
			t.Fatalf("%d streams are left, %d of them open", len(s.streams), s.open)
		}
	})
}

// judge fails if a text could be read as anything but one request.
func judge(t *testing.T, text []byte, whole bool) {
	var r http1.Request
	limits := http1.Limits{Line: 1 << 20, Head: 1 << 20, Fields: 1 << 10}
	done, refused := r.Parse(bytes.Clone(text), &limits)
	end := bytes.Index(text, []byte("\r\n\r\n"))
	switch {
	case refused != nil:
		return // nothing comes of it
	case !done || end < 0 || r.Size() != end+4:
		t.Errorf("%q is no whole head", text)
	case whole && r.Length != int64(len(text)-r.Size()), !whole && (r.Length == 0 && len(text) != r.Size()):
		t.Errorf("%q has a body of another length", text)
	}
	for _, c := range text[:end] {
		if c == 0 {
			t.Errorf("%q has a NUL", text)
		}
	}
}
