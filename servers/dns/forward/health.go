package forward

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"
)

const (
	// A probe of an upstream that is down comes soon, and then less and less often.
	firstProbe = 500 * time.Millisecond
	lastProbe  = 5 * time.Second
	// loopProbe is how often it is looked whether an upstream leads here that did.
	loopProbe = 30 * time.Second
	// wellProbe is how often one that is well is looked at, for a way back here that
	// somebody has opened since.
	wellProbe = 10 * time.Minute
)

// watch looks after an upstream until the context ends: when it is new, when it
// has failed, and then until it is well.
func (f *Forwarder) watch(ctx context.Context, u *upstream) {
	wait := firstProbe
	for {
		pause := wellProbe
		switch was := u.standing(); f.probe(ctx, u) {
		case probeSilent:
			pause, wait = wait, min(2*wait, lastProbe)
		case probeLoops:
			pause, wait = loopProbe, firstProbe
		default:
			if was.down || was.looping {
				f.log.Info("an upstream answers again", "upstream", u.to.String())
			}
			wait = firstProbe
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-u.suspect:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// probed is what a probe has found.
type probed int

const (
	probeWell probed = iota
	probeSilent
	probeLoops
)

// glimpse is what two questions have found.
type glimpse struct {
	loops  bool
	marked bool  // the question about a loop was answered
	err    error // nil: one of them was answered
}

// probe asks an upstream two questions. Any answer to either means that it is
// there. One is for a name that there is nowhere, which only this cluster's servers
// know; a resolver that reaches no root may take long over it, or never answer. So
// the other is one that it may answer from what it has: not recursive.
func (f *Forwarder) probe(ctx context.Context, u *upstream) probed {
	ctx, cancel := context.WithTimeout(ctx, f.options.Load().Timeout)
	defer cancel()
	was := u.standing()
	seen := f.glimpse(ctx, u)
	if errors.Is(context.Cause(ctx), errStopped) {
		return probeSilent
	}
	is := u.note(seen)
	if is.down != was.down || is.looping != was.looping {
		f.noteChange()
	}
	switch {
	case is.looping && !was.looping:
		f.log.Warn("an upstream leads back here, and is not asked", "upstream", u.to.String())
	case is.down && !was.down:
		f.log.Warn("an upstream does not answer", "upstream", u.to.String(), "error", seen.err)
	}
	switch {
	case seen.err != nil:
		return probeSilent
	case is.looping:
		return probeLoops
	}
	return probeWell
}

// glimpse asks both at once. The first answer says that the upstream is there, and
// the one about the name that there is nowhere makes the other one needless.
func (f *Forwarder) glimpse(ctx context.Context, u *upstream) (seen glimpse) {
	began := time.Now()
	local, enough := context.WithCancel(ctx)
	defer enough()
	var there atomic.Bool
	var other sync.WaitGroup
	other.Go(func() {
		if _, err := u.transport.exchange(local, &ask{name: rootName, qtype: miekg.TypeNS, local: true}); err == nil {
			there.Store(true)
			u.returns(time.Since(began))
		}
	})
	mark := f.marks.ask(u.zone)
	raw, err := u.transport.exchange(ctx, mark)
	if err == nil {
		u.returns(time.Since(began))
		enough()
	}
	other.Wait()
	switch {
	case err == nil:
		seen.marked, seen.loops = true, f.marks.ours(raw, mark)
	case !there.Load():
		seen.err = err
	}
	return seen
}

// returns notes that it is there.
func (u *upstream) returns(took time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.down, u.failures, u.why = false, 0, nil
	if u.rtt.mean == 0 {
		u.rtt.add(took)
	}
}

// note keeps what else was found, and returns whether the upstream is asked.
func (u *upstream) note(seen glimpse) standing {
	u.mu.Lock()
	defer u.mu.Unlock()
	if seen.marked {
		u.looping = seen.loops
	}
	if seen.err != nil {
		u.why = seen.err
		u.fall()
		drain(u.suspect) // it is looked after
		u.counts.healthFailures.Add(1)
	}
	return u.standingLocked()
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}
