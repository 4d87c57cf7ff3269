// Package ipam hands out the addresses of pods from the ranges of one node: one
// for each family, none twice, and freed ones not soon again. It is pure: time
// is passed in and nothing is stored, so whoever owns an Allocator records what
// it must not forget and restores it.
//
// An Allocator is not safe for concurrent use.
package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// Cooldown is how long a freed address rests: long enough for peers, DNS caches
// and connection tracking to forget the pod that had it.
const Cooldown = 30 * time.Second

// Allocator knows which address is whose. The zero value has no ranges.
type Allocator struct {
	pools   []*pool
	holders map[netip.Addr]model.AttachmentKey
	held    map[model.AttachmentKey][]netip.Addr
}

// SetRanges says which ranges addresses are taken from, in order of preference.
// Addresses that are held stay so, also outside of all ranges; those that rest
// in a range that goes are forgotten. A range that overlaps an earlier one is
// ignored.
func (a *Allocator) SetRanges(ranges []netip.Prefix) {
	var pools []*pool
	for _, prefix := range ranges {
		prefix = prefix.Masked()
		if slices.ContainsFunc(pools, func(p *pool) bool { return p.prefix.Overlaps(prefix) }) {
			continue
		}
		at := slices.IndexFunc(a.pools, func(p *pool) bool { return p.prefix == prefix })
		if at < 0 {
			pools = append(pools, newPool(prefix))
		} else {
			pools = append(pools, a.pools[at])
		}
	}
	a.pools = pools
}

// Allocate returns one address of each family that there are ranges of. An
// owner that holds addresses already gets the same again. The error, if any, is
// an *ExhaustedError, and then nothing was allocated.
func (a *Allocator) Allocate(owner model.AttachmentKey, now time.Time) ([]netip.Addr, error) {
	if held := a.held[owner]; len(held) > 0 {
		return slices.Clone(held), nil
	}
	var from []*pool
	for _, family := range model.Families {
		switch p := a.free(family, now); {
		case p != nil:
			from = append(from, p)
		case a.has(family):
			return nil, a.exhausted(family, now)
		}
	}
	if len(from) == 0 {
		return nil, &ExhaustedError{}
	}
	addrs := make([]netip.Addr, len(from))
	for i, p := range from {
		addrs[i] = p.take()
	}
	a.hold(owner, addrs)
	return slices.Clone(addrs), nil
}

// Release frees what the owner holds; nothing is fine.
func (a *Allocator) Release(owner model.AttachmentKey, now time.Time) {
	for _, addr := range a.held[owner] {
		delete(a.holders, addr)
		if p := a.poolOf(addr); p != nil {
			p.release(addr, now)
		}
	}
	delete(a.held, owner)
}

// Restore says what an owner was given in an earlier life. It refuses, and
// changes nothing, if another owner holds one of the addresses.
func (a *Allocator) Restore(owner model.AttachmentKey, addrs []netip.Addr) error {
	for _, addr := range addrs {
		if holder, ok := a.holders[addr]; ok && holder != owner {
			return fmt.Errorf("restore %s to %s/%s: %s/%s holds it", addr,
				owner.ContainerID, owner.Interface, holder.ContainerID, holder.Interface)
		}
	}
	for _, addr := range a.held[owner] {
		delete(a.holders, addr)
	}
	for _, addr := range addrs {
		if p := a.poolOf(addr); p != nil {
			p.forget(addr)
		}
	}
	a.hold(owner, slices.Clone(addrs))
	return nil
}

func (a *Allocator) hold(owner model.AttachmentKey, addrs []netip.Addr) {
	if a.held == nil {
		a.held = map[model.AttachmentKey][]netip.Addr{}
		a.holders = map[netip.Addr]model.AttachmentKey{}
	}
	a.held[owner] = addrs
	for _, addr := range addrs {
		a.holders[addr] = owner
	}
}

// free returns a pool of the family that has an address to take.
func (a *Allocator) free(family model.Family, now time.Time) *pool {
	for _, p := range a.pools {
		if model.FamilyOf(p.prefix.Addr()) == family && p.ready(a.holders, now) {
			return p
		}
	}
	return nil
}

func (a *Allocator) has(family model.Family) bool {
	return slices.ContainsFunc(a.pools, func(p *pool) bool { return model.FamilyOf(p.prefix.Addr()) == family })
}

func (a *Allocator) poolOf(addr netip.Addr) *pool {
	for _, p := range a.pools {
		if p.prefix.Contains(addr) {
			return p
		}
	}
	return nil
}

func (a *Allocator) exhausted(family model.Family, now time.Time) *ExhaustedError {
	err := &ExhaustedError{}
	for _, p := range a.pools {
		if model.FamilyOf(p.prefix.Addr()) != family {
			continue
		}
		err.Ranges = append(err.Ranges, p.prefix)
		err.Cooling += len(p.freed)
		if len(p.freed) > 0 {
			if wait := p.freed[0].at.Add(Cooldown).Sub(now); err.Wait == 0 || wait < err.Wait {
				err.Wait = wait
			}
		}
		for addr := range a.holders {
			if p.prefix.Contains(addr) {
				err.InUse++
			}
		}
	}
	return err
}

// ExhaustedError says that no address can be handed out now.
type ExhaustedError struct {
	Ranges  []netip.Prefix // of the family that has none left; empty: there are no ranges at all
	InUse   int            // addresses of these ranges that are held
	Cooling int            // freed ones that rest
	Wait    time.Duration  // until the first of those may be used again
}

func (e *ExhaustedError) Error() string {
	if len(e.Ranges) == 0 {
		return "there is no range to take an address from"
	}
	text := fmt.Sprintf("no address is left in %v: %d in use", e.Ranges, e.InUse)
	if e.Cooling > 0 {
		text += fmt.Sprintf(", %d freed less than %v ago, the next is usable in %v",
			e.Cooling, Cooldown, e.Wait.Round(time.Second))
	}
	return text
}
