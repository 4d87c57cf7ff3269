package model

import "sync"

// Feed is where the sources of a node meet: each edits its part, and readers
// take the latest snapshot. The zero value is ready to use.
type Feed struct {
	mu      sync.Mutex
	latest  *Snapshot
	changed chan struct{} // closed and replaced at each revision
}

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

func (f *Feed) init() {
	if f.latest == nil {
		f.latest = &Snapshot{}
		f.changed = make(chan struct{})
	}
}
