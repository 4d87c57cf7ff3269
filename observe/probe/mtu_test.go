package probe

import "testing"

func TestLargest(t *testing.T) {
	for _, high := range []int{70, 577, 1450, 1500, 9000, 65535} {
		for real := range high {
			rounds := 0
			got := largest(68, high, func(sizes []int) (passed int) {
				rounds++
				if len(sizes) > abreast {
					t.Fatalf("%d packets at once", len(sizes))
				}
				for _, size := range sizes {
					if size <= real {
						passed = size
					}
				}
				return passed
			})
			want := real
			if real < 68 {
				want = 0
			}
			if got != want || rounds > 5 {
				t.Fatalf("of %d below %d, %d was found in %d rounds", real, high, got, rounds)
			}
		}
	}
}
