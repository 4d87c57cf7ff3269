package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// loop keeps the data planes as the plan of the latest snapshot says. Changes
// that come while it applies are taken together by the next turn.
type loop struct {
	node       string
	feed       *model.Feed
	dataplanes []dataplane.Dataplane
	known      []<-chan struct{} // closed when the snapshot says enough to begin
	log        *slog.Logger

	outcome watched[outcome]
	began   chan struct{} // closed after the first success
	busy    atomic.Int64  // when the apply in progress began, Unix nanoseconds; 0 between them
}

// outcome is that of the last turn. It is immutable.
type outcome struct {
	plan    *plan.Node      // what was applied, or should have been; nil before the first turn
	refused []model.Problem // what the kernel refused of it
	err     error           // nothing is certain, and the turn is repeated
}

// problems are those of the plan and of the kernel.
func (o outcome) problems() []model.Problem {
	if o.plan == nil {
		return o.refused
	}
	return append(o.plan.Problems[:len(o.plan.Problems):len(o.plan.Problems)], o.refused...)
}

func newLoop(c *Config, feed *model.Feed, known ...<-chan struct{}) *loop {
	return &loop{
		node: c.Node, feed: feed, dataplanes: c.Dataplanes, log: c.Log,
		known: known, began: make(chan struct{}),
	}
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
	failed := backoff{first: 100 * time.Millisecond, most: 10 * time.Second}
	refused := backoff{first: time.Second, most: time.Minute}
	var planned *plan.Node
	for {
		snapshot, changed := l.feed.Latest()
		planned = plan.Compute(planned, snapshot, l.node)
		result := l.apply(ctx, planned)
		if ctx.Err() != nil {
			return nil
		}
		l.tell(result)
		var again <-chan time.Time
		switch {
		case result.err != nil:
			// What changes meanwhile waits as well, lest a busy cluster make a
			// broken node spin.
			again, changed = time.After(failed.next()), nil
		case len(result.refused) > 0:
			failed.reset()
			again = time.After(refused.next())
		default:
			failed.reset()
			refused.reset()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again:
		}
	}
}

func (l *loop) apply(ctx context.Context, node *plan.Node) outcome {
	l.busy.Store(time.Now().UnixNano())
	defer l.busy.Store(0)
	result := outcome{plan: node}
	for _, d := range l.dataplanes {
		refused, err := d.Apply(ctx, node)
		result.refused = append(result.refused, refused...)
		if err != nil {
			result.err = fmt.Errorf("apply revision %d: %w", node.Revision, err)
			return result
		}
	}
	return result
}

func (l *loop) tell(result outcome) {
	before, _ := l.outcome.get()
	if result.err != nil && (before.err == nil || before.err.Error() != result.err.Error()) {
		l.log.Error("the plan could not be applied, trying again", "error", result.err)
	}
	if result.err == nil && (before.plan == nil || before.err != nil) {
		l.log.Info("the plan is applied", "revision", result.plan.Revision)
	}
	for _, problem := range result.refused {
		if !slices.Contains(before.refused, problem) {
			l.log.Warn("a part of the plan was refused", "problem", problem.String())
		}
	}
	if result.err == nil && !isDone(l.began) {
		close(l.began)
	}
	l.outcome.set(result)
}

// waitApplied returns the outcome of the first turn that succeeded with this
// revision or a newer one. What of it was refused, the outcome tells.
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

// stuck is how long the apply in progress has taken; 0 if there is none.
func (l *loop) stuck() time.Duration {
	if began := l.busy.Load(); began != 0 {
		return time.Since(time.Unix(0, began))
	}
	return 0
}
