package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// Journal outlives an Allocator. Append is called before the caller of the
// Allocator learns of what it records. A journal that cannot write deals with
// that itself: pods come and go all the same.
type Journal interface {
	Append(Record)
}

// Record is a step of an Allocator.
type Record struct {
	Attachment model.Attachment // of a release, only whose it was and the addresses
	Released   bool
	At         time.Time
}

// Remembered is how long it is known, over restarts, that a freed address was
// handed out here: pods that end slowly are seen with theirs for that long.
const Remembered = time.Hour

// Restore takes a step of an earlier life, oldest first. Who held an address
// before must have released it: that record was lost. The clock may have been
// set since: no step is in the future.
func (a *Allocator) Restore(r Record, now time.Time) {
	r.At = now.Add(-min(max(now.Sub(r.At), 0), Remembered))
	owner := r.Attachment.AttachmentKey
	for _, addr := range r.Attachment.Addresses {
		holder, held := a.holders[addr]
		switch {
		case !held || holder == owner:
		case r.Released:
			return
		default:
			a.free(holder, r.At)
		}
	}
	a.drop(owner)
	for _, addr := range r.Attachment.Addresses {
		if a.forget(addr); r.Released {
			a.rest(addr, r.At)
		}
	}
	if !r.Released {
		a.hold(r)
	}
}

// Adopt takes what an owner was seen to have. It refuses, and changes nothing,
// if another owner holds one of the addresses. It is not recorded.
func (a *Allocator) Adopt(seen *model.Attachment, now time.Time) error {
	for _, addr := range seen.Addresses {
		if holder, ok := a.holders[addr]; ok && holder != seen.AttachmentKey {
			return fmt.Errorf("%s/%s has %s, as does %s/%s", seen.ContainerID, seen.Interface, addr,
				holder.ContainerID, holder.Interface)
		}
	}
	a.drop(seen.AttachmentKey)
	for _, addr := range seen.Addresses {
		a.forget(addr)
	}
	a.hold(Record{Attachment: *seen, At: now})
	return nil
}

// Records are the fewest that restore this allocator: what is resting, and then
// what is held, oldest first.
func (a *Allocator) Records(now time.Time) (all []Record) {
	resting := slices.Clone(a.homeless)
	for _, p := range a.pools {
		resting = append(resting, p.freed...)
	}
	for _, r := range resting {
		if now.Sub(r.at) < Remembered {
			all = append(all, Record{At: r.at, Released: true, Attachment: model.Attachment{Addresses: []netip.Addr{r.addr}}})
		}
	}
	byTime := func(x, y Record) int { return x.At.Compare(y.At) }
	slices.SortStableFunc(all, byTime)
	return append(all, slices.SortedStableFunc(maps.Values(a.claims), byTime)...)
}
