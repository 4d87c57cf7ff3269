package forward

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// datagram asks by UDP, and by TCP what is too long for it. Each query has a
// socket of its own, connected to the upstream: its port is random (the kernel
// draws it), and the kernel drops what others send to it.
type datagram struct {
	dial func(context.Context) (net.Conn, error)
	form form
	long *stream
}

const (
	// maxDatagram is the longest answer read; longer ones than were asked for are
	// tolerated up to it.
	maxDatagram = 2048
	// maxForged is how many messages may come that are no answers to what was
	// asked. After them somebody is guessing, and the query goes by TCP.
	maxForged = 8
)

var datagrams = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// errForged makes a query go by TCP.
var errForged = errors.New("others than the upstream have answered")

func (d *datagram) exchange(ctx context.Context, a *ask) ([]byte, error) {
	answer, err := d.once(ctx, a, d.form)
	if err == nil && !a.do && (rcodeOf(answer) == rcodeFormat || rcodeOf(answer) == rcodeNotImpl) {
		a.trace.say("it does not know EDNS: asked without it")
		answer, err = d.once(ctx, a, form{plain: true, mixed: d.form.mixed})
	}
	switch {
	case err == nil && truncated(answer):
		a.trace.say("the answer is too long for UDP: asked by TCP")
	case errors.Is(err, errForged):
		a.trace.say("messages came that answer something else: asked by TCP")
	default:
		return answer, err
	}
	return d.long.exchange(ctx, a)
}

// once asks one time. It returns a copy of the answer.
func (d *datagram) once(ctx context.Context, a *ask, f form) ([]byte, error) {
	conn, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	request := a.pack(randomID(), f)
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	buffer := datagrams.Get().(*[maxDatagram]byte)
	defer datagrams.Put(buffer)
	for range maxForged {
		n, err := conn.Read(buffer[:])
		if err != nil {
			return nil, err
		}
		switch err := verify(request, buffer[:n]); {
		case errors.Is(err, errCase):
			return nil, errForged
		case err != nil:
			continue
		case n == maxDatagram: // some of it may be lost
			buffer[2] |= flagTC >> 8
		}
		return append([]byte(nil), buffer[:n]...), nil
	}
	return nil, errForged
}

// reused says nothing of sockets, which are never used twice.
func (d *datagram) reused() (hits, misses uint64) { return d.long.reused() }

func (d *datagram) close() { d.long.close() }
