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
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// Options of a controller.
type Options struct {
	Kube     kube.Options
	Identity string // unique among controllers, such as the pod's name
	Log      *slog.Logger
}

// lease is the name of the lock, and of the ServiceAccount that may take it.
const lease = "fairlead-controller"

// Run waits to be the leader and then works until ctx ends, and returns nil;
// or until leadership is lost, which is an error: the process starts anew.
func Run(ctx context.Context, o Options) error {
	client, err := kube.Connect(o.Kube)
	if err != nil {
		return err
	}
	o.Log.Info("waiting for leadership", "lease", lease, "identity", o.Identity)
	failed := once(func(err error) { o.Log.Warn("cannot ask for leadership", "error", err) })
	lock := kube.Lock{Namespace: kube.SystemNamespace, Name: lease, Identity: o.Identity, Failed: failed}
	return client.Lead(ctx, lock, func(ctx context.Context) error {
		o.Log.Info("leading")
		defer o.Log.Info("leading no more")
		a := &aggregator{
			log: o.Log, client: client, feed: &model.Feed{}, source: client.NodeSource(), reports: client.Reports(),
		}
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
		now := summarize(view{
			snapshot: snapshot, reports: reports, now: time.Now(),
			problems: append(a.source.Problems(), a.reports.Problems()...),
		})
		if now.ready != last.ready || now.total != last.total || len(now.problems) != len(last.problems) {
			a.log.Info("the network", "nodes", now.total, "ready", now.ready, "problems", len(now.problems))
		}
		last = now
		retry := checkInterval
		if err := a.client.PublishNetwork(ctx, now.fill); err != nil && ctx.Err() == nil {
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
