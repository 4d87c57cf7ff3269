// Package whole repeats listings of what a kernel holds until they are whole. One that
// was interrupted by a change may lack some of it, or have it twice, and says so
// (NLM_F_DUMP_INTR). Its functions may be called concurrently.
package whole

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// attempts is how often a listing is tried: of a node where something changes all the
// time, it is an error in the end, which is netlink.ErrDumpInterrupted.
const attempts = 20

// List returns what a listing finds.
func List[T any](list func() ([]T, error)) (found []T, err error) {
	err = Read(func() (err error) {
		found, err = list()
		return err
	})
	return found, err
}

// Read is List for what keeps its findings itself.
func Read(list func() error) (err error) {
	for range attempts {
		if err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return err
}
