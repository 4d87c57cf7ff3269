package gateway

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// tick is how precise timeouts are.
const tick = 100 * time.Millisecond

// clock is the time as of the last tick: reading it costs nothing.
type clock struct{ at atomic.Int64 }

func (c *clock) now() int64 { return c.at.Load() }

// watch keeps the deadlines of all sockets, and what they share. To set a timer for each message would
// cost more than to look at each socket ten times a second.
type watch struct {
	clock clock
	pipes pipes
	began time.Time
	asked int64 // when leave was, last

	mu    sync.Mutex
	socks []*sock
}

func (w *watch) add(s *sock) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.index = len(w.socks)
	w.socks = append(w.socks, s)
}

func (w *watch) remove(s *sock) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.socks[len(w.socks)-1]
	w.socks[s.index], last.index = last, s.index
	w.socks[len(w.socks)-1] = nil
	w.socks = w.socks[:len(w.socks)-1]
}

// run looks at the sockets until the context ends.
func (w *watch) run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			now := int64(time.Since(w.began)) + 1
			w.clock.at.Store(now)
			if w.look(now); now-w.asked > int64(time.Second) {
				w.asked = now
				w.leave()
			}
		}
	}
}

// look ends the waits that have lasted too long.
func (w *watch) look(now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.socks {
		if until := s.in.until.Load(); until != 0 && until < now {
			_ = s.SetReadDeadline(past())
		}
		if until := s.out.until.Load(); until != 0 && until < now {
			_ = s.SetWriteDeadline(past())
		}
	}
}

// leave ends waiting for the answers of clients that are gone: as others do, it
// takes one that sends no more for gone.
func (w *watch) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.socks {
		if s.awaits.Load() == nil || !s.left() {
			continue
		}
		if up := s.awaits.Swap(nil); up != nil {
			_ = up.SetDeadline(past())
		}
	}
}

// waiting counts the sockets that wait for the first byte of a request.
func (w *watch) waiting() (n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.socks {
		if s.waiting.Load() {
			n++
		}
	}
	return n
}

// cut ends all waits, or those for the first byte of a request.
func (w *watch) cut(all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.socks {
		if all {
			_ = s.SetDeadline(past())
		} else if s.waiting.Load() {
			_ = s.SetReadDeadline(past())
		}
	}
}
