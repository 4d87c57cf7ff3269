package feed

import (
	"context"

	"github.com/fairlead-net/fairlead/model"
)

// maxLessons bounds the batches of one server that wait to be learned. What comes
// then is not confirmed, and told again.
const maxLessons = 4096

// lessons are what a server has told of names. Its fields but the channels are
// guarded by the Sender's mu.
type lessons struct {
	heard   []batch
	taken   []uint64      // batches that were learned, and are not confirmed
	come    chan struct{} // of one element: something was told
	learned chan struct{} // of one element: something was taken
}

func newLessons() lessons {
	return lessons{come: make(chan struct{}, 1), learned: make(chan struct{}, 1)}
}

// hear takes a batch. The Sender's mu is held.
func (l *lessons) hear(b batch) {
	if len(l.heard) < maxLessons {
		l.heard = append(l.heard, b)
		signal(l.come)
	}
}

func signal(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// teach lets a server's batches be learned, all that there are at once, until the
// context ends.
func (s *Sender) teach(ctx context.Context, from *server) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-from.come:
		}
		s.mu.Lock()
		all := from.heard
		from.heard = nil
		s.mu.Unlock()
		var found []model.Resolution
		var ids []uint64
		for _, b := range all {
			found, ids = append(found, b.Names...), append(ids, b.ID)
		}
		if s.Learn == nil || s.Learn(ctx, found) != nil {
			continue
		}
		s.mu.Lock()
		from.taken = append(from.taken, ids...)
		s.mu.Unlock()
		signal(from.learned)
	}
}

// confirm tells a server what was learned.
func (s *Sender) confirm(out *writer, to *server) error {
	s.mu.Lock()
	all := to.taken
	to.taken = nil
	s.mu.Unlock()
	for len(all) > 0 {
		n := min(len(all), perConfirm)
		if err := out.put("installed", installed{IDs: all[:n]}); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}
