package acme

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/certificate"
)

// Store has the Secrets, as they are now.
type Store interface {
	// ReadSecret returns nil if there is none.
	ReadSecret(ctx context.Context, key model.SecretKey) (*model.Secret, error)
	// WriteSecret makes one, or replaces what it has.
	WriteSecret(ctx context.Context, secret *model.Secret) error
	// DeleteSecret may be told of one that is gone.
	DeleteSecret(ctx context.Context, key model.SecretKey) error
}

// View is what is known at a moment.
type View struct {
	Options  model.ACMEOptions
	Wanted   []certificate.Wanted
	State    *State
	Gateways []netip.AddrPort // all that authorities may come to, by HTTP
}

// Result is what has become of an attempt.
type Result int

// The results.
const (
	Issued  Result = iota
	Failed         // the authority says that something is wrong with the host, or cannot be reached
	Limited        // it wants to be left alone
)

func (r Result) String() string { return [...]string{"issued", "failed", "limited"}[r] }

// Orders orders certificates. What is exported is set before Run.
type Orders struct {
	Store     Store
	UserAgent string
	Log       *slog.Logger
	// Look returns what is known, and a channel that is closed when it is something else.
	Look func() (View, <-chan struct{})
	// Trouble is told what keeps all from being ordered, and what to do about it; empty:
	// nothing does any more.
	Trouble func(trouble, remedy string)
	// Done is told what has become of each attempt.
	Done func(Result)

	// OfOne tells whether an error of the Store is of the one Secret, and others may be
	// written; nil: none is.
	OfOne func(error) bool

	mu      sync.Mutex
	client  *acme.Client
	options model.ACMEOptions // of client
	rest    rest
	unkept  map[string]certificate.Attempt // that no Secret could be written for, by host
}

// mostAtOnce are ordered at the same time, and mostOfPass before it is looked at anew
// what is due: while some wait for an authority that is slow, others become urgent.
const (
	mostAtOnce = 4
	mostOfPass = 16
)

// leastPause is between two looks, since changes come together; troublePause after one
// that came to nothing.
const (
	leastPause   = time.Second
	troublePause = 10 * time.Second
)

// Run orders what is due until ctx has ended, and then returns nil. What is under way
// then is for the next one to go on with.
func (o *Orders) Run(ctx context.Context) error {
	defer func() {
		if o.client != nil {
			o.client.HTTPClient.CloseIdleConnections()
		}
	}()
	for ctx.Err() == nil {
		view, changed := o.Look()
		now := time.Now()
		plan := certificate.Compute(view.Wanted, o.known(&view.State.State), view.Options.Server, now)
		again, more := plan.Again, false
		err := o.clear(ctx, plan)
		if err == nil && o.rested(&view, now) {
			if more, err = o.orderAll(ctx, &view, plan.Order); more {
				again = now
			}
		}
		if err != nil && ctx.Err() == nil {
			o.Log.Warn("certificates cannot be ordered", "error", err)
			o.Trouble(err.Error(), storeRemedy)
			again = now.Add(troublePause)
		} else if err == nil {
			o.Trouble(o.troubled())
		}
		if rests := o.resting(); len(plan.Order) > 0 && rests.After(now) && (again.IsZero() || more || rests.Before(again)) {
			again = rests
		}
		pause(ctx, leastPause, nil)
		pause(ctx, until(again), changed)
	}
	return nil
}

// storeRemedy is for errors of a Store.
const storeRemedy = "let the gateways write Secrets of namespace " + model.CertificateNamespace + ": kubectl apply --server-side -f deploy/gateway-acme.yaml, or gateway.acme.enabled of the Helm chart"

// until is how long it is until a time; 0: it is never.
func until(at time.Time) time.Duration {
	if at.IsZero() {
		return 0
	}
	return max(time.Until(at), 1)
}

// clear deletes what nobody needs.
func (o *Orders) clear(ctx context.Context, plan *certificate.Plan) error {
	for _, host := range plan.Ended {
		if err := o.Store.DeleteSecret(ctx, model.CertificateOf(host)); err != nil {
			return err
		}
	}
	for _, host := range plan.Vain {
		if err := o.Store.DeleteSecret(ctx, model.AttemptOf(host)); err != nil {
			return err
		}
		o.mu.Lock()
		delete(o.unkept, host)
		o.mu.Unlock()
	}
	return nil
}

// known is a state with the attempts that no Secret could be written for.
func (o *Orders) known(state *certificate.State) *certificate.State {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.unkept) == 0 {
		return state
	}
	all := &certificate.State{Held: state.Held, Attempts: maps.Clone(state.Attempts)}
	if all.Attempts == nil {
		all.Attempts = map[string]certificate.Attempt{}
	}
	maps.Copy(all.Attempts, o.unkept)
	return all
}

// remember notes a failure that no Secret could be written for: else it would be tried
// again at once.
func (o *Orders) remember(host, server string, err error, now time.Time) {
	o.Log.Warn("no certificate could be ordered, and of this one nothing can be kept", "host", host, "error", err)
	o.mu.Lock()
	defer o.mu.Unlock()
	failures := o.unkept[host].Failures + 1
	if o.unkept == nil {
		o.unkept = map[string]certificate.Attempt{}
	}
	o.unkept[host] = certificate.Attempt{Server: server, Failures: failures, After: certificate.Next(failures, 0, now), Error: err.Error()}
}

// orderAll orders for hosts, a few at the same time, until the authority wants to rest,
// or is another one, or so many were tried that there are more to look at. Its error is
// of the Store, and of all hosts.
func (o *Orders) orderAll(ctx context.Context, view *View, hosts []string) (more bool, failed error) {
	var tried atomic.Int64
	next := make(chan string)
	var mu sync.Mutex
	var working sync.WaitGroup
	for range min(mostAtOnce, len(hosts)) {
		working.Go(func() {
			for host := range next {
				err := o.try(ctx, view, host, &tried)
				if err != nil && o.OfOne != nil && o.OfOne(err) {
					o.remember(host, view.Options.Server, err, time.Now())
				} else if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			}
		})
	}
	for _, host := range hosts {
		mu.Lock()
		stop := failed != nil
		mu.Unlock()
		if stop || ctx.Err() != nil || o.resting().After(time.Now()) {
			break
		}
		if now, _ := o.Look(); tried.Load() >= mostOfPass || now.Options != view.Options {
			more = true
			break
		}
		next <- host
	}
	close(next)
	working.Wait()
	return more, failed
}

// try orders for one host, if that is still due, and notes what has come of it.
func (o *Orders) try(ctx context.Context, view *View, host string, tried *atomic.Int64) error {
	a, err := o.fresh(ctx, view, host)
	if a == nil || err != nil {
		return err
	}
	tried.Add(1)
	limited, cancel := context.WithTimeout(ctx, mostTime)
	defer cancel()
	err = o.order(limited, &view.Options, a)
	if err == nil {
		o.Log.Info("a certificate was made", "host", host)
		o.mu.Lock()
		delete(o.unkept, host)
		o.mu.Unlock()
		o.heed(&view.Options, host, &failure{}, time.Now())
		o.Done(Issued)
		return nil
	}
	if ctx.Err() != nil {
		return nil // another gateway goes on
	}
	if store := (*storeError)(nil); errors.As(err, &store) {
		return store
	}
	return o.fail(ctx, view, a, err)
}

// fresh reads what there is of a host now: views lag behind what was written. nil: it
// is not due any more.
func (o *Orders) fresh(ctx context.Context, view *View, host string) (*attempt, error) {
	held, err := o.Store.ReadSecret(ctx, model.CertificateOf(host))
	if err != nil {
		return nil, err
	}
	tried, err := o.Store.ReadSecret(ctx, model.AttemptOf(host))
	if err != nil {
		return nil, err
	}
	state := &State{}
	state.copy(&State{})
	state.take(held, true)
	state.take(tried, true)
	if len(certificate.Compute([]certificate.Wanted{{Host: host}}, &state.State, view.Options.Server, time.Now()).Order) == 0 {
		return nil, nil
	}
	a := &attempt{host: host}
	if tried != nil && string(tried.Content[serverKey]) == view.Options.Server && string(tried.Content[hostKey]) == host {
		a = readAttempt(tried)
	}
	a.Server, a.After = view.Options.Server, time.Time{}
	return a, nil
}

// fail notes that an attempt has failed, and when there is to be another one.
func (o *Orders) fail(ctx context.Context, view *View, a *attempt, err error) error {
	now := time.Now()
	f := failureOf(err, now)
	if a.token != "" { // it is another one each time, and the text is for Events
		f.text = strings.ReplaceAll(f.text, a.token, "TOKEN")
	}
	result := Failed
	if f.pause > 0 {
		result = Limited
	}
	o.Done(result)
	o.Log.Warn("no certificate could be ordered", "host", a.host, "error", err)
	if f.kind == "accountDoesNotExist" {
		if err := o.forget(ctx, &view.Options); err != nil {
			return err
		}
	}
	o.heed(&view.Options, a.host, &f, now)
	if f.unheard {
		return nil // it is no failure of the host, which is tried when all are
	}
	next := &attempt{host: a.host}
	if f.late {
		*next = *a
	}
	next.Attempt = certificate.Attempt{
		Server: a.Server, Failures: a.Failures + 1, After: certificate.Next(a.Failures+1, f.pause, now), Kind: f.kind, Error: f.text,
	}
	return o.Store.WriteSecret(ctx, next.secret())
}

// pause waits for a channel, the end of ctx, or the time; 0: no time.
func pause(ctx context.Context, most time.Duration, changed <-chan struct{}) {
	var end <-chan time.Time
	if most > 0 {
		timer := time.NewTimer(most)
		defer timer.Stop()
		end = timer.C
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-end:
	}
}
