package forward

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// minHedge and maxHedge bound after how long a second upstream is asked too,
	// while the first has not answered.
	minHedge = 50 * time.Millisecond
	maxHedge = 500 * time.Millisecond
	// repeatAfter is when one that is alone is asked again: a packet may be lost.
	repeatAfter = time.Second
	// maxAttempts is how often upstreams are asked for one answer.
	maxAttempts = 4
)

var (
	errStopped    = errors.New("the server ends")
	errNoUpstream = errors.New("there is no upstream to ask")
	errLate       = errors.New("no upstream has answered in time")
)

// resolve asks upstreams, one after the other, without waiting for long on any,
// and returns the first good answer. If all have failed to find one, it returns
// what the first of them has said. An error means that nothing was said.
//
// What has been asked is waited for in any case, if by nobody else: else nothing
// would be known of the slower ones.
func (f *Forwarder) resolve(ctx context.Context, a *ask, g *group) (*answer, error) {
	options := f.options.Load()
	list, explore := g.order()
	if len(list) == 0 {
		return nil, errNoUpstream
	}
	ctx, cancel := context.WithTimeout(ctx, options.Deadline)
	defer cancel()
	r := round{
		list: list, results: make(chan asked, maxAttempts+1),
		start: func(u *upstream) asked {
			ctx, cancel := context.WithTimeout(f.base, options.Timeout)
			defer cancel()
			return u.ask(ctx, a, options.lifetimes())
		},
		run: f.asking.Go,
	}
	r.next()
	if explore != nil {
		a.trace.add(Step{Upstream: explore.to.String(), Text: "is asked too, to know how fast it is"})
		r.ask(explore)
	}
	wait := r.patience()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case result := <-r.results:
			if r.good(result) {
				return result.answer, nil
			}
			if r.over() {
				return r.failure()
			}
		case <-timer.C:
			if r.attempts < maxAttempts && (r.attempts < len(list) || !r.hopeless()) {
				u := r.next()
				a.trace.add(Step{Upstream: u.to.String(), Text: fmt.Sprintf("is asked too: nothing has come for %s", wait)})
			} else if r.pending == 0 {
				return r.failure()
			}
			wait *= 2
			timer.Reset(wait)
		case <-ctx.Done():
			r.errs = append(r.errs, errLate)
			return r.failure()
		}
	}
}

// round is the asking for one answer.
type round struct {
	list    []*upstream
	results chan asked
	start   func(*upstream) asked
	run     func(func())

	attempts int
	pending  int
	bad      *answer // the first that is no good
	errs     []error
}

// next asks the next upstream of the list, which begins anew at its end.
func (r *round) next() *upstream {
	u := r.list[r.attempts%len(r.list)]
	r.attempts++
	r.ask(u)
	return u
}

func (r *round) ask(u *upstream) {
	r.pending++
	r.run(func() { r.results <- r.start(u) })
}

// good tells whether an answer is the one to give. If not, the next upstream may
// have one, and is asked at once.
func (r *round) good(result asked) bool {
	r.pending--
	if result.err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", result.from.to, result.err))
	}
	switch {
	case result.answer == nil:
	case !result.answer.failed():
		return true
	case r.bad == nil:
		r.bad = result.answer
	}
	if r.attempts < min(len(r.list), maxAttempts) {
		r.next()
	}
	return false
}

// over tells whether there is nothing to wait for. Where nobody has said anything,
// as while a server restarts, it is tried again a little later, unless all were
// down before.
func (r *round) over() bool {
	return r.pending == 0 && (r.bad != nil || r.attempts >= maxAttempts || r.hopeless())
}

// hopeless tells whether no upstream was well.
func (r *round) hopeless() bool {
	for _, u := range r.list {
		if !u.standing().down {
			return false
		}
	}
	return r.attempts >= len(r.list)
}

func (r *round) failure() (*answer, error) {
	if r.bad != nil {
		return r.bad, nil
	}
	return nil, errors.Join(r.errs...)
}

// patience is how long the first upstream is waited for before the next is asked
// too: longer than it takes, mostly.
func (r *round) patience() time.Duration {
	if len(r.list) == 1 {
		return repeatAfter
	}
	s := r.list[0].standing()
	if s.rtt.mean == 0 {
		return maxHedge / 2
	}
	return min(max(s.rtt.mean+4*s.rtt.deviation, minHedge), maxHedge)
}
