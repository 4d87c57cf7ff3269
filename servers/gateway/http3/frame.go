package http3

import (
	"errors"
	"io"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// Kinds of frames (RFC 9114, section 7.2).
const (
	frameData     = 0x0
	frameHeaders  = 0x1
	frameSettings = 0x4
	frameGoAway   = 0x7
)

// isPlaced tells whether a kind of frame has a place, which is not in a request. All
// that nobody knows is passed over.
func isPlaced(kind uint64) bool { return kind >= 0x2 && kind <= 0x9 || kind == 0xd }

// Kinds of streams of one direction.
const (
	streamControl = 0x0
	streamPush    = 0x1
	streamEncoder = 0x2
	streamDecoder = 0x3
)

// Settings.
const settingFieldSection = 0x6

// Codes of errors (RFC 9114, section 8.1, and RFC 9204, section 6).
const (
	codeNoError          = 0x100
	codeInternalError    = 0x102
	codeStreamCreation   = 0x103
	codeClosedCritical   = 0x104
	codeFrameUnexpected  = 0x105
	codeFrameError       = 0x106
	codeExcessiveLoad    = 0x107
	codeSettingsError    = 0x109
	codeMissingSettings  = 0x10a
	codeRequestRejected  = 0x10b
	codeRequestCancelled = 0x10c
	codeIncomplete       = 0x10d
	codeMessageError     = 0x10e
	codeDecompression    = 0x200
	codeEncoderStream    = 0x201
)

// fault is a rule that a client has broken.
type fault struct {
	code   uint64
	reason string
	all    bool // the connection is at an end, and not the stream alone
}

func (f *fault) Error() string { return f.reason }

// broken ends a connection.
func broken(code uint64, reason string) *fault { return &fault{code, reason, true} }

// malformed ends a stream.
func malformed(reason string) *fault { return &fault{codeMessageError, reason, false} }

// appendFrame begins a frame.
func appendFrame(b []byte, kind, length uint64) []byte {
	return quicvarint.Append(quicvarint.Append(b, kind), length)
}

// appendSettings says what is taken. QPACK has no dynamic table, since it is not
// asked for one.
func appendSettings(b []byte, fields int) []byte {
	setting := quicvarint.Append(quicvarint.Append(nil, settingFieldSection), uint64(fields))
	return append(appendFrame(b, frameSettings, uint64(len(setting))), setting...)
}

// appendGoAway says which request is the first that is not served.
func appendGoAway(b []byte, stream uint64) []byte {
	return quicvarint.Append(appendFrame(b, frameGoAway, uint64(quicvarint.Len(stream))), stream)
}

// control reads what a client says of the connection.
func (c *Conn) control(in *quic.ReceiveStream) error {
	r := quicvarint.NewReader(in)
	for first := true; ; first = false {
		kind, length, err := frameOf(r)
		if err != nil {
			return broken(codeClosedCritical, "the control stream has ended")
		}
		switch {
		case first && kind != frameSettings:
			return broken(codeMissingSettings, "the control stream does not begin with settings")
		case !first && kind == frameSettings, kind == frameData, kind == frameHeaders, kind == 0x2, kind == 0x5, kind == 0x6, kind == 0x8, kind == 0x9:
			return broken(codeFrameUnexpected, "a frame is not for the control stream")
		case length > maxControl:
			return broken(codeExcessiveLoad, "a frame of the control stream is too long")
		case !first && !c.spendFrame():
			return broken(codeExcessiveLoad, "too many frames of the control stream")
		}
		payload := make([]byte, length)
		if _, err := io.ReadFull(r, payload); err != nil {
			return broken(codeClosedCritical, "the control stream has ended")
		}
		if kind == frameSettings {
			if err := judgeSettings(payload); err != nil {
				return err
			}
		}
	}
}

// maxControl bounds a frame of the control stream, in bytes.
const maxControl = 4 << 10

// frameOf reads where a frame begins.
func frameOf(r quicvarint.Reader) (kind, length uint64, err error) {
	if kind, err = quicvarint.Read(r); err == nil {
		length, err = quicvarint.Read(r)
	}
	return kind, length, err
}

// judgeSettings refuses those that are none. What they say does not matter here: no
// dynamic table is used, and fields are few.
func judgeSettings(b []byte) error {
	seen := map[uint64]bool{}
	for len(b) > 0 {
		id, n, err := quicvarint.Parse(b)
		if err != nil {
			return broken(codeFrameError, "the settings end within one")
		}
		b = b[n:]
		if _, n, err = quicvarint.Parse(b); err != nil {
			return broken(codeFrameError, "the settings end within one")
		}
		b = b[n:]
		if seen[id] || id >= 0x2 && id <= 0x5 {
			return broken(codeSettingsError, "a setting is there twice, or is one of HTTP/2")
		}
		seen[id] = true
	}
	return nil
}

// instructions reads those of QPACK. Without a dynamic table the client's encoder has
// nothing to say but that it has none, and its decoder nothing that matters.
func instructions(in *quic.ReceiveStream, encoder bool) error {
	var b [64]byte
	for {
		n, err := in.Read(b[:])
		for _, char := range b[:n] {
			if encoder && char != 0x20 { // a capacity of 0
				return broken(codeEncoderStream, "there is no dynamic table")
			}
		}
		if err != nil {
			return broken(codeClosedCritical, "a stream of QPACK has ended")
		}
	}
}

// errShut is what reading returns once nobody wants to.
var errShut = errors.New("nobody reads the request any more")
