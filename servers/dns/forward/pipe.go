package forward

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// pipe is one connection over which messages go with their lengths before them
// (RFC 1035, section 4.2.2). Answers come in any order.
type pipe struct {
	conn  net.Conn
	fresh atomic.Bool   // nobody has asked on it yet
	heard atomic.Uint64 // how many messages have come

	writing sync.Mutex // one message after the other

	mu      sync.Mutex
	waiting map[uint16]*waiter
	broken  error // why it is of no use any more
}

// waiter is who waits for one answer.
type waiter struct {
	request []byte
	answer  chan []byte // of one element; closed: the pipe has broken
}

// idle is for how long a connection stays open on which nothing comes.
const idle = 10 * time.Second

// errBroken is of a connection that has ended, by whomever.
var errBroken = errors.New("the connection has ended")

func newPipe(conn net.Conn) *pipe {
	p := &pipe{conn: conn, waiting: map[uint16]*waiter{}}
	p.fresh.Store(true)
	_ = conn.SetReadDeadline(time.Now().Add(idle))
	return p
}

// count is how many wait on it; it is not ok if it has ended.
func (p *pipe) count() (waiting int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting), p.broken == nil
}

func (p *pipe) exchange(ctx context.Context, a *ask, f form) ([]byte, error) {
	id, w, err := p.enter(a, f)
	if err != nil {
		return nil, err
	}
	heard := p.heard.Load()
	if err := p.write(ctx, w.request); err != nil {
		p.leave(id)
		p.fail(err)
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	select {
	case answer, ok := <-w.answer:
		if !ok {
			p.mu.Lock()
			defer p.mu.Unlock()
			return nil, fmt.Errorf("%w: %w", errBroken, p.broken)
		}
		return answer, nil
	case <-ctx.Done():
		p.leave(id)
		if p.heard.Load() == heard && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			p.fail(errors.New("nothing has come for the time of a query")) // the next one gets a new connection
		}
		return nil, ctx.Err()
	}
}

// enter finds an identifier that nobody else waits with.
func (p *pipe) enter(a *ask, f form) (uint16, *waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return 0, nil, fmt.Errorf("%w: %w", errBroken, p.broken)
	}
	if len(p.waiting) >= maxOnPipe {
		return 0, nil, errBusy
	}
	id := randomID()
	for p.waiting[id] != nil {
		id = randomID()
	}
	w := &waiter{request: a.pack(id, f), answer: make(chan []byte, 1)}
	p.waiting[id] = w
	return id, w, nil
}

func (p *pipe) leave(id uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, id)
}

func (p *pipe) write(ctx context.Context, request []byte) error {
	msg := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(request)), uint16(len(request)))
	msg = append(msg, request...)
	p.writing.Lock()
	defer p.writing.Unlock()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(idle)
	}
	_ = p.conn.SetWriteDeadline(deadline)
	_ = p.conn.SetReadDeadline(time.Now().Add(idle))
	_, err := p.conn.Write(msg)
	return err
}

// read takes in answers until the connection ends.
func (p *pipe) read() {
	p.fail(p.readAll())
}

func (p *pipe) readAll() error {
	in := bufio.NewReaderSize(p.conn, 4096)
	var length [2]byte
	for {
		if _, err := io.ReadFull(in, length[:]); err != nil {
			return err
		}
		msg := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(in, msg); err != nil {
			return err
		}
		p.heard.Add(1)
		if err := p.deliver(msg); err != nil {
			return err
		}
	}
}

// deliver gives an answer to who waits for it. Who waits no more may have gone.
// Nobody but the upstream writes here, so that a wrong answer means that it
// cannot be relied on: the connection ends.
func (p *pipe) deliver(msg []byte) error {
	if len(msg) < headerLen {
		return errNotWhole
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id := binary.BigEndian.Uint16(msg)
	w := p.waiting[id]
	if w == nil {
		return nil
	}
	if err := verify(w.request, msg); err != nil {
		return err
	}
	delete(p.waiting, id)
	w.answer <- msg
	return nil
}

// fail ends the connection, and tells all who wait.
func (p *pipe) fail(why error) {
	_ = p.conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return
	}
	p.broken = why
	for id, w := range p.waiting {
		close(w.answer)
		delete(p.waiting, id)
	}
}
