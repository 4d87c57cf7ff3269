package agent

import (
	"context"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// transition takes a change of tunnels from step to step: see model.Snapshot.Follow.
type transition struct{ feed *model.Feed }

const (
	// comingTime is what a node that is connected takes to hear of a change and
	// to follow, with room to spare.
	comingTime = 5 * time.Second
	// formerTime is far longer, and short enough for a port or a name to be free
	// again soon.
	formerTime = time.Minute
)

// Run watches until the context ends.
func (t *transition) Run(ctx context.Context) error {
	var was model.Snapshot
	var arrive, forget <-chan time.Time
	for {
		now, changed := t.feed.Latest()
		if now.Coming != was.Coming {
			arrive = after(now.Coming, comingTime)
		}
		if now.Former != was.Former {
			forget = after(now.Former, formerTime)
		}
		was = *now
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-arrive:
			t.feed.Edit(func(s *model.Snapshot) {
				if s.Coming == was.Coming {
					s.Arrive()
				}
			})
		case <-forget:
			t.feed.Edit(func(s *model.Snapshot) {
				if s.Former == was.Former {
					s.Former = nil
				}
			})
		}
	}
}

func after(routing *model.Routing, d time.Duration) <-chan time.Time {
	if routing == nil {
		return nil
	}
	return time.After(d)
}
