package http3

import (
	"context"
	"errors"

	"github.com/quic-go/quic-go"
)

// How a stream has ended.
type outcome int

const (
	answered outcome = iota // with a whole answer
	brokeOff                // by the endpoint, or by this side
	spent                   // by the client, or because of it
)

// Abort cuts the stream off, whoever waits for the client.
func (s *Stream) Abort() {
	s.quic.CancelRead(codeRequestCancelled)
	s.quic.CancelWrite(codeInternalError)
}

// End tells that the stream is served, and nobody uses it any more. An answer that
// is not whole is cut off, and so is a request that nobody has read to its end.
func (s *Stream) End() {
	s.mu.Lock()
	s.gone = nil
	s.mu.Unlock()
	s.still()
	how := s.outcome()
	if !s.sent {
		s.quic.CancelWrite(codeInternalError)
	}
	s.quic.CancelRead(codeNoError) // RFC 9114, section 4.1
	s.conn.ended(how)
}

// outcome tells how the stream has ended. An answer that has not even begun was the
// client's fault: an endpoint that fails is answered for.
func (s *Stream) outcome() outcome {
	var cut *quic.StreamError
	switch {
	case s.sent:
		return answered
	case s.broke || !s.answered || errors.As(context.Cause(s.quic.Context()), &cut) && cut.Remote:
		return spent
	}
	return brokeOff
}
