package dataplane

import (
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestDeltaConverges changes what should be and what is at random. Whatever
// happened, carrying out what the tracker says makes them equal, and nothing is
// said of what is equal already.
func TestDeltaConverges(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var delta Delta[int, int]
		var desired model.Map[int, int]
		kernel := map[int]int{}
		for step := range 50 {
			key, value := random.IntN(8), random.IntN(3)
			switch random.IntN(5) {
			case 0, 1:
				desired = desired.With(key, value)
			case 2:
				desired = desired.Without(key)
			case 3: // someone else changed it, and it is read back
				kernel[key] = value
				delta.Observe(maps.Clone(kernel))
			case 4: // it failed in the middle
				delta.Desire(desired)
				carryOut(t, &delta, kernel, 1)
			}
			delta.Desire(desired)
			if want := differing(desired, kernel); delta.Pending() != want {
				t.Fatalf("seed %d, step %d: %d pending, want %d", seed, step, delta.Pending(), want)
			}
		}
		carryOut(t, &delta, kernel, -1)
		if differing(desired, kernel) != 0 || delta.Pending() != 0 {
			t.Fatalf("seed %d: the kernel has %v and %d are pending", seed, kernel, delta.Pending())
		}
	}
}

// carryOut does at most so many puts and removals, all if most is negative.
func carryOut(t *testing.T, delta *Delta[int, int], kernel map[int]int, most int) {
	for key, value := range delta.Puts() {
		if most--; most == -1 {
			return
		}
		if have, ok := kernel[key]; ok && have == value {
			t.Fatalf("put of %d, which is so already", key)
		}
		if have, ok := delta.Actual(key); ok != has(kernel, key) || have != kernel[key] {
			t.Fatalf("the actual value of %d is %d (%t), the kernel's %d", key, have, ok, kernel[key])
		}
		kernel[key] = value
		delta.Did(key, value)
	}
	for key, value := range delta.Removals() {
		if most--; most == -1 {
			return
		}
		if have, ok := kernel[key]; !ok || have != value {
			t.Fatalf("removal of %d with value %d, but the kernel has %d (%t)", key, value, have, ok)
		}
		delete(kernel, key)
		delta.Removed(key)
	}
}

func has(kernel map[int]int, key int) bool { _, ok := kernel[key]; return ok }

func differing(desired model.Map[int, int], kernel map[int]int) (n int) {
	for key, want := range desired.All() {
		if have, ok := kernel[key]; !ok || have != want {
			n++
		}
	}
	for key := range kernel {
		if _, ok := desired.Get(key); !ok {
			n++
		}
	}
	return n
}

// TestDeltaKeepsRefused: what could not be done is said again.
func TestDeltaKeepsRefused(t *testing.T) {
	var delta Delta[string, int]
	delta.Desire(model.MapOf(map[string]int{"refused": 1, "taken": 2}))
	for range 3 {
		for key, value := range delta.Puts() {
			if key == "taken" {
				delta.Did(key, value)
			}
		}
	}
	if puts := maps.Collect(delta.Puts()); len(puts) != 1 || puts["refused"] != 1 {
		t.Fatalf("puts are %v, want the refused one", puts)
	}
}

// BenchmarkDeltaDesire changes one of 50,000 keys: the cost must not follow
// their number.
func BenchmarkDeltaDesire(b *testing.B) {
	var desired model.Map[int, int]
	for key := range 50_000 {
		desired = desired.With(key, 0)
	}
	var delta Delta[int, int]
	delta.Desire(desired)
	for key, value := range delta.Puts() {
		delta.Did(key, value)
	}
	b.ResetTimer()
	for i := range b.N {
		key := i % 50_000
		desired = desired.With(key, i+1)
		delta.Desire(desired)
		delta.Did(key, i+1)
	}
}
