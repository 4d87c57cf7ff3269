package dataplane

import (
	"iter"
	"maps"

	"github.com/fairlead-net/fairlead/model"
)

// Delta tracks the difference between what should be and what is. The zero
// value is ready: nothing should be, nothing is. Not safe for concurrent use.
//
// Its cost follows the difference: Desire compares persistent maps, and Puts
// and Removals visit only keys that differ.
type Delta[K, V comparable] struct {
	desired model.Map[K, V]
	actual  map[K]V
	pending map[K]struct{} // keys for which desired and actual differ
}

// Desire says what should be.
func (d *Delta[K, V]) Desire(desired model.Map[K, V]) {
	for change := range model.Diff(d.desired, desired) {
		d.mark(change.Key, change.New, change.Has)
	}
	d.desired = desired
}

// Observe says what really is, all of it, after reading it back.
func (d *Delta[K, V]) Observe(actual map[K]V) {
	d.actual = actual
	d.pending = nil
	for key := range actual {
		want, ok := d.desired.Get(key)
		d.mark(key, want, ok)
	}
	for key, want := range d.desired.All() {
		d.mark(key, want, true)
	}
}

// Did says that key now has value: a put was carried out, or was seen to be.
func (d *Delta[K, V]) Did(key K, value V) {
	if d.actual == nil {
		d.actual = map[K]V{}
	}
	d.actual[key] = value
	want, ok := d.desired.Get(key)
	d.mark(key, want, ok)
}

// Removed says that key is no more.
func (d *Delta[K, V]) Removed(key K) {
	delete(d.actual, key)
	want, ok := d.desired.Get(key)
	d.mark(key, want, ok)
}

// Actual is what is there for key, as far as is known.
func (d *Delta[K, V]) Actual(key K) (V, bool) {
	value, ok := d.actual[key]
	return value, ok
}

// Wanted is what should be there for key.
func (d *Delta[K, V]) Wanted(key K) (V, bool) { return d.desired.Get(key) }

// Differs tells whether what is there for key is not what should be, as far as
// is known.
func (d *Delta[K, V]) Differs(key K) bool {
	_, ok := d.pending[key]
	return ok
}

// All iterates over what is there, as far as is known. Did and Removed may be
// called meanwhile.
func (d *Delta[K, V]) All() iter.Seq2[K, V] { return maps.All(d.actual) }

// Pending is how many keys differ.
func (d *Delta[K, V]) Pending() int { return len(d.pending) }

// Puts iterates over what must be added or replaced. Did and Removed may be
// called meanwhile.
func (d *Delta[K, V]) Puts() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for key := range d.pending {
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
		for key := range d.pending {
			if _, ok := d.desired.Get(key); !ok && !yield(key, d.actual[key]) {
				return
			}
		}
	}
}

func (d *Delta[K, V]) mark(key K, want V, wanted bool) {
	have, present := d.actual[key]
	if present == wanted && (!wanted || have == want) {
		delete(d.pending, key)
		return
	}
	if d.pending == nil {
		d.pending = map[K]struct{}{}
	}
	d.pending[key] = struct{}{}
}
