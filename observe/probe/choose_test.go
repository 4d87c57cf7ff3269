package probe

import (
	"fmt"
	"slices"
	"testing"
)

func names(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("node%d", i))
	}
	return all
}

// TestChoose: nobody probes itself, everybody is probed by k, and one node more
// changes the choice of k others.
func TestChoose(t *testing.T) {
	const k = 4
	for _, n := range []int{1, 2, 4, 5, 100, 1000} {
		all := names(n)
		probed := map[string]int{}
		for _, self := range all {
			chosen := Choose(self, all, k)
			if want := min(k, n-1); len(chosen) != want || slices.Contains(chosen, self) || len(slices.Compact(slices.Clone(chosen))) != want {
				t.Fatalf("of %d nodes, %s chooses %v", n, self, chosen)
			}
			for _, name := range chosen {
				probed[name]++
			}
		}
		for _, name := range all {
			if probed[name] != min(k, n-1) {
				t.Errorf("of %d nodes, %s is probed by %d", n, name, probed[name])
			}
		}
		changed := 0
		for _, self := range all {
			if !slices.Equal(Choose(self, all, k), Choose(self, append(all[:n:n], "another"), k)) {
				changed++
			}
		}
		if changed != min(k, n) {
			t.Errorf("with one more than %d nodes, %d choose anew", n, changed)
		}
	}
}

// TestChooseSpreads: neighbours by name, in one rack perhaps, do not only probe
// each other.
func TestChooseSpreads(t *testing.T) {
	all := names(1000)
	near := 0
	for i, self := range all {
		for _, name := range Choose(self, all, 4) {
			if at := slices.Index(all, name); at > i-20 && at < i+20 {
				near++
			}
		}
	}
	if near > 400 { // by chance, 160
		t.Errorf("%d of 4000 choices are of neighbours", near)
	}
}
