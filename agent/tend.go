package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/ipam"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

const (
	// recheckTime is how soon something that fails is looked at again.
	recheckTime = 5 * time.Second
	// warnTime is how long an Event is enough for what goes on or comes again.
	warnTime = 10 * time.Minute
)

// Run says when pods can be given addresses, carries out what no runtime asks
// for, and tells what fails.
func (a *attacher) Run(ctx context.Context) error {
	var working sync.WaitGroup
	defer working.Wait()
	working.Go(func() {
		if _, err := a.await(ctx); err == nil {
			close(a.able)
		}
	})
	return watch(written, []string{a.spool.dir}, func(spooled <-chan struct{}) error {
		recheck := time.NewTicker(recheckTime)
		defer recheck.Stop()
		var attached model.Map[model.AttachmentKey, *model.Attachment]
		var warned time.Time
		for {
			snapshot, changed := a.feed.Latest()
			for change := range model.Diff(attached, snapshot.Attachments) {
				if !change.Has {
					working.Go(func() { a.sweep(change.Key) })
				}
			}
			different := attached != snapshot.Attachments
			attached = snapshot.Attachments
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
				if !different {
					continue
				}
			case <-spooled:
				working.Go(a.carryOutAll)
			case <-a.wake:
			case <-recheck.C: // also of DELs that it was not told of
				working.Go(a.carryOutAll)
				working.Go(a.sweepRest)
			}
			if full := a.tend(); full != nil && time.Since(warned) > warnTime {
				warned = time.Now()
				working.Go(func() { a.warn(ctx, *full) })
			}
		}
	})
}

// warn writes an Event, once: kubectl describe node shows it.
func (a *attacher) warn(ctx context.Context, event kube.Event) {
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	if err := a.publisher.WriteEvent(ctx, event); err != nil && ctx.Err() == nil {
		a.log.Warn("an Event could not be written", "error", err)
	}
}

func (a *attacher) carryOutAll() {
	if err := a.carryOut(); err != nil {
		a.log.Warn("a DEL that waited could not be carried out", "error", err)
	}
}

// sweep frees the addresses of a pod whose link went with its namespace, so that
// a DEL that never comes leaks nothing.
func (a *attacher) sweep(key model.AttachmentKey) {
	defer a.busy.lock(key)()
	a.disconnectGone(key)
}

// sweepRest frees the addresses of pods that went before anybody looked, or that could
// not be disconnected then.
func (a *attacher) sweepRest() {
	snapshot, _ := a.feed.Latest()
	var rest []model.AttachmentKey
	a.mu.Lock()
	for held := range a.addresses.All() {
		if _, connected := snapshot.Attachments.Get(held.AttachmentKey); !connected {
			rest = append(rest, held.AttachmentKey)
		}
	}
	a.mu.Unlock()
	for _, key := range rest {
		unlock := a.busy.try(key)
		if unlock == nil {
			continue // it is being connected
		}
		if _, err := netlink.LinkByName(deviceName(key)); errors.As(err, new(netlink.LinkNotFoundError)) {
			a.disconnectGone(key)
		}
		unlock()
	}
}

// disconnectGone is for who has the attachment's turn.
func (a *attacher) disconnectGone(key model.AttachmentKey) {
	a.mu.Lock()
	held := a.addresses.Held(key)
	a.mu.Unlock()
	snapshot, _ := a.feed.Latest()
	if _, connected := snapshot.Attachments.Get(key); held == nil || connected {
		return
	}
	a.log.Info("a pod is gone without a DEL", "container", key.ContainerID, "addresses", held.Addresses)
	if err := a.remove(key); err != nil {
		a.log.Warn("a pod that is gone could not be disconnected", "container", key.ContainerID, "error", err)
	}
}

// tend tries again what failed and says what still does. It returns what people
// should hear of at once, nil if nothing.
func (a *attacher) tend() *kube.Event {
	a.mu.Lock()
	now := time.Now()
	if a.unwritten != nil || a.journal.removed() {
		a.journal.rewrite()
	}
	if a.full != nil {
		a.full = a.addresses.Available(now)
	}
	full, unwritten := a.full, a.unwritten
	a.mu.Unlock()

	problems := a.unported()
	var event *kube.Event
	var exhausted *ipam.ExhaustedError
	if errors.As(full, &exhausted) {
		problem := model.Problem{
			Kind: "Node", Name: a.node, Field: "spec.podCIDRs", Reason: "NoAddressLeft",
			Message: fmt.Sprintf("no address is left in %v, so no more pods can start on the node", exhausted.Ranges),
			Remedy:  exhaustedRemedy,
		}
		problems = append(problems, problem)
		snapshot, _ := a.feed.Latest()
		if node, ok := snapshot.Nodes.Get(a.node); ok {
			event = &kube.Event{Problem: problem, UID: node.UID}
		}
	}
	if unwritten != nil {
		problems = append(problems, model.Problem{
			Kind: "Node", Name: a.node, Reason: "JournalNotWritten",
			Message: "host ports and freed addresses would be forgotten if the agent ended now: " + unwritten.Error(),
			Remedy:  "make room on the disk of the node, or make it writable",
		})
	}
	a.notices.set("addresses", problems...)
	return event
}

const exhaustedRemedy = "run fewer pods on this node (kubelet --max-pods), or give nodes larger ranges (kube-controller-manager --node-cidr-mask-size)"
