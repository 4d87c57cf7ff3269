package http2

import (
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
	"github.com/fairlead-net/fairlead/servers/gateway/multiplex"
)

// Waiting is what a connection waits for when it reads.
type Waiting uint8

// What it may be.
const (
	ForRequest Waiting = iota // nothing is under way
	ForRest                   // some of a head has come
	ForFrame                  // streams are served
)

// Config is what a connection goes by. The functions must not block, nor call the
// connection.
type Config struct {
	Limits  http1.Limits // of the text of requests
	Streams int          // at once
	// Patience is how long a stream waits for a piece of its body, or for room to send
	// one.
	Patience time.Duration
	// Now is the time in nanoseconds; it need not be precise.
	Now func() int64
	// Hold takes note of bytes more, or fewer, that heads have which are not whole; false:
	// that is too much.
	Hold func(bytes int) bool
	// Start has a goroutine serve a stream, and call its End.
	Start func(*Stream)
	// Wait is told before each read what is waited for, and Idle during one that there
	// is nothing under way any more.
	Wait func(Waiting)
	Idle func()
	// Stop ends the read that is under way, and those that come.
	Stop func()
}

// Conn is a connection of a client.
type Conn struct {
	config Config
	wire   io.ReadWriter

	mu      sync.Mutex
	serving sync.WaitGroup // of streams
	streams map[uint32]*Stream
	open    int           // of them, those that the client has to count
	last    uint32        // that it has begun
	served  uint32        // the last of those that were not refused
	early   *[1024]uint32 // that ended before the client had sent all; nil: none has
	earlier int
	encoder encoder
	block   []byte // of fields, that is being written
	resets  multiplex.Budget
	idle    multiplex.Budget

	// Of what is sent.
	out      []byte // frames that wait for the writer
	wake     chan struct{}
	drained  chan struct{} // there is room again, for who reads
	initial  int64         // window of streams that begin
	window   int64
	queue    []*Stream // that wait for room, or for the connection's window
	promised int       // bytes of room, to those that were let go on
	moved    int64     // when a piece of a body went, or might have, last
	failed   error     // no more can be sent

	// Of what is received.
	credit, consumed int64 // of the window: what the client may send, and what it is not told yet

	draining bool // the client was told
	leaving  bool // and no stream begins any more
	closing  bool // nothing is to be sent once all is
}

// Windows, in bytes.
const (
	maxWindow        = 1<<31 - 1
	defaultWindow    = 65535
	streamWindow     = 256 << 10
	connectionWindow = 1 << 20
)

// outputRoom is how much waits to be written before those that write more wait.
const outputRoom = 2 * (maxFrame + frameHead)

// New returns a connection that is served by Serve.
func New(wire io.ReadWriter, config Config) *Conn {
	now := config.Now()
	c := &Conn{
		config: config, wire: wire, streams: map[uint32]*Stream{}, encoder: newEncoder(),
		resets: multiplex.Resets(now), idle: multiplex.Budget{Most: mostIdle, Each: eachIdle, At: now},
		wake: make(chan struct{}, 1), drained: make(chan struct{}, 1),
		initial: defaultWindow, window: defaultWindow, credit: connectionWindow, moved: now,
	}
	c.out = appendSettings(nil, config.Streams, config.Limits.Head)
	c.out = appendWindowUpdate(c.out, 0, connectionWindow-defaultWindow)
	c.notify(c.wake)
	return c
}

// Serve serves until the client is gone, has broken a rule, or was drained. Then all
// streams have ended, and all was written that could be. The error is why.
func (c *Conn) Serve() error {
	var writing sync.WaitGroup
	writing.Go(c.write)
	r := newReader(c)
	err := r.run()
	r.free()
	r.hold(0)
	c.end(err)
	c.serving.Wait()
	c.mu.Lock()
	c.closing = true
	c.flush()
	c.mu.Unlock()
	writing.Wait()
	return err
}

var errGone = errors.New("the connection has ended")

// end ends all streams, and tells the client why.
func (c *Conn) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var rule *Error
	switch {
	case errors.As(why, &rule):
		c.out = appendGoAway(c.out, c.served, rule.Code, rule.Reason)
	case why != nil && !errors.Is(why, io.EOF) && !c.leaving:
		c.out = appendGoAway(c.out, c.served, NoError, "")
	}
	c.leaving = true
	for _, s := range c.streams {
		s.cancel(errGone)
	}
	c.flush()
}

// Drain tells the client to ask elsewhere from now on; what is on its way is served
// (RFC 9113, section 6.8).
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining || c.leaving {
		return
	}
	c.draining = true
	c.out = appendGoAway(c.out, maxWindow, NoError, "")
	c.out = appendPing(c.out, 0, drainMark[:])
	c.flush()
}

// drainMark is the PING whose answer says that the client knows.
var drainMark = [8]byte{'f', 'a', 'i', 'r', 'l', 'e', 'a', 'd'}

// Leave takes no streams any more. The connection ends with the last of those that
// there are.
func (c *Conn) Leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave()
}

func (c *Conn) leave() {
	if c.leaving {
		return
	}
	c.leaving = true
	c.out = appendGoAway(c.out, c.served, NoError, "")
	c.flush()
	if len(c.streams) == 0 {
		c.config.Stop()
	}
}

// reset ends a stream whose client has broken a rule. The lock is held.
func (c *Conn) reset(e *Error) *Error {
	s := c.streams[e.Stream]
	if s != nil && s.over {
		return nil
	}
	c.out = appendReset(c.out, e.Stream, e.Code)
	c.flush()
	if s != nil {
		if !s.ended {
			c.remember(s.id)
		}
		s.cancel(e)
	}
	return c.spendReset()
}

// spendReset takes note of a stream that ended before its answer.
func (c *Conn) spendReset() *Error {
	if !c.resets.Spend(1, c.config.Now()) {
		return broken(EnhanceYourCalm, "too many streams end before their answer")
	}
	return nil
}

// spend takes note of a frame that brings nothing.
func (c *Conn) spend() *Error {
	if !c.idle.Spend(1, c.config.Now()) {
		return broken(EnhanceYourCalm, "too many frames bring nothing")
	}
	return nil
}

// remember takes note of a stream that ended before the client's end of it, so that
// what is on its way is no mistake.
func (c *Conn) remember(stream uint32) {
	if c.early == nil {
		c.early = new([1024]uint32)
	}
	c.early[c.earlier%len(c.early)] = stream
	c.earlier++
}

// endedEarly tells whether it did.
func (c *Conn) endedEarly(id uint32) bool {
	return c.early != nil && slices.Contains(c.early[:], id)
}

func (c *Conn) notify(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}
