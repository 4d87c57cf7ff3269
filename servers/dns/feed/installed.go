package feed

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/dns"
)

// Resolutions go the other way: the server tells the agent what it is about to tell
// pods, and waits until the agent says that packets to the addresses pass.

// batch is resolutions that belong together: what is told, and confirmed by its
// number.
type batch struct {
	ID    uint64             `json:"id"`
	Names []model.Resolution `json:"names,omitempty"`
}

// installed are batches that were.
type installed struct {
	IDs []uint64 `json:"ids"`
}

// Bounds of what a server tells.
const (
	installTime = 500 * time.Millisecond // for the kernel to have an address
	// soonOver is when an address may be gone before its client has called: it is
	// told anew, and waited for.
	soonOver   = 5 * time.Second
	maxTold    = 32768 // addresses of names that are kept in mind
	perLine    = 256   // addresses of one line
	perConfirm = 256   // numbers of one line
)

// toldKey is an address that a name leads to.
type toldKey struct {
	name dns.Name
	addr netip.Addr
}

// told is what the agent knows of it.
type told struct {
	ends time.Time // when the agent takes it out, but for what it knows from others
	in   bool      // it is in the kernel
}

// waited is a batch that was told, and is not confirmed.
type waited struct {
	keys []toldKey
	done chan struct{} // closed when it is, or never will be
}

// Late counts answers that were let go before their addresses were in the kernel.
func (r *Receiver) Late() uint64 { return r.late.Load() }

// Passed tells whether the agent has said that an address of a name is in the
// kernel, and for long enough; see dns.Gate.
func (r *Receiver) Passed(name dns.Name, addr netip.Addr, ttl uint32) bool {
	r.tolds.RLock()
	is, ok := r.told[toldKey{name, addr}]
	r.tolds.RUnlock()
	return ok && is.in && time.Until(is.ends) >= time.Duration(ttl)*time.Second+model.ResolutionGrace/2
}

// Install tells the agent what is about to be said, and waits until it is in the
// kernel, for half a second at most, if some of it may not be there yet.
func (r *Receiver) Install(ctx context.Context, found []model.Resolution) {
	now := time.Now()
	r.tolds.Lock()
	wait := r.note(found, now)
	r.tolds.Unlock()
	all := r.send(found)
	if !wait {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	for _, one := range all {
		select {
		case <-one.done:
		case <-ctx.Done():
		}
	}
	if !r.in(found) {
		if r.late.Add(1); r.complained.CompareAndSwap(false, true) {
			r.Log.Warn("the addresses of a name were told to a pod before the kernel had them: the agent did not say so in time; it is counted, and not said again", "name", found[0].Name)
		}
	}
}

// note keeps in mind what is told, and tells whether some of it is not in the
// kernel, or not for long. tolds is held.
func (r *Receiver) note(found []model.Resolution, now time.Time) (wait bool) {
	if len(r.told) > maxTold {
		for key, is := range r.told {
			if now.After(is.ends) {
				delete(r.told, key)
			}
		}
		if len(r.told) > maxTold { // what is forgotten is told again
			clear(r.told)
		}
	}
	if r.told == nil {
		r.told = map[toldKey]told{}
	}
	for _, resolution := range found {
		ends := now.Add(time.Duration(resolution.TTL)*time.Second + model.ResolutionGrace)
		for _, key := range keysOf(resolution) {
			is := r.told[key]
			wait = wait || !is.in || is.ends.Sub(now) < soonOver
			if is.in = is.in && is.ends.Sub(now) >= soonOver; ends.After(is.ends) {
				is.ends = ends
			}
			r.told[key] = is
		}
	}
	return wait
}

// in tells whether all of it is in the kernel.
func (r *Receiver) in(found []model.Resolution) bool {
	r.tolds.RLock()
	defer r.tolds.RUnlock()
	for _, resolution := range found {
		for _, key := range keysOf(resolution) {
			if !r.told[key].in {
				return false
			}
		}
	}
	return true
}

func keysOf(resolution model.Resolution) (keys []toldKey) {
	name, err := dns.ParseName(resolution.Name)
	if err != nil {
		return nil
	}
	for _, addr := range resolution.Addresses {
		keys = append(keys, toldKey{name, addr})
	}
	return keys
}

// send writes resolutions, in lines that are not too long. Without an agent there
// is nobody to wait for.
func (r *Receiver) send(found []model.Resolution) (all []*waited) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sendLocked(found)
}

func (r *Receiver) sendLocked(found []model.Resolution) (all []*waited) {
	if r.out == nil || len(r.waiting) > maxTold {
		return nil
	}
	var next batch
	count := 0
	flush := func() {
		if len(next.Names) == 0 {
			return
		}
		r.number++
		next.ID = r.number
		w := &waited{done: make(chan struct{})}
		for _, resolution := range next.Names {
			w.keys = append(w.keys, keysOf(resolution)...)
		}
		r.waiting[next.ID] = w
		all = append(all, w)
		r.say("resolved", next)
		next, count = batch{}, 0
	}
	for _, resolution := range found {
		for left := resolution.Addresses; len(left) > 0; {
			if count == perLine {
				flush()
			}
			n := min(len(left), perLine-count)
			some := resolution
			some.Addresses = left[:n]
			next.Names, left, count = append(next.Names, some), left[n:], count+n+4 // a name is as long as some addresses
			count = min(count, perLine)
		}
	}
	flush()
	return all
}

// confirm notes that batches are in the kernel.
func (r *Receiver) confirm(ids []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tolds.Lock()
	defer r.tolds.Unlock()
	for _, id := range ids {
		w := r.waiting[id]
		if w == nil {
			continue
		}
		delete(r.waiting, id)
		for _, key := range w.keys {
			if is, ok := r.told[key]; ok {
				is.in = true
				r.told[key] = is
			}
		}
		close(w.done)
	}
}

// tellAgain is repeat, of who has no lock.
func (r *Receiver) tellAgain(wanted *model.Domains) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repeat(wanted)
}

// repeat tells an agent all that was told before, which it may not know: it has just
// come, or wants other names. mu is held.
func (r *Receiver) repeat(wanted *model.Domains) {
	now := time.Now()
	var all []model.Resolution
	r.tolds.Lock()
	for key, is := range r.told {
		left := is.ends.Sub(now) - model.ResolutionGrace
		name := strings.TrimSuffix(key.name.String(), ".")
		if !wanted.Fits(name) || left < -model.ResolutionGrace {
			delete(r.told, key)
			continue
		}
		is.in = false
		r.told[key] = is
		all = append(all, model.Resolution{Name: name, Addresses: []netip.Addr{key.addr}, TTL: uint32(max(left, 0) / time.Second)})
	}
	r.tolds.Unlock()
	r.sendLocked(all)
}

// lateness counts what was let go too early.
type lateness struct {
	late       atomic.Uint64
	complained atomic.Bool
}
