// Package controller is the one leader-elected process of the cluster. It
// watches what the agents say of their nodes and sums it up in the status of
// the Network, so that a thousand agents never write one object. It touches no
// node and deletes nothing. Run is called once; the functions of this package
// may be called concurrently.
package controller

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// Options of a controller.
type Options struct {
	Kube     kube.Options
	Identity string // unique among controllers, such as the pod's name
	Version  string // of this build, for the metrics
	Log      *slog.Logger

	HealthAddress  string // host:port of probes, metrics and profiles; empty: none
	MetricsAddress string // host:port that serves the metrics alone; empty: none
}

// lease is the name of the lock.
const lease = kube.LeaderLease

// Run waits to be the leader and then works until ctx ends, and returns nil;
// or until leadership is lost, which is an error: the process starts anew.
func Run(ctx context.Context, o Options) error {
	client, err := kube.Connect(o.Kube)
	if err != nil {
		return err
	}
	state := newState(o.Version)
	serving, stop := context.WithCancel(ctx)
	var server sync.WaitGroup
	server.Go(func() { _ = state.server(&o).Run(serving) }) // returns nil when stopped
	defer server.Wait()
	defer stop()
	o.Log.Info("waiting for leadership", "lease", lease, "identity", o.Identity)
	failed := once(func(err error) { o.Log.Warn("cannot ask for leadership", "error", err) })
	lock := kube.Lock{Namespace: kube.SystemNamespace, Name: lease, Identity: o.Identity, Failed: failed}
	return client.Lead(ctx, lock, func(ctx context.Context) error {
		o.Log.Info("leading")
		defer o.Log.Info("leading no more")
		a := &aggregator{
			log: o.Log, client: client, feed: &model.Feed{}, source: client.NodeSource(), reports: client.Reports(), state: state,
		}
		state.lead(func() []kube.WatchState { return append(a.source.Watches(), a.reports.Watches()...) })
		defer state.lead(nil)
		return a.run(ctx)
	})
}

// once leaves out errors that say the same as the one before.
func once(log func(error)) func(error) {
	var last string
	return func(err error) {
		if text := err.Error(); text != last {
			last = text
			log(err)
		}
	}
}

// pause is the least time between two looks at the cluster.
const pause = time.Second

// checkInterval is how often reports are looked at for their age.
const checkInterval = 30 * time.Second

// aggregator sums up what is known whenever that changes.
type aggregator struct {
	log     *slog.Logger
	client  *kube.Client
	feed    *model.Feed
	source  *kube.Source
	reports *kube.Reports
	state   *state
	herald  herald
}

func (a *aggregator) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.source.Run(ctx, a.feed) })
	group.Go(func() error { return a.reports.Run(ctx) })
	group.Go(func() error { return a.loop(ctx) })
	return group.Wait()
}

func (a *aggregator) loop(ctx context.Context) error {
	if !a.sync(ctx) {
		return nil
	}
	var last summary
	for ctx.Err() == nil {
		snapshot, nodesChanged := a.feed.Latest()
		reports, reportsChanged := a.reports.Latest()
		problemsChanged := a.source.Changed()
		began := time.Now()
		seen := view{
			snapshot: snapshot, reports: reports, now: a.client.Now(),
			problems: append(a.source.Problems(), a.reports.Problems()...),
		}
		a.state.look(began)
		now := summarize(seen)
		if now.ready != last.ready || now.total != last.total || len(now.problems) != len(last.problems) {
			a.log.Info("the network", "nodes", now.total, "ready", now.ready, "problems", len(now.problems))
		}
		last = now
		retry := checkInterval
		err := a.client.PublishNetwork(ctx, now.fill)
		a.state.published(now, err, time.Since(began))
		a.tell(ctx, seen)
		if a.herald.waiting() {
			retry = settleTime / 4
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("status not written, trying again", "error", err)
			retry = time.Duration(float64(5*time.Second) * (1 + rand.Float64()))
			// Changes do not hurry what cannot be written.
			nodesChanged, reportsChanged, problemsChanged = nil, nil, nil
		}
		wait(ctx, retry, nodesChanged, reportsChanged, problemsChanged)
		wait(ctx, pause, nil, nil, nil) // more changes come in the wake of one
	}
	return nil
}

// tell writes the Events that are due.
func (a *aggregator) tell(ctx context.Context, seen view) {
	events, confirm := first(a.herald.due(seen, seen.now))
	for i, event := range events {
		err := a.write(ctx, event)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			a.state.events.WithLabelValues(succeeded).Inc()
			confirm[i]()
			continue
		}
		users := event.Kind != "Network" && event.Kind != "Node"
		if users && kube.IsNotFound(err) {
			confirm[i]() // nobody asks for it
			continue
		}
		a.state.events.WithLabelValues(failed).Inc()
		if users && kube.IsOfObject(err) {
			// Its namespace ends or takes no more. Tried again and again, twenty of such
			// would be all that is ever tried.
			a.log.Warn("an Event was not written, and is given up", "error", err)
			confirm[i]()
			continue
		}
		a.log.Warn("an Event was not written, trying again", "error", err)
		if !kube.IsOfObject(err) { // such as of the Network, which is not there yet
			return // the others would fare no better
		}
	}
}

func (a *aggregator) write(ctx context.Context, event kube.Event) error {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	return a.client.WriteEvent(ctx, event)
}

// writeTime is for a small request.
const writeTime = 10 * time.Second

// sync waits until all is known, and says what keeps it from being.
func (a *aggregator) sync(ctx context.Context) bool {
	say := once(func(err error) { a.log.Warn("cannot see the cluster", "error", err) })
	for _, synced := range []<-chan struct{}{a.source.Synced(), a.reports.Synced()} {
		for {
			for _, problem := range append(a.source.Problems(), a.reports.Problems()...) {
				say(errors.New(problem.String()))
			}
			if wait(ctx, checkInterval, synced, a.source.Changed(), nil) == synced {
				break
			}
			if ctx.Err() != nil {
				return false
			}
		}
	}
	return true
}

// wait waits for the first of three channels, the end of ctx, or the time, and
// returns the channel.
func wait(ctx context.Context, most time.Duration, one, two, three <-chan struct{}) <-chan struct{} {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-one:
		return one
	case <-two:
		return two
	case <-three:
		return three
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}
