package model

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestMapAgainstBuiltin drives a Map and an ordinary map with the same random
// changes and compares all that can be seen of them, Diff included.
func TestMapAgainstBuiltin(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		var m Map[int, int]
		want := map[int]int{}
		for range 2000 {
			before, wantBefore := m, maps.Clone(want)
			for range 1 + random.IntN(5) {
				key := random.IntN(300)
				if random.IntN(3) == 0 {
					m = m.Without(key)
					delete(want, key)
				} else {
					value := random.IntN(4)
					m = m.With(key, value)
					want[key] = value
				}
			}
			requireEqual(t, m, want)
			requireEqual(t, before, wantBefore)
			requireDiff(t, before, m, wantBefore, want)
		}
	}
}

func requireEqual(t *testing.T, m Map[int, int], want map[int]int) {
	t.Helper()
	if got := maps.Collect(m.All()); m.Len() != len(want) || !maps.Equal(got, want) {
		t.Fatalf("got %d entries %v, want %v", m.Len(), got, want)
	}
	for key := range 300 {
		got, ok := m.Get(key)
		wantValue, wantOK := want[key]
		if got != wantValue || ok != wantOK {
			t.Fatalf("Get(%d) = %d, %t; want %d, %t", key, got, ok, wantValue, wantOK)
		}
	}
}

func requireDiff(t *testing.T, old, new Map[int, int], wantOld, wantNew map[int]int) {
	t.Helper()
	replayed := maps.Clone(wantOld)
	for change := range Diff(old, new) {
		oldValue, had := wantOld[change.Key]
		newValue, has := wantNew[change.Key]
		if change.Old != oldValue || change.Had != had || change.New != newValue || change.Has != has {
			t.Fatalf("change %+v, want %d %t -> %d %t", change, oldValue, had, newValue, has)
		}
		if had == has && oldValue == newValue {
			t.Fatalf("change %+v is none", change)
		}
		if has {
			replayed[change.Key] = newValue
		} else {
			delete(replayed, change.Key)
		}
	}
	if !maps.Equal(replayed, wantNew) {
		t.Fatalf("old and diff make %v, want %v", replayed, wantNew)
	}
}

// alike gives all keys one hash.
func alike(int) uint64 { return 7 }

// TestMapCollisions puts keys of one hash through the list at the bottom of
// the trie, which no random test reaches.
func TestMapCollisions(t *testing.T) {
	root := &trie[int, int]{}
	for key := range 10 {
		root, _ = root.with(hashed[int, int]{7, entry[int, int]{key, key}}, 0, alike)
	}
	if _, grown := root.with(hashed[int, int]{7, entry[int, int]{3, 30}}, 0, alike); grown {
		t.Error("replacing a colliding key made the map grow")
	}
	for key := range 9 {
		root = root.without(7, key, 0)
	}
	if len(root.entries) != 1 || root.entries[0].key != 9 || len(root.children) != 0 {
		t.Errorf("after removing all but one: %+v, want one entry at the top", root)
	}
	if root = root.without(7, 9, 0); root != nil {
		t.Errorf("after removing all: %+v, want nil", root)
	}
}

func TestMapUnchangedIsSame(t *testing.T) {
	m := MapOf(map[string]int{"a": 1, "b": 2})
	if m.With("a", 1) != m || m.Without("c") != m {
		t.Error("a change that changes nothing made another map")
	}
	for change := range Diff(m, m) {
		t.Errorf("a map differs from itself: %+v", change)
	}
}

// BenchmarkMapOneChange shows that the cost of a change and of finding it
// again does not follow the size.
func BenchmarkMapOneChange(b *testing.B) {
	for _, size := range []int{1_000, 50_000} {
		var m Map[int, int]
		for key := range size {
			m = m.With(key, 0)
		}
		b.Run(map[int]string{1_000: "1k", 50_000: "50k"}[size], func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				next := m.With(i%size, i+1)
				for range Diff(m, next) {
				}
			}
		})
	}
}

// TestCollect makes maps in one go that are as those made key by key, in shape
// too: Diff finds nothing between them, and what comes after shares it.
func TestCollect(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 2))
		var one Map[int, int]
		want := map[int]int{}
		all := func(yield func(int, int) bool) {
			random := rand.New(rand.NewPCG(seed, 3))
			for range seed * 40 {
				if !yield(random.IntN(300), random.IntN(4)) {
					return
				}
			}
		}
		for key, value := range all {
			one = one.With(key, value)
			want[key] = value
		}
		m := Collect(all)
		requireEqual(t, m, want)
		requireDiff(t, one, m, want, want)
		if !sameShape(one.root, m.root) {
			t.Fatalf("seed %d: a map made in one go has another shape", seed)
		}
		for range 100 {
			key := random.IntN(300)
			m, one = m.Without(key), one.Without(key)
			delete(want, key)
		}
		requireEqual(t, m, want)
		if !sameShape(one.root, m.root) {
			t.Fatalf("seed %d: it has another shape after changes", seed)
		}
	}
}

func sameShape(a, b *trie[int, int]) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.entryMap == b.entryMap && a.childMap == b.childMap && slices.Equal(a.entries, b.entries) &&
		slices.EqualFunc(a.children, b.children, sameShape)
}

// TestCollectCollisions is as TestMapCollisions.
func TestCollectCollisions(t *testing.T) {
	var entries []hashed[int, int]
	for key := range 10 {
		entries = append(entries, hashed[int, int]{7, entry[int, int]{key, key}})
	}
	entries = distinct(append(entries, hashed[int, int]{7, entry[int, int]{3, 30}}))
	root := grow(entries, 0)
	if found := root.without(7, 3, 0).all(); len(found) != 9 {
		t.Errorf("%d entries are left of 10: %v", len(found), found)
	}
	if last, _ := find(root.all(), 3); last.value != 30 {
		t.Errorf("of two values of a key, %d counts", last.value)
	}
}
