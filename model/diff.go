package model

import "iter"

// Change is one difference between two maps. Old and New are zero where the
// key was absent, which Had and Has tell from a zero value.
type Change[K, V comparable] struct {
	Key      K
	Old, New V
	Had, Has bool
}

// Diff iterates over the keys in which the two maps differ. Its cost follows
// the difference, if one map was made from the other: parts that they share
// are skipped whole.
func Diff[K, V comparable](old, new Map[K, V]) iter.Seq[Change[K, V]] {
	return func(yield func(Change[K, V]) bool) {
		diffTries(old.root, new.root, 0, yield)
	}
}

func diffTries[K, V comparable](old, new *trie[K, V], shift int, yield func(Change[K, V]) bool) bool {
	switch {
	case old == new:
		return true
	case old == nil:
		return new.each(func(e entry[K, V]) bool { return yield(added(e)) })
	case new == nil:
		return old.each(func(e entry[K, V]) bool { return yield(gone(e)) })
	case shift >= hashBits:
		return diffEntries(old.entries, new.entries, yield)
	}
	for left := old.entryMap | old.childMap | new.entryMap | new.childMap; left != 0; left &= left - 1 {
		bit := left & -left
		oldEntries, oldChild := old.at(bit)
		newEntries, newChild := new.at(bit)
		if oldChild != nil && newChild != nil {
			if !diffTries(oldChild, newChild, shift+bitsPerLevel, yield) {
				return false
			}
			continue
		}
		if len(oldEntries) == 1 && len(newEntries) == 1 && oldEntries[0] == newEntries[0] {
			continue // as most are
		}
		// One side at least is a single entry or nothing; the other is as
		// small as two entries unless much was added at once.
		if !diffEntries(append(oldEntries, oldChild.all()...), append(newEntries, newChild.all()...), yield) {
			return false
		}
	}
	return true
}

// at returns what hangs at one branch: an entry (as a slice of its own), a
// child, or neither.
func (t *trie[K, V]) at(bit uint32) ([]entry[K, V], *trie[K, V]) {
	if t.entryMap&bit != 0 {
		at := rank(t.entryMap, bit)
		return t.entries[at : at+1 : at+1], nil
	}
	if t.childMap&bit != 0 {
		return nil, t.children[rank(t.childMap, bit)]
	}
	return nil, nil
}

func (t *trie[K, V]) all() []entry[K, V] {
	if t == nil {
		return nil
	}
	var entries []entry[K, V]
	t.each(func(e entry[K, V]) bool { entries = append(entries, e); return true })
	return entries
}

func diffEntries[K, V comparable](old, new []entry[K, V], yield func(Change[K, V]) bool) bool {
	for _, o := range old {
		n, ok := find(new, o.key)
		if ok && n.value == o.value {
			continue
		}
		change := gone(o)
		if ok {
			change.New, change.Has = n.value, true
		}
		if !yield(change) {
			return false
		}
	}
	for _, n := range new {
		if _, ok := find(old, n.key); !ok && !yield(added(n)) {
			return false
		}
	}
	return true
}

// find is linear: one of the two lists that are compared has one entry, or
// both hold keys whose 64-bit hashes collide.
func find[K, V comparable](in []entry[K, V], key K) (entry[K, V], bool) {
	for _, e := range in {
		if e.key == key {
			return e, true
		}
	}
	return entry[K, V]{}, false
}

func added[K, V comparable](e entry[K, V]) Change[K, V] {
	return Change[K, V]{Key: e.key, New: e.value, Has: true}
}

func gone[K, V comparable](e entry[K, V]) Change[K, V] {
	return Change[K, V]{Key: e.key, Old: e.value, Had: true}
}
