package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// loop keeps the data planes as the plan of the latest snapshot says. Changes
// that come while it applies are taken together by the next turn.
type loop struct {
	node    string
	feed    *model.Feed
	targets []*target
	known   []<-chan struct{} // closed when the snapshot says enough to begin
	log     *slog.Logger
	metrics *metrics // may be nil

	disturbed chan struct{} // of one element: somebody has changed what was applied
	mending   backoff       // between turns that mend, lest one who keeps at it make the node spin
	mended    time.Time     // when the last such turn began
	untidy    time.Time     // since when plans could be shorter, or were made so; zero: not

	outcome watched[outcome]
	began   chan struct{} // closed after the first success
	*progress
	// The same of the data planes that carry Services.
	served  *progress
	serving chan struct{}
}

// target is a data plane and how it does.
type target struct {
	dataplane.Dataplane
	carries bool            // Services
	refused []model.Problem // by the last Apply
	err     error           // of the last Apply
	failed  backoff
	due     time.Time // when it is tried again after an error
}

// outcome is that of the last turn. It is immutable.
type outcome struct {
	plan    *plan.Node      // what was applied, or should have been; nil before the first turn
	refused []model.Problem // what the kernel refused of it, all of it
	shown   []model.Problem // of those, what people are told
	err     error           // of a data plane, which is tried again; of it nothing is certain
	// unserved is the part of err of data planes that carry Services.
	unserved error
}

// problems are those of the plan and of the kernel.
func (o outcome) problems() []model.Problem {
	if o.plan == nil {
		return o.shown
	}
	return append(o.plan.Problems[:len(o.plan.Problems):len(o.plan.Problems)], o.shown...)
}

func newLoop(c *Config, feed *model.Feed, known ...<-chan struct{}) *loop {
	l := &loop{
		node: c.Node, feed: feed, log: c.Log, known: known,
		began: make(chan struct{}), progress: &progress{feed: feed}, serving: make(chan struct{}), served: &progress{feed: feed},
	}
	l.disturbed = make(chan struct{}, 1)
	l.mending = backoff{first: 50 * time.Millisecond, most: 500 * time.Millisecond}
	for _, d := range c.Dataplanes {
		again := backoff{first: 100 * time.Millisecond, most: 10 * time.Second}
		_, carries := d.(dataplane.ServiceCarrier)
		l.targets = append(l.targets, &target{Dataplane: d, carries: carries, failed: again})
	}
	return l
}

// Run applies until the context ends.
func (l *loop) Run(ctx context.Context) error {
	for _, known := range l.known {
		select {
		case <-ctx.Done():
			return nil
		case <-known:
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer l.listen(ctx).Wait()
	defer cancel()
	var planned *plan.Node
	var links model.Map[string, *model.Link]
	refused := backoff{first: time.Second, most: time.Minute}
	var retry <-chan time.Time // of what was refused
	retried := false           // this turn is one
	for {
		snapshot, changed := l.feed.Latest()
		if snapshot.Links != links {
			links = snapshot.Links
			l.forget()
		}
		planned = plan.Compute(planned, snapshot, l.node)
		before, _ := l.outcome.get()
		result := l.apply(ctx, snapshot, planned)
		if ctx.Err() != nil {
			return nil
		}
		l.tell(result)
		switch {
		case len(result.refused) == 0:
			refused.reset()
			retry = nil
		case !slices.Equal(result.refused, before.refused):
			refused.reset()
			retry = time.After(refused.next())
		case retried:
			retry = time.After(refused.next())
		}
		if retried = l.wait(ctx, changed, retry, l.tidying(planned)); ctx.Err() != nil {
			return nil
		}
	}
}

// listen hears all that can tell of a disturbance, until the context ends.
func (l *loop) listen(ctx context.Context) *sync.WaitGroup {
	listening := &sync.WaitGroup{}
	for _, t := range l.targets {
		disturber, ok := t.Dataplane.(dataplane.Disturber)
		if !ok {
			continue
		}
		listening.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-disturber.Disturbed():
				}
				select {
				case l.disturbed <- struct{}{}:
				default:
				}
			}
		})
	}
	return listening
}

const (
	// gatherTime is for what belongs to a disturbance to come together: a device
	// that goes takes its routes and neighbours along one by one.
	gatherTime = 20 * time.Millisecond
	// calmTime without a disturbance makes the next one be mended at once.
	calmTime = 10 * time.Second
)

// tidying fires when a plan that could be shorter is made again: once nothing has
// changed for a moment, which is a shorter one after a while; never if it could not.
func (l *loop) tidying(planned *plan.Node) <-chan time.Time {
	const most, least, patience = 250 * time.Millisecond, 30 * time.Millisecond, 5 * time.Second
	if !planned.Policy.Untidy() {
		l.untidy = time.Time{}
		return nil
	}
	if l.untidy.IsZero() {
		l.untidy = time.Now()
	}
	return time.After(max(least, min(most, time.Until(l.untidy.Add(patience)))))
}

// wait returns when there is something to do: whether it is to try again what
// was refused. A disturbance is mended at once; one that follows, a little later
// each time, but within a second.
func (l *loop) wait(ctx context.Context, changed <-chan struct{}, retry, tidy <-chan time.Time) (retried bool) {
	disturbed, repair := l.disturbed, l.repair()
	var mend <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-changed:
			return false
		case <-retry:
			return true
		case <-repair:
			return false
		case <-tidy:
			l.untidy = time.Time{}
			return false
		case <-disturbed:
			disturbed = nil // one is enough for a turn
			mend = time.After(l.mendingPause())
		case <-mend:
			l.mended = time.Now()
			l.metrics.disturbed()
			return false
		}
	}
}

func (l *loop) mendingPause() time.Duration {
	since := time.Since(l.mended)
	if since > calmTime {
		l.mending.reset()
		return gatherTime
	}
	return l.mending.next() - since
}

// forget makes the data planes look at the kernel: with a link or an address it
// drops routes, and does not say which.
func (l *loop) forget() {
	for _, t := range l.targets {
		if forgetter, ok := t.Dataplane.(dataplane.Forgetter); ok {
			forgetter.Forget()
		}
	}
}

func (l *loop) apply(ctx context.Context, snapshot *model.Snapshot, node *plan.Node) outcome {
	l.progress.begin()
	l.served.begin()
	result := outcome{plan: node}
	var failed, unserved []error
	for _, t := range l.targets {
		t.apply(ctx, node)
		result.refused = append(result.refused, t.refused...)
		failed = append(failed, t.err)
		if t.carries {
			unserved = append(unserved, t.err)
		}
	}
	result.shown = condense(result.refused)
	result.err, result.unserved = errors.Join(failed...), errors.Join(unserved...)
	l.metrics.turned(l.progress.end(snapshot, result.err))
	l.served.end(snapshot, result.unserved)
	return result
}

// apply leaves alone what failed not long ago, lest a busy cluster make a broken
// node spin.
func (t *target) apply(ctx context.Context, node *plan.Node) {
	if t.err != nil && time.Now().Before(t.due) {
		return
	}
	if t.refused, t.err = t.Apply(ctx, node); t.err == nil {
		t.failed.reset()
		return
	}
	t.err = fmt.Errorf("apply revision %d: %w", node.Revision, t.err)
	t.due = time.Now().Add(t.failed.next())
}

// repair fires when the first of those that failed is due; nil if none failed.
func (l *loop) repair() <-chan time.Time {
	var first *target
	for _, t := range l.targets {
		if t.err != nil && (first == nil || t.due.Before(first.due)) {
			first = t
		}
	}
	if first == nil {
		return nil
	}
	return time.After(time.Until(first.due))
}

func (l *loop) tell(result outcome) {
	before, _ := l.outcome.get()
	if result.err != nil && (before.err == nil || before.err.Error() != result.err.Error()) {
		l.log.Error("the plan could not be applied, trying again", "error", result.err)
	}
	if result.err == nil && (before.plan == nil || before.err != nil) {
		l.log.Info("the plan is applied", "revision", result.plan.Revision)
	}
	for _, problem := range result.shown {
		if !slices.Contains(before.shown, problem) {
			l.log.Warn("a part of the plan was refused", "problem", problem.String())
		}
	}
	if result.err == nil && !isDone(l.began) {
		close(l.began)
	}
	if result.unserved == nil && !isDone(l.serving) {
		close(l.serving)
	}
	l.outcome.set(result)
}

// condense sorts problems and keeps a few of each reason: if an uplink is down,
// the routes to a thousand nodes need not all say so.
func condense(problems []model.Problem) []model.Problem {
	const most = 10
	sorted := slices.SortedFunc(slices.Values(problems), model.Problem.Compare)
	seen := map[string]int{}
	kept := slices.DeleteFunc(sorted, func(p model.Problem) bool {
		seen[p.Reason]++
		return seen[p.Reason] > most
	})
	for i, p := range kept {
		if more := seen[p.Reason] - most; more > 0 {
			kept[i].Message += fmt.Sprintf(" (and %d more)", more)
			delete(seen, p.Reason)
		}
	}
	return kept
}

// turned returns a channel that is closed with the next turn.
func (l *loop) turned() <-chan struct{} {
	_, changed := l.outcome.get()
	return changed
}

// waitApplied returns the outcome of the first turn in which this revision or a
// newer one was applied. What of it was refused, the outcome tells.
func (l *loop) waitApplied(ctx context.Context, revision uint64) (outcome, error) {
	for {
		result, changed := l.outcome.get()
		if result.plan != nil && result.err == nil && result.plan.Revision >= revision {
			return result, nil
		}
		select {
		case <-ctx.Done():
			if result.err != nil {
				return result, fmt.Errorf("wait for the kernel: %w", result.err)
			}
			return result, fmt.Errorf("wait for the kernel: %w", ctx.Err())
		case <-changed:
		}
	}
}
