package daemon

import "testing"

func TestPercentOf(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 8 << 20: 200, 16 << 20: 100, 25 << 20: 64, 1 << 30: 50} {
		if got := percentOf(live); got != want {
			t.Errorf("%d bytes live: %d %%, not %d", live, got, want)
		}
	}
}
