// Package ipam hands out the addresses of pods from the ranges of one node: one
// for each family, none twice, and freed ones not soon again. It is pure: time
// is passed in, and what must not be forgotten goes to a Journal, which others
// keep and restore from.
//
// An Allocator is not safe for concurrent use.
package ipam

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// Cooldown is how long a freed address rests: long enough for peers, DNS caches
// and connection tracking to forget the pod that had it.
const Cooldown = 30 * time.Second

// Allocator knows which address is whose. The zero value has no ranges and
// records nothing.
type Allocator struct {
	Journal Journal // may be nil
	// Kept is the address of a range that is not handed out, invalid if there is
	// none; set it before the ranges. It may be nil.
	Kept func(netip.Prefix) netip.Addr

	pools    []*pool
	homeless []rest // freed addresses that no range has, or none that is known yet
	holders  map[netip.Addr]model.AttachmentKey
	claims   map[model.AttachmentKey]Record
}

// others is the owner of reserved addresses. No attachment has this key.
var others = model.AttachmentKey{}

// SetRanges says which ranges addresses are taken from, in order of preference.
// Addresses that are held stay so, also outside of all ranges. A range that
// overlaps an earlier one is ignored.
func (a *Allocator) SetRanges(ranges []netip.Prefix) {
	var pools []*pool
	for _, prefix := range ranges {
		prefix = prefix.Masked()
		if slices.ContainsFunc(pools, func(p *pool) bool { return p.prefix.Overlaps(prefix) }) {
			continue
		}
		at := slices.IndexFunc(a.pools, func(p *pool) bool { return p.prefix == prefix })
		if at < 0 {
			p := newPool(prefix)
			if a.Kept != nil {
				p.kept = a.Kept(prefix)
			}
			pools = append(pools, p)
		} else {
			pools = append(pools, a.pools[at])
		}
	}
	resting := a.homeless
	for _, p := range a.pools {
		if !slices.Contains(pools, p) {
			resting = append(resting, p.freed...)
		}
	}
	a.pools, a.homeless = pools, nil
	for _, r := range resting {
		a.rest(r.addr, r.at)
	}
}

// Allocate gives the owner one address of each family that there are ranges of,
// or those that it holds already, and records it with all that is said of it.
// The error, if any, is an *ExhaustedError, and then nothing was allocated.
func (a *Allocator) Allocate(owner model.Attachment, now time.Time) (*model.Attachment, error) {
	owner.Addresses = slices.Clone(a.claims[owner.AttachmentKey].Attachment.Addresses)
	if len(owner.Addresses) == 0 {
		from, err := a.choose(now)
		if err != nil {
			return nil, err
		}
		for _, p := range from {
			owner.Addresses = append(owner.Addresses, p.take(now))
		}
	}
	record := Record{Attachment: owner, At: now}
	a.hold(record)
	a.append(record)
	return &owner, nil
}

// Available is the error that Allocate would return to a new owner.
func (a *Allocator) Available(now time.Time) error {
	_, err := a.choose(now)
	return err
}

// choose returns a pool of each family, ready to take from.
func (a *Allocator) choose(now time.Time) (from []*pool, err error) {
	for _, family := range model.Families {
		switch p := a.ready(family, now); {
		case p != nil:
			from = append(from, p)
		case a.has(family):
			return nil, a.exhausted(family, now)
		}
	}
	if len(from) == 0 {
		return nil, &ExhaustedError{}
	}
	return from, nil
}

// Release frees what the owner holds; nothing is fine.
func (a *Allocator) Release(owner model.AttachmentKey, now time.Time) {
	held, ok := a.claims[owner]
	if !ok {
		return
	}
	a.free(owner, now)
	a.append(Record{At: now, Released: true, Attachment: model.Attachment{
		AttachmentKey: owner, Addresses: held.Attachment.Addresses,
	}})
}

// Reserve says which addresses others use: none of them is handed out. Those
// that were reserved before, and are no more, rest. It is not recorded.
func (a *Allocator) Reserve(addrs []netip.Addr, now time.Time) {
	for addr, holder := range a.holders {
		if holder == others && !slices.Contains(addrs, addr) {
			delete(a.holders, addr)
			a.rest(addr, now)
		}
	}
	for _, addr := range addrs {
		if _, ok := a.holders[addr]; ok {
			continue
		}
		a.forget(addr)
		a.setHolder(addr, others)
	}
}

// Known tells whether an address was handed out here, as far as is remembered.
func (a *Allocator) Known(addr netip.Addr) bool {
	if holder, ok := a.holders[addr]; ok {
		return holder != others
	}
	if p := a.poolOf(addr); p != nil && p.usable(addr) {
		return p.known(addr)
	}
	return slices.ContainsFunc(a.homeless, func(r rest) bool { return r.addr == addr })
}

// Held returns what an owner holds; nil if nothing. It is not to be changed.
func (a *Allocator) Held(owner model.AttachmentKey) *model.Attachment {
	if r, ok := a.claims[owner]; ok {
		return &r.Attachment
	}
	return nil
}

// All iterates over all that hold addresses.
func (a *Allocator) All() iter.Seq[*model.Attachment] {
	return func(yield func(*model.Attachment) bool) {
		for _, r := range a.claims {
			if !yield(&r.Attachment) {
				return
			}
		}
	}
}

func (a *Allocator) append(r Record) {
	if a.Journal != nil {
		a.Journal.Append(r)
	}
}

func (a *Allocator) hold(r Record) {
	if a.claims == nil {
		a.claims = map[model.AttachmentKey]Record{}
	}
	a.claims[r.Attachment.AttachmentKey] = r
	for _, addr := range r.Attachment.Addresses {
		a.setHolder(addr, r.Attachment.AttachmentKey)
	}
}

func (a *Allocator) setHolder(addr netip.Addr, owner model.AttachmentKey) {
	if a.holders == nil {
		a.holders = map[netip.Addr]model.AttachmentKey{}
	}
	a.holders[addr] = owner
}

// free makes what an owner holds rest.
func (a *Allocator) free(owner model.AttachmentKey, at time.Time) {
	held := a.claims[owner].Attachment.Addresses
	a.drop(owner)
	for _, addr := range held {
		a.rest(addr, at)
	}
}

func (a *Allocator) drop(owner model.AttachmentKey) {
	for _, addr := range a.claims[owner].Attachment.Addresses {
		delete(a.holders, addr)
	}
	delete(a.claims, owner)
}

func (a *Allocator) rest(addr netip.Addr, at time.Time) {
	if p := a.poolOf(addr); p != nil && p.usable(addr) {
		p.release(addr, at)
		return
	}
	a.homeless = append(a.homeless, rest{addr, at})
}

// forget takes an address out of those that rest.
func (a *Allocator) forget(addr netip.Addr) {
	if p := a.poolOf(addr); p != nil {
		p.forget(addr)
	}
	a.homeless = slices.DeleteFunc(a.homeless, func(r rest) bool { return r.addr == addr })
}

// ready returns a pool of the family that has an address to take.
func (a *Allocator) ready(family model.Family, now time.Time) *pool {
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
