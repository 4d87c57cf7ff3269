package model

import (
	"maps"
	"math/rand/v2"
	"testing"
)

// TestDraft edits at random, from an empty map and from one with entries: it is
// always what an ordinary map is, and so is what comes of it. What it began with
// stays.
func TestDraft(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 7))
		want := map[int]int{}
		for key := range int(seed % 3) {
			want[key] = key
		}
		first := MapOf(want)
		before := maps.Collect(first.All())
		draft := DraftOf(first)
		for range 60 {
			switch key := random.IntN(12); random.IntN(7) {
			case 0, 1, 2:
				draft.Put(key, key*2)
				want[key] = key * 2
			case 3, 4, 5:
				draft.Remove(key)
				delete(want, key)
			default:
				if got := maps.Collect(draft.Map().All()); !maps.Equal(got, want) || draft.Map().Len() != len(want) {
					t.Fatalf("seed %d: got %v, want %v", seed, got, want)
				}
			}
			key := random.IntN(12)
			value, ok := draft.Get(key)
			if wanted, has := want[key]; ok != has || value != wanted {
				t.Fatalf("seed %d: %d is %d, %t; want %d, %t", seed, key, value, ok, wanted, has)
			}
		}
		if got := maps.Collect(first.All()); !maps.Equal(got, before) {
			t.Fatalf("seed %d: the first map has become %v", seed, got)
		}
	}
}

// TestDraftLeavesLittleBehind: a first map of thousands costs what it takes, and
// not that for each entry.
func TestDraftLeavesLittleBehind(t *testing.T) {
	const size = 10_000
	allocated := testing.AllocsPerRun(2, func() {
		draft := DraftOf(Map[int, int]{})
		for key := range size {
			draft.Put(key, key)
		}
		if draft.Map().Len() != size {
			t.Error("some are missing")
		}
	})
	if allocated > 2*size {
		t.Errorf("%.0f allocations for %d entries", allocated, size)
	}
}
