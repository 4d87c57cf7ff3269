package dataplane

import (
	"iter"

	"github.com/fairlead-net/fairlead/model"
)

// Delta tracks the difference between what should be and what is. The zero
// value is ready: nothing should be, nothing is. Not safe for concurrent use.
//
// Its cost follows the difference: Desire compares persistent maps, and Puts
// and Removals visit only keys that differ. So does its memory: what is as it
// should be is in the persistent map alone, which others have anyway.
type Delta[K, V comparable] struct {
	desired model.Map[K, V]
	differs map[K]actual[V] // what is there for keys for which that is not what should be; nil: for none
}

// actual is what is there for a key.
type actual[V comparable] struct {
	value   V
	present bool
}

// Desire says what should be.
func (d *Delta[K, V]) Desire(desired model.Map[K, V]) {
	for change := range model.Diff(d.desired, desired) {
		is, differs := d.differs[change.Key]
		if !differs {
			is = actual[V]{change.Old, change.Had}
		}
		d.mark(change.Key, is, actual[V]{change.New, change.Has})
	}
	d.desired = desired
}

// Observe says what really is, all of it, after reading it back.
func (d *Delta[K, V]) Observe(found map[K]V) {
	d.differs = nil
	for key, value := range found {
		d.mark(key, actual[V]{value, true}, d.wanted(key))
	}
	for key, want := range d.desired.All() {
		if _, ok := found[key]; !ok {
			d.mark(key, actual[V]{}, actual[V]{want, true})
		}
	}
}

// Did says that key now has value: a put was carried out, or was seen to be.
func (d *Delta[K, V]) Did(key K, value V) { d.mark(key, actual[V]{value, true}, d.wanted(key)) }

// Removed says that key is no more.
func (d *Delta[K, V]) Removed(key K) { d.mark(key, actual[V]{}, d.wanted(key)) }

// Actual is what is there for key, as far as is known.
func (d *Delta[K, V]) Actual(key K) (V, bool) {
	if is, differs := d.differs[key]; differs {
		return is.value, is.present
	}
	return d.desired.Get(key)
}

// Wanted is what should be there for key.
func (d *Delta[K, V]) Wanted(key K) (V, bool) { return d.desired.Get(key) }

// Differs tells whether what is there for key is not what should be, as far as
// is known.
func (d *Delta[K, V]) Differs(key K) bool {
	_, ok := d.differs[key]
	return ok
}

// All iterates over what is there, as far as is known. Did and Removed may be
// called meanwhile.
func (d *Delta[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		desired := d.desired
		for key := range desired.All() {
			if value, ok := d.Actual(key); ok && !yield(key, value) {
				return
			}
		}
		for key, is := range d.differs {
			if _, wanted := desired.Get(key); !wanted && is.present && !yield(key, is.value) {
				return
			}
		}
	}
}

// Pending is how many keys differ.
func (d *Delta[K, V]) Pending() int { return len(d.differs) }

// Puts iterates over what must be added or replaced. Did and Removed may be
// called meanwhile.
func (d *Delta[K, V]) Puts() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for key := range d.differs {
			if want, ok := d.desired.Get(key); ok && !yield(key, want) {
				return
			}
		}
	}
}

// Removals iterates over what is there and should not be. Did and Removed may
// be called meanwhile.
func (d *Delta[K, V]) Removals() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for key, is := range d.differs {
			if _, ok := d.desired.Get(key); !ok && !yield(key, is.value) {
				return
			}
		}
	}
}

func (d *Delta[K, V]) wanted(key K) actual[V] {
	value, ok := d.desired.Get(key)
	return actual[V]{value, ok}
}

// mark notes what is there for a key, if that is not what is wanted.
func (d *Delta[K, V]) mark(key K, is, want actual[V]) {
	if is != want {
		if d.differs == nil {
			d.differs = map[K]actual[V]{}
		}
		d.differs[key] = is
		return
	}
	delete(d.differs, key)
	if len(d.differs) == 0 {
		d.differs = nil // an empty map keeps the memory of all that it ever had
	}
}
