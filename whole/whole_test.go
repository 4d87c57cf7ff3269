package whole

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestInterruptedListing(t *testing.T) {
	refused := errors.New("refused")
	for _, test := range []struct {
		interruptions int
		then          error
		want          error
	}{
		{0, nil, nil}, {3, nil, nil}, {3, refused, refused}, {1000, nil, netlink.ErrDumpInterrupted},
	} {
		calls := 0
		found, err := List(func() ([]int, error) {
			if calls++; calls <= test.interruptions {
				return []int{1}, fmt.Errorf("list: %w", netlink.ErrDumpInterrupted)
			}
			return []int{1, 2}, test.then
		})
		if !errors.Is(err, test.want) || err == nil && len(found) != 2 {
			t.Errorf("%+v: %v, %v", test, found, err)
		}
	}
}
