package dns

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Server answers queries, by UDP and TCP.
type Server struct {
	forward Forwarder // nil: nobody is asked
	gate    Gate      // nil: answers need none
	log     *slog.Logger
	served  atomic.Pointer[Served]
	others  Client // all that are no pods of this node
	counts  counts // of all but the loops
	pending pending
	places  places
	watched watched

	mu      sync.Mutex
	wanted  []netip.AddrPort // sorted
	open    []netip.AddrPort // sorted
	changed chan struct{}    // of one element
	loops   []*counts        // of each loop that there is; of one that has ended, the next has it
	idle    []*counts
}

// New returns a server that knows nothing yet, and listens nowhere. Without a
// Forwarder it refuses to answer for names that are not of the cluster; without a
// Gate, no policy allows names.
func New(forward Forwarder, gate Gate, log *slog.Logger) *Server {
	s := &Server{forward: forward, gate: gate, log: log, changed: make(chan struct{}, 1)}
	s.served.Store(&Served{})
	return s
}

// Serve makes the server answer from this from now on. It does not block.
func (s *Server) Serve(served *Served) { s.served.Store(served) }

// Listen makes the server listen at these addresses, and at no others. It does
// not block. An address that the node does not have, or not yet, is no failure;
// one that another program listens at is tried again until it is free.
func (s *Server) Listen(at []netip.AddrPort) {
	at = slices.Clone(at)
	slices.SortFunc(at, netip.AddrPort.Compare)
	at = slices.Compact(at)
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(s.wanted, at) {
		return
	}
	s.wanted = at
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Listening returns where the server listens now, and where it should and cannot,
// both sorted.
func (s *Server) Listening() (at, missing []netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, want := range s.wanted {
		if _, ok := slices.BinarySearchFunc(s.open, want, netip.AddrPort.Compare); !ok {
			missing = append(missing, want)
		}
	}
	return slices.Clone(s.open), missing
}

// retryPause is how long it takes until an address is tried again that could not
// be listened at.
const retryPause = time.Second

// Run serves until the context ends, and returns nil when all sockets are closed.
func (s *Server) Run(ctx context.Context) error {
	doors := map[netip.AddrPort]*door{}
	said := map[netip.AddrPort]string{}
	for {
		s.mu.Lock()
		wanted := s.wanted
		s.mu.Unlock()
		var retry <-chan time.Time
		for _, at := range wanted {
			if doors[at] != nil {
				continue
			}
			d, err := s.openDoor(ctx, at)
			if err != nil {
				if said[at] != err.Error() {
					said[at] = err.Error()
					s.log.Error("queries to an address are not answered here, trying again", "address", at, "error", err)
				}
				retry = time.After(retryPause)
				continue
			}
			delete(said, at)
			doors[at] = d
			s.log.Info("answering queries", "address", at)
		}
		s.close(doors, func(at netip.AddrPort) bool { return slices.Contains(wanted, at) })
		s.mu.Lock()
		s.open = s.open[:0]
		for at := range doors {
			s.open = append(s.open, at)
		}
		slices.SortFunc(s.open, netip.AddrPort.Compare)
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			s.close(doors, func(netip.AddrPort) bool { return false })
			return nil
		case <-s.changed:
		case <-retry:
		}
	}
}

// tallied returns the counts for a loop that begins.
func (s *Server) tallied() *counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.idle); n > 0 {
		c := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return c
	}
	c := &counts{}
	s.loops = append(s.loops, c)
	return c
}

// ended takes the counts back of a loop that has ended. What they hold stays.
func (s *Server) ended(c *counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, c)
}

// close ends the doors that are not to stay, side by side.
func (s *Server) close(doors map[netip.AddrPort]*door, stays func(netip.AddrPort) bool) {
	var closing sync.WaitGroup
	for at, d := range doors {
		if !stays(at) {
			closing.Go(d.close)
			delete(doors, at)
		}
	}
	closing.Wait()
}

// memory finds what is known of the outside without asking.
type memory struct{ Forwarder }

func (m memory) find(q Question, into []byte) ([]byte, found) {
	if m.Forwarder == nil {
		return into, nowhere
	}
	answer, ok := m.Cached(q, into)
	if !ok {
		return answer, later
	}
	return answer, known
}

// inquiry asks.
type inquiry struct {
	Forwarder
	ctx context.Context
}

func (i inquiry) find(q Question, into []byte) ([]byte, found) {
	q.Name = cloneName(q.Name)
	answer, err := i.Answer(i.ctx, q, into)
	if err != nil {
		return into, failed
	}
	return answer, known
}
