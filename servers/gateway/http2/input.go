package http2

import (
	"io"
	"sync"
)

// input is what frames are read into.
type input struct {
	b    []byte
	size int // of inputSizes
}

// inputSizes are those of inputs, in bytes. The last has room for a whole frame, and
// what came with it. While the rest of a head is waited for, and nothing else, a client
// has the first one of which what has come is no more than half: those are few who send
// a part, and most of them mean no good.
var inputSizes = [...]int{1 << 10, 4 << 10, maxFrame + frameHead + 4096}

const whole = len(inputSizes) - 1

var inputs [len(inputSizes)]sync.Pool

func takeInput(size int) *input {
	if in, ok := inputs[size].Get().(*input); ok {
		return in
	}
	return &input{b: make([]byte, inputSizes[size]), size: size}
}

// fill reads some more. A client of which no part of a frame or a head has come has no
// buffer, whether its streams are served or not.
func (r *reader) fill(waiting Waiting) error {
	if r.in != nil && r.from == r.to {
		r.from, r.to = 0, 0
		if waiting != ForRest {
			r.free()
		}
	}
	if r.in == nil && waiting != ForRest {
		n, err := r.conn.wire.Read(r.first[:])
		if n > 0 {
			r.fit(waiting, n)
			r.from, r.to = 0, copy(r.in.b, r.first[:n])
			return nil
		}
		return err
	}
	r.fit(waiting, r.to-r.from)
	if have := r.to - r.from; waiting == ForRest && !r.hold(r.holds()) && (have > frameHead || r.block.stream != 0) {
		// Of less, the rest is there as a rule, but that nobody had a buffer for it.
		return broken(EnhanceYourCalm, "too many clients have sent a part of a head")
	}
	n, err := r.conn.wire.Read(r.in.b[r.to:])
	r.to += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// fit makes room for the next read behind what there is, so many bytes.
func (r *reader) fit(waiting Waiting, have int) {
	size := whole
	if waiting != ForFrame {
		for size = 0; size < whole && have > inputSizes[size]/2; {
			size++
		}
	}
	switch {
	case r.in == nil:
		r.in = takeInput(size)
	case r.in.size != size:
		next := takeInput(size)
		copy(next.b, r.bytes())
		r.free()
		r.in, r.from, r.to = next, 0, have
	case r.from > 0 && (size < whole || len(r.in.b)-r.from < maxFrame+frameHead):
		r.from, r.to = 0, copy(r.in.b, r.bytes())
	}
}

// holds is how much memory the client has for a head that is not whole, in bytes.
func (r *reader) holds() int {
	n := len(r.in.b)
	if r.block.stream != 0 { // HPACK keeps what is no whole field yet
		n += r.block.size + cap(r.head.Text)
	}
	return n
}

// hold takes note of that. It returns false if all clients have too much.
func (r *reader) hold(bytes int) bool {
	if more := bytes - r.held; more != 0 {
		r.held = bytes
		r.tooMuch = !r.conn.config.Hold(more)
	}
	return !r.tooMuch
}

// free gives the buffer back.
func (r *reader) free() {
	if r.in != nil {
		inputs[r.in.size].Put(r.in)
		r.in = nil
	}
}
