package forward

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// stream asks by TCP or TLS, over connections that stay open, many queries at a
// time on each (RFC 7766, RFC 7858).
type stream struct {
	form form
	dial func(context.Context) (net.Conn, error)

	opening chan struct{} // of one element: whoever opens a connection holds it

	hits, misses atomic.Uint64
	readers      sync.WaitGroup

	mu     sync.Mutex
	pipes  []*pipe // those that are not broken
	closed bool
}

const (
	// maxPipes is how many connections an upstream gets.
	maxPipes = 4
	// fullPipe is how many queries wait on one before another one is opened.
	fullPipe = 64
	// maxOnPipe is how many may wait on one at all.
	maxOnPipe = 4096
)

var (
	errClosed = errors.New("the upstream is not asked any more")
	errBusy   = errors.New("too many queries wait for this upstream")
)

func newStream(f form, dial func(context.Context) (net.Conn, error)) *stream {
	return &stream{form: f, dial: dial, opening: make(chan struct{}, 1)}
}

// exchange asks on a connection that is open, if there is one. A server may close
// it at any time, so that what was asked on it is asked again, until it was the
// first to be asked on one.
func (s *stream) exchange(ctx context.Context, a *ask) ([]byte, error) {
	for range maxPipes {
		p, err := s.open(ctx)
		if err != nil {
			return nil, err
		}
		fresh := p.fresh.Swap(false)
		answer, err := p.exchange(ctx, a, s.form)
		if err == nil || fresh || ctx.Err() != nil || !errors.Is(err, errBroken) {
			return answer, err
		}
		a.trace.say("the connection had been closed: asked on another one")
	}
	return nil, errBroken
}

// open returns a connection that is well, as far as is known. One query at a time
// opens one; others wait for it.
func (s *stream) open(ctx context.Context) (*pipe, error) {
	if p, err := s.best(); p != nil || err != nil {
		return p, err
	}
	select {
	case s.opening <- struct{}{}:
		defer func() { <-s.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p, err := s.best(); p != nil || err != nil {
		return p, err
	}
	s.misses.Add(1)
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	p := newPipe(conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return nil, errClosed
	}
	s.pipes = append(s.pipes, p)
	s.readers.Go(func() {
		p.read()
		s.forget(p)
	})
	return p, nil
}

// best is the connection with the least to do; nil if another one should be
// opened.
func (s *stream) best() (*pipe, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	var best *pipe
	least, well := maxOnPipe, 0
	for _, p := range s.pipes {
		waiting, ok := p.count()
		if !ok {
			continue
		}
		if well++; waiting < least {
			best, least = p, waiting
		}
	}
	switch {
	case best != nil && (least < fullPipe || well >= maxPipes):
		s.hits.Add(1)
		return best, nil
	case best == nil && well >= maxPipes:
		return nil, errBusy
	}
	return nil, nil
}

func (s *stream) forget(p *pipe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.pipes {
		if s.pipes[i] == p {
			s.pipes = append(s.pipes[:i], s.pipes[i+1:]...)
			return
		}
	}
}

func (s *stream) reused() (hits, misses uint64) { return s.hits.Load(), s.misses.Load() }

func (s *stream) close() {
	s.mu.Lock()
	s.closed = true
	for _, p := range s.pipes {
		_ = p.conn.Close()
	}
	s.mu.Unlock()
	s.readers.Wait()
}
