package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
)

// disturbed is a data plane that somebody tampers with.
type disturbed struct {
	plane
	once  sync.Once
	heard chan struct{} // made in the bubble of time, where alone it counts as waited for
}

func (d *disturbed) Disturbed() <-chan struct{} { return d.tampered() }

func (d *disturbed) tampered() chan struct{} {
	d.once.Do(func() { d.heard = make(chan struct{}, 1) })
	return d.heard
}

// tamper says that something has changed; without waiting, as the kernel does.
func (d *disturbed) tamper() {
	select {
	case d.tampered() <- struct{}{}:
	default:
	}
}

// Whichever data plane is disturbed, all of several, is mended at once, and
// nothing else is waited for.
func TestAnyDisturbanceIsMended(t *testing.T) {
	first, second := &disturbed{}, &disturbed{}
	withinAll(t, []dataplane.Dataplane{first, &plane{}, second}, func(t *testing.T, _ *loop, _ *model.Feed) {
		for _, d := range []*disturbed{first, second} {
			time.Sleep(time.Minute)
			before := len(d.revisions())
			d.tamper()
			time.Sleep(50 * time.Millisecond)
			if n := len(d.revisions()) - before; n != 1 {
				t.Errorf("applied %d times in 50 ms", n)
			}
		}
	})
}

// One who keeps at it is answered within a second each time, and does not make
// the node spin.
func TestTampererDoesNotMakeItSpin(t *testing.T) {
	d := &disturbed{}
	withinAll(t, []dataplane.Dataplane{d}, func(t *testing.T, _ *loop, _ *model.Feed) {
		time.Sleep(time.Minute)
		before := len(d.revisions())
		for range 60 * 1000 {
			d.tamper()
			time.Sleep(time.Millisecond)
		}
		n := len(d.revisions()) - before
		if n < 100 || n > 150 {
			t.Errorf("applied %d times in a minute of tampering", n)
		}
		// Later ones are mended at once again.
		time.Sleep(time.Minute)
		before = len(d.revisions())
		d.tamper()
		time.Sleep(50 * time.Millisecond)
		if n := len(d.revisions()) - before; n != 1 {
			t.Errorf("applied %d times in 50 ms", n)
		}
	})
}

// While one is being answered slowly, what changes in the cluster is not.
func TestTampererDelaysNoChange(t *testing.T) {
	d := &disturbed{}
	withinAll(t, []dataplane.Dataplane{d}, func(t *testing.T, l *loop, feed *model.Feed) {
		for range 5000 {
			d.tamper()
			time.Sleep(time.Millisecond)
		}
		began := time.Now()
		_, err := l.waitApplied(t.Context(), change(feed, "a"))
		if took := time.Since(began); err != nil || took > 0 {
			t.Errorf("it took %v: %v", took, err)
		}
	})
}

// failing is a part that ends at once.
type failing struct{ runs atomic.Int64 }

func (f *failing) Run(context.Context) error {
	f.runs.Add(1)
	return errors.New("the socket was closed")
}

// A part that ends is run again, without spinning (felix#2710).
func TestServerThatEndsIsRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c, part, ended := &Config{Log: slog.New(slog.DiscardHandler)}, &failing{}, make(chan error)
		go func() { ended <- c.serve(ctx, part) }()
		time.Sleep(time.Minute)
		if n := part.runs.Load(); n < 5 || n > 20 {
			t.Errorf("ran %d times in a minute", n)
		}
		cancel()
		must(t, <-ended)
	})
}
