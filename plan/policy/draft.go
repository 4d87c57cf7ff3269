package policy

import (
	"iter"
	"maps"

	"github.com/fairlead-net/fairlead/model"
)

// draft is a map in the making: a map, and what is to differ in the next one.
// One that is made from nothing is made in one go.
type draft[K, V comparable] struct {
	base model.Map[K, V]
	set  map[K]V
	gone map[K]struct{}
}

func draftOf[K, V comparable](base model.Map[K, V]) *draft[K, V] {
	return &draft[K, V]{base: base}
}

func (d *draft[K, V]) get(key K) (value V, ok bool) {
	if value, ok = d.set[key]; ok {
		return value, true
	}
	if _, gone := d.gone[key]; gone {
		return value, false
	}
	return d.base.Get(key)
}

func (d *draft[K, V]) put(key K, value V) {
	if d.set == nil {
		d.set = map[K]V{}
	}
	delete(d.gone, key)
	d.set[key] = value
}

func (d *draft[K, V]) remove(key K) {
	if d.gone == nil {
		d.gone = map[K]struct{}{}
	}
	delete(d.set, key)
	d.gone[key] = struct{}{}
}

// done is the next map.
func (d *draft[K, V]) done() model.Map[K, V] {
	if d.base.Len() == 0 {
		return model.Collect(maps.All(d.set))
	}
	next := d.base
	for key := range d.gone {
		next = next.Without(key)
	}
	for key, value := range d.set {
		next = next.With(key, value)
	}
	return next
}

// all iterates over what is in the next map. The draft must not change meanwhile.
func (d *draft[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for key, value := range d.base.All() {
			if next, changed := d.set[key]; changed {
				value = next
			} else if _, gone := d.gone[key]; gone {
				continue
			}
			if !yield(key, value) {
				return
			}
		}
		for key, value := range d.set {
			if _, known := d.base.Get(key); !known && !yield(key, value) {
				return
			}
		}
	}
}

// changed are the keys that were set or removed.
func (d *draft[K, V]) changed() iter.Seq[K] {
	return func(yield func(K) bool) {
		for key := range d.set {
			if !yield(key) {
				return
			}
		}
		for key := range d.gone {
			if !yield(key) {
				return
			}
		}
	}
}

// count is a draft of how often something is used.
type count[K comparable] struct{ *draft[K, int] }

func countOf[K comparable](base model.Map[K, int]) count[K] { return count[K]{draftOf(base)} }

// add returns how often it is used now.
func (c count[K]) add(key K, by int) int {
	n, _ := c.get(key)
	if n += by; n == 0 {
		c.remove(key)
	} else {
		c.put(key, n)
	}
	return n
}
