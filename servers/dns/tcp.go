package dns

import (
	"bufio"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Bounds of a TCP connection (RFC 7766).
const (
	idleTime     = 10 * time.Second // without a whole query
	writeTime    = 5 * time.Second  // for an answer to be taken
	maxPipelined = 32               // queries of one connection that others are asked for
	// lastTime is for a query that is on its way when the server ends.
	lastTime = 200 * time.Millisecond
)

// stream is one TCP connection. Queries are read one after the other; those that
// take time are answered when they can be, and do not keep others waiting.
type stream struct {
	server *Server
	conn   net.Conn
	place  *place
	from   asker
	room   chan struct{}
	last   context.Context // ends when the connection is to end once nothing is in hand
	later  sync.WaitGroup

	mu  sync.Mutex // of writing
	out []byte
}

// serve answers until the client or the context ends it.
func (c *stream) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	hurry := context.AfterFunc(c.last, func() { _ = c.conn.SetReadDeadline(time.Now().Add(lastTime)) })
	defer hurry()
	defer c.later.Wait()
	defer cancel()
	answer := answering{q: &query{}, r: &reply{}, others: &c.server.others, counts: &c.server.counts, outside: memory{c.server.forward}, gate: c.server.gate, random: rand.Uint32() | 1}
	reader := bufio.NewReaderSize(c.conn, 512)
	var into, message []byte
	for {
		var err error
		if message, err = c.next(reader, message); err != nil {
			return
		}
		c.place.used()
		began := time.Now()
		served := c.server.served.Load()
		reply := answer.message(served, message, c.from, into)
		waits := reply == nil && answer.waits
		if waits && !c.server.pending.enter(c.from.addr, began) {
			waits = false
			reply = answer.turnDown(served, message, c.from, into)
		}
		switch {
		case reply != nil:
			into = reply
			if !c.send(reply) {
				return
			}
			c.server.counts.took(answer.class, 1, time.Since(began))
			served.Log.take(&answer, began, nil)
			c.server.watched.see(&answer, began)
		case waits:
			select {
			case c.room <- struct{}{}:
			case <-ctx.Done():
				c.server.pending.leave(c.from.addr)
				return
			}
			c.server.slow(ctx, &c.later, append([]byte(nil), message...), c.from, func(reply []byte) {
				c.send(reply)
				<-c.room
			})
		}
		if cap(into) > maxKept {
			into = nil
		}
	}
}

// maxKept is the memory of a buffer that a connection keeps between queries.
const maxKept = 4096

// next reads a message into a buffer. Its client has a moment for all of it.
func (c *stream) next(reader *bufio.Reader, into []byte) ([]byte, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(idleTime)); err != nil {
		return nil, err
	}
	if c.last.Err() != nil {
		_ = c.conn.SetReadDeadline(time.Now().Add(lastTime))
	}
	var length [2]byte
	if _, err := io.ReadFull(reader, length[:]); err != nil {
		return nil, err
	}
	size := int(be.Uint16(length[:]))
	if size > maxQuery {
		return nil, io.ErrShortBuffer // no query is as long: what follows is not read
	}
	if cap(into) < size {
		into = make([]byte, maxQuery)
	}
	into = into[:size]
	_, err := io.ReadFull(reader, into)
	return into, err
}

// send writes an answer, in one piece with its length (RFC 7766, section 8).
func (c *stream) send(reply []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn.SetWriteDeadline(time.Now().Add(writeTime)) != nil {
		return false
	}
	c.out = append(be.AppendUint16(c.out[:0], uint16(len(reply))), reply...)
	if _, err := c.conn.Write(c.out); err != nil {
		_ = c.conn.Close()
		return false
	}
	if cap(c.out) > maxKept {
		c.out = nil
	}
	return true
}
