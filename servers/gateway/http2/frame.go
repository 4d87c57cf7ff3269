package http2

import (
	"encoding/binary"
	"fmt"
)

// kind is the type of a frame (RFC 9113, section 6).
type kind uint8

const (
	kindData kind = iota
	kindHeaders
	kindPriority
	kindReset
	kindSettings
	kindPushPromise
	kindPing
	kindGoAway
	kindWindowUpdate
	kindContinuation
)

// Flags of frames.
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Bounds of frames, in bytes.
const (
	frameHead = 9
	maxFrame  = 16 << 10 // of the payload, both ways: nobody is allowed more
)

// Code says why a stream or a connection ended (RFC 9113, section 7).
type Code uint32

// The codes.
const (
	NoError Code = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
)

// Error is a rule that a client has broken. Stream is 0 if the connection cannot go
// on.
type Error struct {
	Code   Code
	Stream uint32
	Reason string
}

func (e *Error) Error() string {
	if e.Stream != 0 {
		return fmt.Sprintf("stream %d: %s", e.Stream, e.Reason)
	}
	return e.Reason
}

func broken(code Code, reason string) *Error { return &Error{Code: code, Reason: reason} }

func brokenStream(stream uint32, code Code, reason string) *Error {
	return &Error{Code: code, Stream: stream, Reason: reason}
}

// frame is one as it came. Its payload is valid until the next read.
type frame struct {
	kind    kind
	flags   uint8
	stream  uint32
	payload []byte
}

func (f *frame) has(flag uint8) bool { return f.flags&flag != 0 }

// cut returns the first frame of some bytes, and how long it is; 0: it is not whole.
func cut(b []byte) (f frame, size int, err *Error) {
	if len(b) < frameHead {
		return f, 0, nil
	}
	length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if length > maxFrame {
		return f, 0, broken(FrameSizeError, "a frame is longer than was allowed")
	}
	if size = frameHead + length; len(b) < size {
		return f, 0, nil
	}
	return frame{kind(b[3]), b[4], binary.BigEndian.Uint32(b[5:]) &^ (1 << 31), b[frameHead:size]}, size, nil
}

// unpadded takes the padding of the payload away.
func (f *frame) unpadded() ([]byte, *Error) {
	if !f.has(flagPadded) {
		return f.payload, nil
	}
	if len(f.payload) == 0 || int(f.payload[0]) >= len(f.payload) {
		return nil, broken(ProtocolError, "a frame is nothing but padding, and more of it than there is")
	}
	return f.payload[1 : len(f.payload)-int(f.payload[0])], nil
}

// appendFrame appends the head of a frame.
func appendFrame(b []byte, length int, k kind, flags uint8, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(k), flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

func appendReset(b []byte, stream uint32, code Code) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, kindReset, 0, stream), uint32(code))
}

func appendWindowUpdate(b []byte, stream uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, kindWindowUpdate, 0, stream), uint32(n))
}

func appendGoAway(b []byte, last uint32, code Code, reason string) []byte {
	b = appendFrame(b, 8+len(reason), kindGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	return append(binary.BigEndian.AppendUint32(b, uint32(code)), reason...)
}

func appendPing(b []byte, flags uint8, payload []byte) []byte {
	return append(appendFrame(b, 8, kindPing, flags, 0), payload...)
}
