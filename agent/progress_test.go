package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// hanging is a data plane whose applies take as long as the test wants.
type hanging struct {
	dataplane.Dataplane
	gate chan error
}

func (h *hanging) Apply(ctx context.Context, _ *plan.Node) ([]model.Problem, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case err := <-h.gate:
		return nil, err
	}
}

// TestBehind: what waits for the kernel is as old as its oldest change, while an
// apply fails, or hangs, however many changes came since; and nothing waits when
// nothing changed.
func TestBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, feed := &hanging{gate: make(chan error)}, &model.Feed{}
		change(feed, "0")
		l := newLoop(&Config{Node: testNode, Dataplanes: []dataplane.Dataplane{h}, Log: slog.New(slog.DiscardHandler)}, feed)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx) }()
		behind := func(when string, want time.Duration) {
			t.Helper()
			synctest.Wait()
			if got := l.behind(); got != want {
				t.Errorf("%s: behind by %v, want %v", when, got, want)
			}
		}
		time.Sleep(3 * time.Second)
		behind("before the first apply", 3*time.Second)
		h.gate <- nil
		behind("after it", 0)
		time.Sleep(time.Hour)
		behind("with nothing to do", 0)

		change(feed, "a")
		time.Sleep(10 * time.Second)
		change(feed, "b")
		time.Sleep(10 * time.Second)
		behind("while an apply hangs", 20*time.Second)
		h.gate <- nil
		behind("while the next one hangs", 10*time.Second)
		h.gate <- errors.New("broken")
		behind("when it has failed", 10*time.Second)
		time.Sleep(time.Second)
		for range 5000 {
			change(feed, time.Now().String())
			time.Sleep(time.Millisecond)
		}
		behind("and so much has changed since that the feed forgot when", 16*time.Second)
		retry := l.stuck()
		h.gate <- nil
		behind("while the rest is applied", retry)
		h.gate <- nil
		behind("in the end", 0)

		l.disturbed <- struct{}{}
		time.Sleep(time.Minute)
		if l.stuck() == 0 {
			t.Fatal("no apply mends what was disturbed")
		}
		behind("while an apply hangs that brings nothing", 0)
		stuck := l.stuck()
		for range 2000 {
			change(feed, time.Now().String())
			time.Sleep(time.Millisecond)
		}
		behind("and then so much changes", stuck+2*time.Second)
		h.gate <- nil
		h.gate <- nil
		behind("and then all is applied", 0)

		time.Sleep(time.Hour)
		l.disturbed <- struct{}{}
		time.Sleep(time.Minute)
		stuck = l.stuck()
		h.gate <- errors.New("broken")
		behind("when a disturbance could not be mended", stuck)
		time.Sleep(time.Hour)
		h.gate <- nil
		behind("and is", 0)
		cancel()
		must(t, <-ended)
	})
}

// TestTurnsAreMeasured: a turn knows how long the first of its changes waited.
func TestTurnsAreMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := &model.Feed{}
		p := &progress{feed: feed}
		latest := func() *model.Snapshot { s, _ := feed.Latest(); return s }
		change(feed, "a")
		p.begin()
		time.Sleep(time.Second)
		if got := p.end(latest(), nil); got.before != nil || got.took != time.Second || got.waited != time.Second {
			t.Errorf("the first: %+v", got)
		}
		first := latest()
		time.Sleep(time.Second)
		change(feed, "b")
		time.Sleep(2 * time.Second)
		change(feed, "c")
		p.begin()
		time.Sleep(3 * time.Second)
		if got := p.end(latest(), errors.New("broken")); got.before != first || got.err == nil || p.last() != time.Now().Add(-6*time.Second) {
			t.Errorf("that failed: %+v, the last at %v", got, p.last())
		}
		change(feed, "d")
		p.begin()
		time.Sleep(time.Second)
		if got := p.end(latest(), nil); got.before != first || got.took != time.Second || got.waited != 6*time.Second {
			t.Errorf("that was met: %+v", got)
		}
		p.begin()
		time.Sleep(time.Second)
		if got := p.end(latest(), nil); got.waited != 0 || got.took != time.Second {
			t.Errorf("that brought nothing: %+v", got)
		}
	})
}
