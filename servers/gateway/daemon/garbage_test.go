package daemon

import "testing"

func TestPercentOf(t *testing.T) {
	for live, want := range map[uint64]int{0: 200, 1 << 20: 200, 8 << 20: 100, 16 << 20: 50, 25 << 20: 32, 1 << 30: 25} {
		if got := percentOf(live); got != want {
			t.Errorf("%d bytes live: %d %%, not %d", live, got, want)
		}
	}
}
