package model

import (
	"cmp"
	"hash/maphash"
	"iter"
	"maps"
	"math/bits"
	"slices"
)

// Map is an immutable map. With and Without return a new Map that shares all
// but the changed path with the old one, so a change costs O(log n) whatever
// the size; Diff skips what two maps share. The zero value is the empty map.
// Readers need no lock. Iteration order is arbitrary.
//
// It is a hash trie with 32 branches a level; entries and children of a node
// are kept in two dense arrays, found by bitmap (Steindorfer and Vinju, "Optimizing
// Hash-Array Mapped Tries", OOPSLA 2015).
type Map[K, V comparable] struct {
	root *trie[K, V]
	size int
}

// seed makes hashes differ between processes, so that nothing can come to
// depend on iteration order.
var seed = maphash.MakeSeed()

func hashOf[K comparable](key K) uint64 { return maphash.Comparable(seed, key) }

const (
	bitsPerLevel = 5
	levelMask    = 1<<bitsPerLevel - 1
	hashBits     = 64
)

// trie is one node. Below the last bit of the hash, it is a plain list of
// entries whose hashes are equal, and both bitmaps are unused.
type trie[K, V comparable] struct {
	entryMap, childMap uint32
	entries            []entry[K, V]
	children           []*trie[K, V]
}

// entry has no hash: there are many, and it is asked for when two meet alone.
type entry[K, V comparable] struct {
	key   K
	value V
}

// hashed is an entry on its way into a trie.
type hashed[K, V comparable] struct {
	hash uint64
	entry[K, V]
}

// Len is the number of entries.
func (m Map[K, V]) Len() int { return m.size }

// Get returns the value of key.
func (m Map[K, V]) Get(key K) (V, bool) {
	hash := hashOf(key)
	node := m.root
	for shift := 0; node != nil; shift += bitsPerLevel {
		if shift >= hashBits {
			for _, e := range node.entries {
				if e.key == key {
					return e.value, true
				}
			}
			break
		}
		bit := uint32(1) << (hash >> shift & levelMask)
		if node.entryMap&bit != 0 {
			if e := &node.entries[rank(node.entryMap, bit)]; e.key == key {
				return e.value, true
			}
			break
		}
		if node.childMap&bit == 0 {
			break
		}
		node = node.children[rank(node.childMap, bit)]
	}
	var none V
	return none, false
}

// With returns the map in which key has value. It returns the same map, not a
// copy, if that is so already.
func (m Map[K, V]) With(key K, value V) Map[K, V] {
	e := hashed[K, V]{hashOf(key), entry[K, V]{key, value}}
	root := m.root
	if root == nil {
		root = &trie[K, V]{}
	}
	root, grown := root.with(e, 0, hashOf[K])
	if root == m.root {
		return m
	}
	if grown {
		m.size++
	}
	return Map[K, V]{root, m.size}
}

// Without returns the map that lacks key.
func (m Map[K, V]) Without(key K) Map[K, V] {
	if m.root == nil {
		return m
	}
	root := m.root.without(hashOf(key), key, 0)
	if root == m.root {
		return m
	}
	return Map[K, V]{root, m.size - 1}
}

// All iterates over the entries.
func (m Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if m.root != nil {
			m.root.each(func(e entry[K, V]) bool { return yield(e.key, e.value) })
		}
	}
}

// MapOf makes a persistent map of an ordinary one.
func MapOf[K, V comparable](from map[K]V) Map[K, V] { return Collect(maps.All(from)) }

// Collect makes a map of keys with their values, in one go: With for each would
// leave many times its size behind. Of a key that comes twice, the last value
// counts.
func Collect[K, V comparable](all iter.Seq2[K, V]) Map[K, V] {
	var entries []hashed[K, V]
	for key, value := range all {
		entries = append(entries, hashed[K, V]{hashOf(key), entry[K, V]{key, value}})
	}
	if len(entries) == 0 {
		return Map[K, V]{}
	}
	slices.SortStableFunc(entries, func(a, b hashed[K, V]) int { return compareHashes(a.hash, b.hash) })
	entries = distinct(entries)
	return Map[K, V]{grow(entries, 0), len(entries)}
}

// compareHashes orders as a trie does, by the branch of each level.
func compareHashes(a, b uint64) int {
	if a == b {
		return 0
	}
	shift := bits.TrailingZeros64(a^b) / bitsPerLevel * bitsPerLevel
	return cmp.Compare(a>>shift&levelMask, b>>shift&levelMask)
}

// distinct keeps the last of the entries of each key. They are sorted by hash.
func distinct[K, V comparable](entries []hashed[K, V]) []hashed[K, V] {
	kept := entries[:0]
next:
	for _, e := range entries {
		for i := len(kept) - 1; i >= 0 && kept[i].hash == e.hash; i-- {
			if kept[i].key == e.key {
				kept[i] = e
				continue next
			}
		}
		kept = append(kept, e)
	}
	return kept
}

// grow makes the trie of sorted entries.
func grow[K, V comparable](entries []hashed[K, V], shift int) *trie[K, V] {
	t := &trie[K, V]{}
	if shift >= hashBits {
		t.entries = make([]entry[K, V], 0, len(entries))
		for _, e := range entries {
			t.entries = append(t.entries, e.entry)
		}
		return t
	}
	branches := func(yield func(bit uint32, below []hashed[K, V])) {
		for from := 0; from < len(entries); {
			branch, to := entries[from].hash>>shift&levelMask, from+1
			for to < len(entries) && entries[to].hash>>shift&levelMask == branch {
				to++
			}
			yield(1<<branch, entries[from:to])
			from = to
		}
	}
	branches(func(bit uint32, below []hashed[K, V]) {
		if len(below) == 1 {
			t.entryMap |= bit
		} else {
			t.childMap |= bit
		}
	})
	t.entries = make([]entry[K, V], 0, bits.OnesCount32(t.entryMap))
	t.children = make([]*trie[K, V], 0, bits.OnesCount32(t.childMap))
	branches(func(_ uint32, below []hashed[K, V]) {
		if len(below) == 1 {
			t.entries = append(t.entries, below[0].entry)
		} else {
			t.children = append(t.children, grow(below, shift+bitsPerLevel))
		}
	})
	return t
}

func rank(bitmap, bit uint32) int { return bits.OnesCount32(bitmap & (bit - 1)) }

// with returns t itself if it has the entry. hashOf is asked for that of an entry
// that is in the way.
func (t *trie[K, V]) with(e hashed[K, V], shift int, hashOf func(K) uint64) (_ *trie[K, V], grown bool) {
	if shift >= hashBits {
		return t.withColliding(e.entry)
	}
	bit := uint32(1) << (e.hash >> shift & levelMask)
	switch {
	case t.childMap&bit != 0:
		at := rank(t.childMap, bit)
		child, grown := t.children[at].with(e, shift+bitsPerLevel, hashOf)
		if child == t.children[at] {
			return t, false
		}
		next := *t
		next.children = replaced(t.children, at, child)
		return &next, grown
	case t.entryMap&bit == 0:
		next := *t
		next.entryMap |= bit
		next.entries = inserted(t.entries, rank(t.entryMap, bit), e.entry)
		return &next, true
	}
	at := rank(t.entryMap, bit)
	old := t.entries[at]
	if old.key == e.key {
		if old.value == e.value {
			return t, false
		}
		next := *t
		next.entries = replaced(t.entries, at, e.entry)
		return &next, false
	}
	child, _ := (&trie[K, V]{}).with(hashed[K, V]{hashOf(old.key), old}, shift+bitsPerLevel, hashOf)
	child, _ = child.with(e, shift+bitsPerLevel, hashOf)
	return &trie[K, V]{
		entryMap: t.entryMap &^ bit,
		childMap: t.childMap | bit,
		entries:  removed(t.entries, at),
		children: inserted(t.children, rank(t.childMap, bit), child),
	}, true
}

func (t *trie[K, V]) withColliding(e entry[K, V]) (_ *trie[K, V], grown bool) {
	for at, old := range t.entries {
		if old.key == e.key {
			if old.value == e.value {
				return t, false
			}
			return &trie[K, V]{entries: replaced(t.entries, at, e)}, false
		}
	}
	return &trie[K, V]{entries: inserted(t.entries, len(t.entries), e)}, true
}

// without returns t itself if it lacks key, nil if nothing is left.
func (t *trie[K, V]) without(hash uint64, key K, shift int) *trie[K, V] {
	if shift >= hashBits {
		for at, e := range t.entries {
			if e.key == key {
				return (&trie[K, V]{entries: removed(t.entries, at)}).orNil()
			}
		}
		return t
	}
	bit := uint32(1) << (hash >> shift & levelMask)
	if t.entryMap&bit != 0 {
		at := rank(t.entryMap, bit)
		if t.entries[at].key != key {
			return t
		}
		next := *t
		next.entryMap &^= bit
		next.entries = removed(t.entries, at)
		return next.orNil()
	}
	if t.childMap&bit == 0 {
		return t
	}
	at := rank(t.childMap, bit)
	child := t.children[at].without(hash, key, shift+bitsPerLevel)
	if child == t.children[at] {
		return t
	}
	return t.withChild(bit, at, child)
}

// withChild replaces a child from which an entry was removed. A child of one
// entry is pulled up, so that equal maps have equal shapes and Diff can skip
// what they share.
func (t *trie[K, V]) withChild(bit uint32, at int, child *trie[K, V]) *trie[K, V] {
	next := *t
	switch {
	case child == nil:
		next.childMap &^= bit
		next.children = removed(t.children, at)
	case len(child.children) == 0 && len(child.entries) == 1:
		next.childMap &^= bit
		next.children = removed(t.children, at)
		next.entries = inserted(t.entries, rank(t.entryMap, bit), child.entries[0])
		next.entryMap |= bit
	default:
		next.children = replaced(t.children, at, child)
	}
	return next.orNil()
}

func (t *trie[K, V]) orNil() *trie[K, V] {
	if len(t.entries) == 0 && len(t.children) == 0 {
		return nil
	}
	return t
}

func (t *trie[K, V]) each(yield func(entry[K, V]) bool) bool {
	for _, e := range t.entries {
		if !yield(e) {
			return false
		}
	}
	for _, child := range t.children {
		if !child.each(yield) {
			return false
		}
	}
	return true
}

func inserted[T any](from []T, at int, item T) []T {
	to := make([]T, len(from)+1)
	copy(to, from[:at])
	to[at] = item
	copy(to[at+1:], from[at:])
	return to
}

func replaced[T any](from []T, at int, item T) []T {
	to := make([]T, len(from))
	copy(to, from)
	to[at] = item
	return to
}

func removed[T any](from []T, at int) []T {
	to := make([]T, len(from)-1)
	copy(to, from[:at])
	copy(to[at:], from[at+1:])
	return to
}
