package http3

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
	"github.com/quic-go/qpack"
)

// answerLimits bound the head of an answer: who writes it has judged it.
var answerLimits = http1.Limits{Line: 1 << 20, Head: 1 << 20, Fields: 1 << 10}

// together is how much of a body is copied to go with the head, in bytes.
const together = 16 << 10

// output is what is about to be sent.
type output struct {
	frames  []byte
	block   bytes.Buffer
	encoder *qpack.Encoder
}

var freeOutputs = sync.Pool{New: func() any {
	o := &output{frames: make([]byte, 0, together+1<<10)}
	o.encoder = qpack.NewEncoder(&o.block)
	return o
}}

func (o *output) free() {
	if cap(o.frames) <= 4*together && o.block.Cap() <= 4*together {
		o.frames = o.frames[:0]
		freeOutputs.Put(o)
	}
}

// Write takes an answer, or a piece of it.
func (s *Stream) Write(b []byte) (int, error) {
	all := len(b)
	o := freeOutputs.Get().(*output)
	defer o.free()
	for !s.answered {
		n, err := s.head(b, o)
		if err != nil {
			return 0, err
		}
		b = b[n:]
		if !s.answered && len(b) == 0 {
			return all, s.send(o.frames)
		}
	}
	data, ended, err := s.decode(b)
	if err != nil {
		return 0, err
	}
	if len(data) > 0 {
		o.frames = appendFrame(o.frames, frameData, uint64(len(data)))
		if len(data) <= together {
			o.frames, data = append(o.frames, data...), nil
		}
	}
	var trailers []byte
	if ended && s.chunks.HasTrailers() {
		if trailers, err = s.trailing(o, len(data) == 0); err != nil {
			return 0, err
		}
	}
	for _, piece := range [...][]byte{o.frames, data, trailers} {
		if err := s.send(piece); err != nil {
			return 0, err
		}
	}
	if ended && !s.sent {
		s.end()
	}
	return all, nil
}

// end tells the client that the answer is whole.
func (s *Stream) end() {
	s.sent = true
	s.still()
	_ = s.quic.Close() // it fails if the client has left
}

// send sends bytes while the client gives room for them.
func (s *Stream) send(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_ = s.quic.SetWriteDeadline(s.by())
	_, err := s.quic.Write(b)
	return err
}

// head reads the head of an answer, or of one that comes before it, and writes
// its frame.
func (s *Stream) head(b []byte, o *output) (int, error) {
	r := &s.response
	r.Reset()
	done, refused := r.Parse(b, s.toHEAD, &answerLimits)
	switch {
	case refused != nil:
		return 0, refused
	case !done:
		return 0, io.ErrShortWrite
	}
	if r.Status >= http.StatusOK {
		s.answered, s.rest = true, r.Length
	}
	o.block.Reset()
	if err := o.encoder.WriteField(qpack.HeaderField{Name: ":status", Value: strconv.Itoa(r.Status)}); err != nil {
		return 0, err
	}
	return r.Size(), o.append(&r.Head)
}

// append writes a frame of fields, which began in the block already or not.
func (o *output) append(h *http1.Head) error {
	for i := range h.Fields() {
		f := &h.Fields()[i]
		if f.Hop {
			continue
		}
		if err := o.encoder.WriteField(qpack.HeaderField{Name: strings.ToLower(string(h.Name(f))), Value: string(h.Value(f))}); err != nil {
			return err
		}
	}
	if o.block.Len() == 0 {
		o.block.Write([]byte{0, 0}) // no field, and no table
	}
	_ = o.encoder.Close() // it only forgets that it began
	o.frames = append(appendFrame(o.frames, frameHeaders, uint64(o.block.Len())), o.block.Bytes()...)
	return nil
}

// decode takes the frames of chunks away, and tells whether the body has ended.
func (s *Stream) decode(b []byte) (data []byte, ended bool, err error) {
	if s.rest == http1.Chunked {
		n, _, refused := s.chunks.Decode(b)
		if refused != nil {
			return nil, false, refused
		}
		return b[:n], s.chunks.Done(), nil
	}
	b = b[:min(int64(len(b)), s.rest)]
	s.rest -= int64(len(b))
	return b, s.rest == 0, nil
}

// trailing writes the trailers of an answer behind what is to be sent, or, if something
// goes between, as what is to be sent last.
func (s *Stream) trailing(o *output, behind bool) (last []byte, err error) {
	var h http1.Head
	if refused := s.chunks.Trailers(&h); refused != nil {
		return nil, refused
	}
	at := len(o.frames)
	o.block.Reset()
	if err := o.append(&h); err != nil || behind {
		return nil, err
	}
	last = bytes.Clone(o.frames[at:])
	o.frames = o.frames[:at]
	return last, nil
}

// CloseWrite ends the answer.
func (s *Stream) CloseWrite() error { return nil }
