package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/certificate"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway/acme"
)

// Register is where the API server has what is written of Ingresses;
// kube.GatewayRegister is one.
type Register interface {
	// Service selects the gateways.
	Service() model.ServiceKey
	// Lead calls lead while this gateway is the one that writes. It returns when that
	// is over, or ctx is.
	Lead(ctx context.Context, lead func(context.Context) error) error
	// Follow keeps entries current until ctx ends.
	Follow(ctx context.Context, edit func(func(*kube.Entries)), synced func()) error
	// Publish makes the status of an Ingress tell addresses; none: nothing of ours.
	Publish(ctx context.Context, key model.IngressKey, uid string, addresses []string) error
	WriteEvent(ctx context.Context, event kube.Event) error
	acme.Store // has what is ordered
}

// served is what is served at a moment.
type served struct {
	snapshot *model.Snapshot
	table    *plan.Table
	problems []model.Problem
	ordered  *acme.State
	wanted   []certificate.Wanted
	trouble  trouble
}

// current is the latest of something, for one who waits for the next.
type current[T any] struct {
	mu      sync.Mutex
	is      T
	changed chan struct{} // closed and replaced at each change; nil: nobody has waited
}

func (c *current[T]) edit(edit func(*T)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	edit(&c.is)
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

func (c *current[T]) latest() (T, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.is, c.changed
}

// clerk writes of Ingresses while its gateway leads: their status, and Events of
// what is wrong with them.
type clerk struct {
	log      *slog.Logger
	register Register
	served   *current[served]

	entries current[kube.Entries]
	written map[model.IngressKey]*writing
	herald  herald
	said    string // the last failure
}

// lookPause is the least time between two looks, and failPause that after a request
// that failed.
const (
	lookPause = time.Second
	failPause = 10 * time.Second
)

// lead runs clerks, one after the other, until ctx ends.
func (d *daemon) lead(ctx context.Context) error {
	for ctx.Err() == nil {
		err := d.Register.Lead(ctx, func(ctx context.Context) error {
			d.Log.Info("this gateway writes the status of Ingresses")
			var ordering sync.WaitGroup
			defer ordering.Wait()
			ordering.Go(func() { _ = d.orders().Run(ctx) }) // it returns nil
			return (&clerk{log: d.Log, register: d.Register, served: &d.serving, written: map[model.IngressKey]*writing{}}).run(ctx)
		})
		if err != nil {
			d.Log.Warn("this gateway writes the status of Ingresses no more", "error", err)
		}
		pause(ctx, lookPause, nil, nil)
	}
	return nil
}

func (c *clerk) run(ctx context.Context) error {
	synced := make(chan struct{})
	var following sync.WaitGroup
	following.Go(func() { _ = c.register.Follow(ctx, c.entries.edit, func() { close(synced) }) }) // it returns nil
	defer following.Wait()
	select {
	case <-ctx.Done():
		return nil
	case <-synced:
	}
	for ctx.Err() == nil {
		is, changed := c.served.latest()
		entries, others := c.entries.latest()
		again := c.look(ctx, is, entries, time.Now())
		pause(ctx, lookPause, nil, nil) // more changes come in the wake of one
		if c.said != "" {
			pause(ctx, again, nil, nil) // whatever changes, what failed is not asked for more often
			continue
		}
		pause(ctx, again, changed, others)
	}
	return nil
}

// look writes what is due, and returns when to look again though nothing changes; 0:
// then never.
func (c *clerk) look(ctx context.Context, is served, entries kube.Entries, now time.Time) (again time.Duration) {
	soon := func(in time.Duration) {
		if in > 0 && (again == 0 || in < again) {
			again = in
		}
	}
	contested, in, err := c.publish(ctx, is, entries, now)
	soon(in)
	uid := func(key model.IngressKey) string {
		if entry, ok := entries.Ingresses.Get(key); ok {
			return entry.UID
		}
		return ""
	}
	events, in := c.herald.due(slices.Concat(ofIngresses(is.problems, is.table), is.unordered(now), contested), uid, now)
	soon(in)
	for _, event := range events {
		if err != nil && !kube.IsOfObject(err) {
			break // the others would fare no better
		}
		if failed := c.register.WriteEvent(ctx, event); failed == nil {
			c.herald.wrote(event)
		} else if err == nil || !kube.IsOfObject(failed) {
			err = failed
		}
	}
	if err != nil && ctx.Err() == nil {
		if text := err.Error(); text != c.said {
			c.said = text
			c.log.Warn("of Ingresses something could not be written, and is tried again", "error", err)
		}
		return failPause
	}
	c.said = ""
	return again
}

// publish writes the status of Ingresses that do not tell what they should. It
// returns what others write as well.
func (c *clerk) publish(ctx context.Context, is served, entries kube.Entries, now time.Time) (contested []model.Problem, again time.Duration, err error) {
	if is.table == nil {
		return nil, 0, nil
	}
	want := plan.Addresses(is.snapshot, &plan.Whereabouts{
		Service: c.register.Service(), Nodes: entries.Nodes,
		LoadBalancers: func(key model.ServiceKey) []string {
			if balancer, ok := entries.LoadBalancers.Get(key); ok {
				return balancer.Addresses
			}
			return nil
		},
	})
	for key := range c.written {
		if _, ok := entries.Ingresses.Get(key); !ok {
			delete(c.written, key)
		}
	}
	for key, entry := range entries.Ingresses.All() {
		last := c.written[key]
		next, in := last.next(entry, is.table.Serves(key), want, now)
		if in > 0 && (again == 0 || in < again) {
			again = in
		}
		if last.contested(entry) && in > 0 {
			contested = append(contested, contestedBy(key, entry.Writer))
		}
		if next == nil || err != nil && !kube.IsOfObject(err) {
			continue
		}
		if failed := c.register.Publish(ctx, key, entry.UID, next.addresses); failed == nil {
			c.written[key] = next
		} else if err == nil || !kube.IsOfObject(failed) {
			err = failed
		}
	}
	return contested, again, err
}

// writing is what was written last of an Ingress. nil: nothing was.
type writing struct {
	addresses []string
	over      *kube.Entry // in the place of what
	at        time.Time
	pause     time.Duration // until it is written again, if another writes it, too
}

// The pauses of a status that another writes as well, doubled each time: whoever
// writes at each change would go on for ever.
const (
	firstContest = time.Minute
	lastContest  = time.Hour
)

// next is what to write now of an Ingress whose class is served here or is not; nil:
// nothing, until something changes or, if it is not 0, for a time.
func (w *writing) next(entry *kube.Entry, serves bool, want []string, now time.Time) (*writing, time.Duration) {
	made := &writing{addresses: want, over: entry, at: now}
	switch {
	case !serves:
		made.addresses = nil
		if !entry.Ours { // what others have written is theirs
			return nil, 0
		}
	case len(want) == 0 || slices.Equal(entry.Addresses, want):
		return nil, 0
	}
	if w == nil {
		return made, 0
	}
	if w.over == entry && slices.Equal(w.addresses, made.addresses) {
		return nil, 0 // the watch has not told of it yet
	}
	if w.contested(entry) && serves {
		made.pause = min(max(firstContest, 2*w.pause), lastContest)
		if left := made.pause - now.Sub(w.at); left > 0 {
			return nil, left
		}
	}
	return made, 0
}

// contested tells whether another has written over what we wrote.
func (w *writing) contested(entry *kube.Entry) bool {
	return w != nil && w.over != entry && !entry.Ours && len(w.addresses) > 0 && !slices.Equal(entry.Addresses, w.addresses)
}

func contestedBy(key model.IngressKey, writer string) model.Problem {
	return model.Problem{
		Kind: "Ingress", Namespace: key.Namespace, Name: key.Name, Field: "status.loadBalancer", Reason: "StatusContested",
		Message: fmt.Sprintf("%s writes the status of this Ingress as well, so it is written here ever more rarely", cmp.Or(writer, "another")),
		Remedy:  "let only one program serve its IngressClass",
	}
}

// pause waits for one of two channels, the end of ctx, or the time; 0: no time.
func pause(ctx context.Context, most time.Duration, one, two <-chan struct{}) {
	var end <-chan time.Time
	if most > 0 {
		timer := time.NewTimer(most)
		defer timer.Stop()
		end = timer.C
	}
	select {
	case <-ctx.Done():
	case <-one:
	case <-two:
	case <-end:
	}
}
