package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// surveyor lists what it is told to.
type surveyor struct {
	mu      sync.Mutex
	drops   []model.ForwardChain
	err     error
	surveys int
	changed chan struct{}
}

func (s *surveyor) Surveyed() <-chan struct{} { return s.changed }

func (s *surveyor) Survey() (*model.Firewalls, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.surveys++
	return &model.Firewalls{Drops: slices.Clone(s.drops)}, s.err
}

func (s *surveyor) Droppers() ([]string, error) { return nil, nil }

func (s *surveyor) Legacy() ([]string, error) { return nil, nil }

func (s *surveyor) set(drops []model.ForwardChain, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drops, s.err = drops, err
}

func (s *surveyor) tell() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// What others filter with is in the feed at once, is nil until it is known, and
// stays as it was when it cannot be read; one who changes it all the time does
// not make the node spin.
func TestFirewallsAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chains := []model.ForwardChain{{Family: "ip", Table: "filter", Chain: "FORWARD"}}
		s, feed := &surveyor{changed: make(chan struct{}, 1), err: errors.New("busy")}, &model.Feed{}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- (&firewalls{feed: feed, surveyor: s, log: slog.New(slog.DiscardHandler)}).Run(ctx) }()
		shown := func() *model.Firewalls {
			synctest.Wait()
			snapshot, _ := feed.Latest()
			return snapshot.Firewalls
		}
		if shown() != nil {
			t.Error("they are known")
		}
		s.set(nil, nil)
		time.Sleep(2 * time.Second) // without being told
		if f := shown(); f == nil || len(f.Drops) != 0 {
			t.Errorf("shown %v", f)
		}
		time.Sleep(time.Minute)
		s.set(chains, nil)
		s.tell()
		time.Sleep(50 * time.Millisecond)
		if f := shown(); !slices.Equal(f.Drops, chains) {
			t.Errorf("shown %v", f)
		}
		s.set(nil, errors.New("busy"))
		s.tell()
		time.Sleep(time.Second)
		if f := shown(); !slices.Equal(f.Drops, chains) {
			t.Errorf("shown %v", f)
		}
		s.set(chains, nil)
		time.Sleep(10 * time.Minute)
		before, revision := s.surveys, feedRevision(feed)
		for range 60 * 1000 {
			s.tell()
			time.Sleep(time.Millisecond)
		}
		if n := s.surveys - before; n < 60 || n > 150 || feedRevision(feed) != revision {
			t.Errorf("surveyed %d times in a minute, %d revisions", n, feedRevision(feed)-revision)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func feedRevision(feed *model.Feed) uint64 {
	snapshot, _ := feed.Latest()
	return snapshot.Revision
}
