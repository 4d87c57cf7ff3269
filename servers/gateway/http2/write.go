package http2

import (
	"runtime"
	"sync"
)

// outputs are what frames wait in.
var outputs = sync.Pool{New: func() any {
	b := make([]byte, 0, outputRoom+4096)
	return &b
}}

func takeOutput() []byte { return *outputs.Get().(*[]byte) }

func giveOutput(b []byte) {
	if cap(b) == outputRoom+4096 {
		b = b[:0]
		outputs.Put(&b)
	}
}

// flush has written what waits. The lock is held.
func (c *Conn) flush() { c.notify(c.wake) }

// write writes frames until the connection closes. Those that come while it writes,
// or runs after others that have some, go together.
func (c *Conn) write() {
	for range c.wake {
		runtime.Gosched()
		c.mu.Lock()
		for len(c.out) > 0 && c.failed == nil {
			b := c.out
			c.out = takeOutput()
			c.mu.Unlock()
			_, err := c.wire.Write(b)
			giveOutput(b)
			c.mu.Lock()
			if err != nil {
				c.fail(err)
			}
			c.admit()
			c.notify(c.drained)
		}
		if c.failed != nil {
			c.out = c.out[:0]
		}
		if len(c.streams) == 0 {
			giveOutput(c.out)
			c.out = nil
		}
		closing := c.closing
		c.mu.Unlock()
		if closing {
			return
		}
	}
}

// fail takes note that the client takes no more. The lock is held.
func (c *Conn) fail(err error) {
	c.failed = err
	for _, s := range c.streams {
		s.cancel(err)
	}
	c.config.Stop()
}

// breathe waits until what was answered is written, so that who reads nothing
// cannot ask for more and more.
func (c *Conn) breathe() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 2*outputRoom && c.failed == nil {
		c.flush()
		c.mu.Unlock()
		<-c.drained
		c.mu.Lock()
	}
	return c.failed
}

// room is how much may be written that can wait.
func (c *Conn) room() int { return outputRoom - len(c.out) - c.promised }

// admit lets those go on that wait for room, in their order, as far as there is some.
func (c *Conn) admit() {
	for len(c.queue) > 0 && c.window > 0 && c.room() > 0 {
		s := c.queue[0]
		c.queue = append(c.queue[:0], c.queue[1:]...)
		s.queued, s.turn = false, true
		c.promised += maxFrame
		s.wakeWriter()
	}
}

// forgo gives up a place in the queue, or what was promised.
func (s *Stream) forgo() {
	c := s.conn
	if s.queued {
		s.queued = false
		for i := range c.queue {
			if c.queue[i] == s {
				c.queue = append(c.queue[:i], c.queue[i+1:]...)
				break
			}
		}
	}
	if s.turn {
		s.turn = false
		c.promised -= maxFrame
		c.admit()
	}
}

// await waits until a piece of a body may be sent. The lock is held.
func (s *Stream) await() error {
	c := s.conn
	for {
		switch {
		case s.err != nil:
			s.forgo()
			return s.err
		case s.window > 0 && c.window > 0 && (s.turn || len(c.queue) == 0 && c.room() > 0):
			if s.turn {
				s.turn = false
				c.promised -= maxFrame
			}
			return nil
		}
		strict := s.window <= 0
		s.forgo()
		if !strict {
			s.queued = true
			c.queue = append(c.queue, s)
		}
		c.flush()
		if !s.wait(s.writable, &s.writeTimer) && s.err == nil && (strict || c.config.Now()-c.moved > s.patience.Load()) {
			s.forgo()
			return errStalled
		}
	}
}

// pour sends a piece of a body, and its end. The lock is held.
func (s *Stream) pour(b []byte, end bool) error {
	c := s.conn
	for len(b) > 0 {
		if err := s.await(); err != nil {
			return err
		}
		n := int(min(int64(len(b)), maxFrame, s.window, c.window))
		flags := uint8(0)
		if end && n == len(b) {
			flags, s.sent = flagEndStream, true
		}
		c.out = append(appendFrame(c.out, n, kindData, flags, s.id), b[:n]...)
		c.moved = c.config.Now()
		s.window -= int64(n)
		c.window -= int64(n)
		if b = b[n:]; len(b) == 0 || n >= leastWindow {
			c.idle.Earn(1)
		}
		c.idle.Earn(n >> 10 * earnedByData)
	}
	if end && !s.sent {
		if s.err != nil {
			return s.err
		}
		c.out = appendFrame(c.out, 0, kindData, flagEndStream, s.id)
		s.sent = true
	}
	s.settle()
	return nil
}

// fields sends a head or trailers. They do not wait: there are never more of them
// than streams. The lock is held.
func (s *Stream) fields(write func(b []byte) []byte, end bool) error {
	if s.err != nil {
		return s.err
	}
	c := s.conn
	c.block = write(c.encoder.begin(c.block[:0]))
	flags := uint8(0)
	if end {
		flags, s.sent = flagEndStream, true
	}
	b := c.block
	for k := kindHeaders; ; k, flags = kindContinuation, 0 {
		n := min(len(b), maxFrame)
		if n == len(b) {
			flags |= flagEndHeaders
		}
		c.out = append(appendFrame(c.out, n, k, flags, s.id), b[:n]...)
		if b = b[n:]; len(b) == 0 {
			break
		}
	}
	s.settle()
	return nil
}
