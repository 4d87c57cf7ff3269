package probe

import (
	"cmp"
	"hash/fnv"
	"slices"
)

// Choose returns the k nodes that a node probes, fewer if there are not as many
// others, sorted. All nodes lie on a ring in the order of their names' hashes,
// and each probes those that follow it: so each is probed by exactly k, and one
// that comes or goes changes the choice of k nodes only. Chance (rendezvous
// hashing) would leave some nodes out: of four peers each, one in fifty.
func Choose(self string, nodes []string, k int) []string {
	type place struct {
		hash uint64
		name string
	}
	compare := func(a, b place) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.name, b.name)) }
	ring := []place{{hash(self), self}}
	for _, name := range nodes {
		if name != self {
			ring = append(ring, place{hash(name), name})
		}
	}
	own := ring[0]
	slices.SortFunc(ring, compare)
	at, _ := slices.BinarySearchFunc(ring, own, compare)
	var chosen []string
	for i := 1; i <= k && i < len(ring); i++ {
		chosen = append(chosen, ring[(at+i)%len(ring)].name)
	}
	slices.Sort(chosen)
	return chosen
}

// hash spreads names that differ in their last digit alone: FNV without the
// final mix (of SplitMix64) keeps them beside each other.
func hash(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
