package drop

import (
	"slices"
	"sync"
	"time"
)

// Ring keeps the latest records. The zero value keeps none.
type Ring struct {
	Size int // how many

	mu      sync.Mutex
	records []*Record // as they came
	changed chan struct{}
}

// Add adds a record, the oldest of too many goes. Its time is made later than
// that of the one before, if it is not: a clock may be set back.
func (r *Ring) Add(record *Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := len(r.records) - 1; last >= 0 && !record.Time.After(r.records[last].Time) {
		record.Time = r.records[last].Time.Add(time.Nanosecond)
	}
	r.records = append(r.records, record)
	if len(r.records) >= 2*r.Size { // the array is moved once for each Size of them
		r.records = slices.Clone(r.records[len(r.records)-r.Size:])
	}
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Since returns the records that are kept and are later than a time, and a
// channel that is closed when there are more.
func (r *Ring) Since(after time.Time) ([]*Record, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	records := r.records[max(0, len(r.records)-r.Size):]
	at := len(records)
	for at > 0 && records[at-1].Time.After(after) {
		at--
	}
	return slices.Clone(records[at:]), r.changed
}
