package model

import (
	"sync"
	"time"
)

// Feed is where the sources of a node meet: each edits its part, and readers
// take the latest snapshot. The zero value is ready to use.
type Feed struct {
	mu      sync.Mutex
	latest  *Snapshot
	changed chan struct{}         // closed and replaced at each revision
	made    [remembered]time.Time // of the latest revisions, each at its number modulo the length
}

// remembered are the revisions of which a Feed knows when they were made.
const remembered = 1024

// Edit makes the next snapshot of the latest one and returns its revision. The
// edit may assign fields; it must not block. If it changes nothing, no revision
// is spent and the latest is returned.
func (f *Feed) Edit(edit func(*Snapshot)) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.init()
	next := *f.latest
	edit(&next)
	if next == *f.latest {
		return f.latest.Revision
	}
	next.Revision = f.latest.Revision + 1
	f.latest = &next
	f.made[next.Revision%remembered] = time.Now()
	close(f.changed)
	f.changed = make(chan struct{})
	return next.Revision
}

// Latest returns the newest snapshot and a channel that is closed when there
// is a newer one.
func (f *Feed) Latest() (*Snapshot, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.init()
	return f.latest, f.changed
}

// Made returns when a revision was made, by Go's monotonic clock too. Of one that
// is too old to be remembered it returns when the oldest was that is, and false;
// of one that is not made yet, the zero time and false.
func (f *Feed) Made(revision uint64) (made time.Time, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.init()
	latest := f.latest.Revision
	switch {
	case revision == 0 || revision > latest:
		return time.Time{}, false
	case latest-revision < remembered:
		return f.made[revision%remembered], true
	}
	return f.made[(latest+1)%remembered], false
}

func (f *Feed) init() {
	if f.latest == nil {
		f.latest = &Snapshot{}
		f.changed = make(chan struct{})
	}
}
