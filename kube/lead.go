package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// ErrLeadershipLost says that another may have become the leader.
var ErrLeadershipLost = errors.New("the lease of the leader was lost")

// Lock names a Lease and who wants it.
type Lock struct {
	Namespace, Name string
	Identity        string      // unique among those that want it
	Failed          func(error) // called with what keeps us from the lock, other than its holder
	// Every is the time between two looks at the lock. A leader that vanishes without
	// a word is replaced after seven to nine of them. 0: two seconds, as with
	// Kubernetes' own components.
	Every time.Duration
}

// Lead waits for the lock and then calls lead, whose context ends with the
// lock. It returns what lead does, ErrLeadershipLost if the lock was lost, or
// nil if ctx ended first. The lock is given back before it returns.
func (c *Client) Lead(ctx context.Context, lock Lock, lead func(context.Context) error) error {
	electing, cancel := context.WithCancel(klog.NewContext(ctx, klog.Logger{}))
	defer cancel()
	led := make(chan error, 1)
	failed := func(err error) {
		if electing.Err() == nil { // else it was interrupted
			lock.Failed(err)
		}
	}
	lease := &leaseLock{failed: failed, now: c.Now, LeaseLock: resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: lock.Namespace, Name: lock.Name},
		Client:     c.coordination,
		LockConfig: resourcelock.ResourceLockConfig{Identity: lock.Identity},
	}}
	every := cmp.Or(lock.Every, 2*time.Second)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name:          lock.Name,
		Lock:          lease,
		LeaseDuration: every * 15 / 2, RenewDeadline: every * 5, RetryPeriod: every,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				err := lead(leading)
				if err == nil && leading.Err() != nil && ctx.Err() == nil {
					err = ErrLeadershipLost
				}
				led <- err
				cancel()
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("preparing the election of %s: %w", lock.Name, err)
	}
	elector.Run(electing)
	if !lease.held {
		return nil
	}
	return <-led // client-go does not wait for it
}

// leaseLock knows what client-go would only log: whether the lock was ever
// held, and why it could not be asked for. It says when it was renewed by the API
// server's clock; client-go goes by when it saw that change.
type leaseLock struct {
	resourcelock.LeaseLock
	now    func() time.Time
	held   bool
	failed func(error)
}

// RecordEvent is called when the lock is had, and when it is lost.
func (l *leaseLock) RecordEvent(string) { l.held = true }

func (l *leaseLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.LeaseLock.Get(ctx)
	if !IsNotFound(err) {
		l.observe(err)
	}
	return record, raw, err
}

func (l *leaseLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	record.RenewTime = metav1.NewTime(l.now())
	return l.observe(l.LeaseLock.Create(ctx, record))
}

func (l *leaseLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	record.RenewTime = metav1.NewTime(l.now())
	return l.observe(l.LeaseLock.Update(ctx, record))
}

func (l *leaseLock) observe(err error) error {
	if err != nil {
		l.failed(fmt.Errorf("asking for the lease %s: %w", l.LeaseMeta.Name, err))
	}
	return err
}

// Unlock deletes a Lease, whoever holds it; one that is gone already is not missed.
func (c *Client) Unlock(ctx context.Context, namespace, name string) error {
	err := c.coordination.Leases(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !IsNotFound(err) {
		return fmt.Errorf("deleting the lease %s: %w", name, err)
	}
	return nil
}
