package agent

import (
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// progress is how far a loop has come, for those who ask while it is at work or
// hangs. What lasts is measured by Go's monotonic clock: the node's own may be
// set meanwhile. It is safe for concurrent use.
type progress struct {
	feed *model.Feed

	mu      sync.Mutex
	applied *model.Snapshot // the last that was, without an error; nil: none yet
	at      time.Time       // when it was
	busy    time.Time       // since when an apply is in progress; zero: none is
	waiting time.Time       // since when the kernel has not been as it should, at the last end; zero: it was
}

// begin is called before an apply.
func (p *progress) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = time.Now()
}

// turn is what came of an apply.
type turn struct {
	snapshot *model.Snapshot
	before   *model.Snapshot // that was applied before, without an error; nil: none
	took     time.Duration
	waited   time.Duration // the oldest of its changes, since the node heard of it; 0: it brought none
	err      error
}

// end is called after it.
func (p *progress) end(snapshot *model.Snapshot, err error) turn {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	done := turn{snapshot: snapshot, before: p.applied, took: now.Sub(p.busy), err: err}
	if oldest := p.oldest(snapshot); !oldest.IsZero() {
		done.waited = now.Sub(oldest)
	}
	if err == nil {
		p.applied, p.at, p.waiting = snapshot, now, time.Time{}
	}
	latest, _ := p.feed.Latest()
	p.waiting = p.oldest(latest)
	if err != nil && p.waiting.IsZero() {
		p.waiting = p.busy // it was to mend what somebody has changed
	}
	p.busy = time.Time{}
	return done
}

// oldest returns when the oldest change of a snapshot was made that is not
// applied; zero if there is none. It is called with the lock held.
func (p *progress) oldest(of *model.Snapshot) time.Time {
	first := uint64(1)
	if p.applied != nil {
		first = p.applied.Revision + 1
	}
	switch made, known := p.feed.Made(first); {
	case !p.waiting.IsZero():
		return p.waiting
	case first > of.Revision:
		return time.Time{}
	case !known && !p.busy.IsZero() && p.busy.Before(made):
		return p.busy // so many changes came since then that the first is forgotten
	default:
		return made
	}
}

// stuck is how long the apply in progress has taken; 0 if there is none.
func (p *progress) stuck() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy.IsZero() {
		return 0
	}
	return time.Since(p.busy)
}

// behind is for how long the oldest change waits that is not applied; 0 if none
// does.
func (p *progress) behind() time.Duration {
	latest, _ := p.feed.Latest()
	p.mu.Lock()
	defer p.mu.Unlock()
	if oldest := p.oldest(latest); !oldest.IsZero() {
		return time.Since(oldest)
	}
	return 0
}

// last returns when a snapshot was applied last without an error; zero if none
// was.
func (p *progress) last() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}
