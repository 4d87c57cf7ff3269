package dns

import (
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// draft is a map in the making: many changes of it are one.
type draft[K comparable] struct {
	base  model.Map[K, *Records]
	edits map[K]*Records // nil: gone
}

func newDraft[K comparable](base model.Map[K, *Records]) draft[K] {
	return draft[K]{base, map[K]*Records{}}
}

// get returns nil if there is none.
func (d *draft[K]) get(key K) *Records {
	if records, ok := d.edits[key]; ok {
		return records
	}
	records, _ := d.base.Get(key)
	return records
}

// with sets what a key has, if it differs. The key is kept, and may be an empty
// name: one that cannot be.
func (d *draft[K]) with(key K, records *Records) {
	var none K
	if old := d.get(key); key != none && (old == nil || !old.equal(records)) {
		d.edits[key] = records
	}
}

func (d *draft[K]) without(key K) {
	if d.get(key) != nil {
		d.edits[key] = nil
	}
}

// done is the map that came of it.
func (d *draft[K]) done() model.Map[K, *Records] {
	if d.base.Len() == 0 { // all at once
		return model.Collect(func(yield func(K, *Records) bool) {
			for key, records := range d.edits {
				if records != nil && !yield(key, records) {
					return
				}
			}
		})
	}
	for key, records := range d.edits {
		if records == nil {
			d.base = d.base.Without(key)
		} else if old, _ := d.base.Get(key); old == nil || !old.equal(records) {
			d.base = d.base.With(key, records)
		}
	}
	return d.base
}

// equal tells whether nothing differs.
func (r *Records) equal(other *Records) bool {
	return r == other || r.CNAME == other.CNAME && slices.Equal(r.Addrs, other.Addrs) && slices.Equal(r.SRV, other.SRV) &&
		slices.Equal(r.PTR, other.PTR) && slices.Equal(r.TXT, other.TXT)
}
