package forward

import (
	"context"
	"time"
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

// probe asks an upstream for a name that there is nowhere, so that any answer
// means that it is well, except the one that only this cluster's servers give.
func (f *Forwarder) probe(ctx context.Context, u *upstream) probed {
	options := f.options.Load()
	ctx, cancel := context.WithTimeout(ctx, options.Timeout)
	defer cancel()
	a := f.marks.ask(u.zone)
	began := time.Now()
	raw, err := u.transport.exchange(ctx, a)
	if ctx.Err() != nil && context.Cause(ctx) == errStopped {
		return probeSilent
	}
	loops := err == nil && f.marks.ours(raw, a)
	u.mu.Lock()
	was := u.standingLocked()
	u.looping = loops || u.looping && err != nil
	switch {
	case err != nil:
		u.why = err
		u.fall()
		drain(u.suspect) // it is looked after
		u.counts.healthFailures.Add(1)
	default:
		u.down, u.failures, u.why = false, 0, nil
		if u.rtt.mean == 0 {
			u.rtt.add(time.Since(began))
		}
	}
	is := u.standingLocked()
	u.mu.Unlock()
	if is.down != was.down || is.looping != was.looping {
		f.noteChange()
	}
	switch {
	case is.looping && !was.looping:
		f.log.Warn("an upstream leads back here, and is not asked", "upstream", u.to.String())
	case is.down && !was.down:
		f.log.Warn("an upstream does not answer", "upstream", u.to.String(), "error", err)
	}
	switch {
	case loops:
		return probeLoops
	case err != nil:
		return probeSilent
	}
	return probeWell
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}
