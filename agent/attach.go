package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/ipam"
	"github.com/fairlead-net/fairlead/model"
)

// attacher connects pods and disconnects them. Its methods may be called
// concurrently; those for the same attachment wait for each other.
type attacher struct {
	node string
	feed *model.Feed
	loop *loop
	able chan struct{} // closed when it knows what a pod of this node gets
	log  *slog.Logger
	busy locks

	mu        sync.Mutex // guards what is below
	addresses ipam.Allocator
	owners    map[model.AttachmentKey]struct{} // of addresses
}

// takeOver makes its own the pods that an earlier agent has connected, before
// any other is. What cannot be taken over is left as it is.
func (a *attacher) takeOver() error {
	remains, err := findRemains()
	if err != nil {
		return err
	}
	for _, device := range remains.unlabelled {
		a.log.Warn("removing a link of no pod", "device", device)
		if err := removeDevice(device); err != nil {
			return err
		}
	}
	for _, attachment := range remains.attachments {
		if err := a.addresses.Restore(attachment.AttachmentKey, attachment.Addresses); err != nil {
			remains.strange = append(remains.strange, fmt.Errorf("%s: %w", attachment.Device, err))
			continue
		}
		a.own(attachment.AttachmentKey)
		a.feed.Edit(func(s *model.Snapshot) {
			s.Attachments = s.Attachments.With(attachment.AttachmentKey, attachment)
		})
	}
	for _, err := range remains.strange {
		a.log.Warn("a link that looks like a pod's is left alone; restart its pod", "error", err)
	}
	return nil
}

// Run ends when the node can give its pods addresses, and says so to able.
func (a *attacher) Run(ctx context.Context) error {
	if _, err := a.await(ctx); err == nil {
		close(a.able)
	}
	return nil
}

// wanted is a pod to connect.
type wanted struct {
	model.AttachmentKey
	pod   model.PodKey
	netns *os.File
}

// add connects a pod and returns when the kernel has its routes. What is so
// already stays; after an error nothing is left.
func (a *attacher) add(ctx context.Context, w wanted) (*veth, error) {
	defer a.busy.lock(w.AttachmentKey)()
	waiting, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	snapshot, err := a.await(waiting)
	if err != nil {
		return nil, err
	}
	mtu := podMTU(snapshot, a.node)
	if held, ok := snapshot.Attachments.Get(w.AttachmentKey); ok {
		v := &veth{Attachment: held, netns: w.netns, mtu: mtu}
		err := v.verify()
		if err == nil {
			return v, a.waitRoutes(ctx, held, snapshot.Revision)
		}
		// A pod that runs is not cut off because it could not be looked at.
		if !errors.As(err, new(difference)) {
			return nil, err
		}
		if err := a.remove(w.AttachmentKey); err != nil {
			return nil, err
		}
	}
	node, _ := snapshot.Nodes.Get(a.node)
	addrs, err := a.allocate(w.AttachmentKey, node.PodCIDRs)
	if err != nil {
		return nil, err
	}
	v := &veth{netns: w.netns, mtu: mtu, Attachment: &model.Attachment{
		AttachmentKey: w.AttachmentKey, Pod: w.pod, Device: deviceName(w.AttachmentKey), Addresses: addrs,
	}}
	if err := a.connect(ctx, v); err != nil {
		return nil, errors.Join(err, a.remove(w.AttachmentKey))
	}
	return v, nil
}

func (a *attacher) connect(ctx context.Context, v *veth) error {
	// Of an earlier attempt, perhaps; never of another pod.
	if err := removeDevice(v.Device); err != nil {
		return err
	}
	if err := v.create(); err != nil {
		return err
	}
	revision := a.feed.Edit(func(s *model.Snapshot) {
		s.Attachments = s.Attachments.With(v.AttachmentKey, v.Attachment)
	})
	return a.waitRoutes(ctx, v.Attachment, revision)
}

// waitRoutes waits until the kernel has the routes to the pod.
func (a *attacher) waitRoutes(ctx context.Context, attachment *model.Attachment, revision uint64) error {
	result, err := a.loop.waitApplied(ctx, revision)
	if err != nil {
		return err
	}
	for _, addr := range attachment.Addresses {
		prefix := model.HostPrefix(addr)
		for _, problem := range result.refused {
			if problem.Field == "route "+prefix.String() {
				return errors.New(problem.String())
			}
		}
		planned := false
		if result.plan.Route != nil {
			route, _ := result.plan.Route.Routes.Get(prefix)
			planned = route.Device == attachment.Device
		}
		if !planned {
			err := fmt.Errorf("no route to %s is planned", addr)
			for _, problem := range result.plan.Problems {
				err = fmt.Errorf("%w; %s", err, problem)
			}
			return err
		}
	}
	return nil
}

// remove disconnects a pod, also one that is half connected or not known.
func (a *attacher) remove(key model.AttachmentKey) error {
	if err := removeDevice(deviceName(key)); err != nil {
		return err
	}
	a.feed.Edit(func(s *model.Snapshot) { s.Attachments = s.Attachments.Without(key) })
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addresses.Release(key, time.Now())
	delete(a.owners, key)
	return nil
}

func (a *attacher) del(key model.AttachmentKey) error {
	defer a.busy.lock(key)()
	return a.remove(key)
}

func (a *attacher) check(key model.AttachmentKey, netns *os.File) error {
	defer a.busy.lock(key)()
	snapshot, _ := a.feed.Latest()
	held, ok := snapshot.Attachments.Get(key)
	if !ok {
		return differs("%s of container %s is not connected", key.Interface, key.ContainerID)
	}
	return (&veth{Attachment: held, netns: netns}).verify()
}

// collect disconnects all pods but these. The runtime adds none meanwhile (CNI
// specification, section 2, GC).
func (a *attacher) collect(valid map[model.AttachmentKey]bool) error {
	a.mu.Lock()
	owners := maps.Clone(a.owners) // also pods whose link is gone
	a.mu.Unlock()
	var failed []error
	for key := range owners {
		if valid[key] {
			continue
		}
		a.log.Info("removing a pod that is no more", "container", key.ContainerID)
		failed = append(failed, a.del(key))
	}
	return errors.Join(failed...)
}

// own notes an owner of addresses. The caller holds the lock, or is alone.
func (a *attacher) own(key model.AttachmentKey) {
	if a.owners == nil {
		a.owners = map[model.AttachmentKey]struct{}{}
	}
	a.owners[key] = struct{}{}
}

func (a *attacher) allocate(key model.AttachmentKey, ranges []netip.Prefix) ([]netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addresses.SetRanges(ranges)
	addrs, err := a.addresses.Allocate(key, time.Now())
	if err != nil {
		return nil, fmt.Errorf("allocate an address: %w", err)
	}
	a.own(key)
	return addrs, nil
}

// errNotReady says what an ADD waited for in vain.
var errNotReady = errors.New("the node is not ready for pods")

// readyTimeout bounds the wait for a node that was just registered to get its
// range; the kubelet tries again.
const readyTimeout = 10 * time.Second

// await waits until the snapshot says what a pod of this node gets.
func (a *attacher) await(ctx context.Context) (*model.Snapshot, error) {
	for {
		snapshot, changed := a.feed.Latest()
		missing := a.missing(snapshot)
		if missing == "" {
			return snapshot, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %s", errNotReady, missing)
		case <-changed:
		}
	}
}

// why is what await waits for now.
func (a *attacher) why() string {
	snapshot, _ := a.feed.Latest()
	return a.missing(snapshot)
}

func (a *attacher) missing(s *model.Snapshot) string {
	node, ok := s.Nodes.Get(a.node)
	switch {
	case s.Network == nil || s.Nodes.Len() == 0:
		return "the API server has not been reached yet; the agent's log and fairlead status say why"
	case !ok:
		return fmt.Sprintf("the API server has no Node named %s; start the agent with the kubelet's name (--node-name)", a.node)
	case len(node.PodCIDRs) == 0:
		return fmt.Sprintf("node %s has no spec.podCIDRs; run kube-controller-manager with --allocate-node-cidrs and --cluster-cidr", a.node)
	case uplink(s, a.node) == nil:
		return fmt.Sprintf("no interface that is up has an address of node %s; compare kubectl get node -o wide with ip addr, and give the kubelet the right --node-ip", a.node)
	default:
		return ""
	}
}

// locks lets those who want the same attachment take turns. The zero value is
// ready.
type locks struct {
	mu   sync.Mutex
	held map[model.AttachmentKey]chan struct{} // closed when it is free
}

// lock waits for its turn and returns what ends it.
func (l *locks) lock(key model.AttachmentKey) (unlock func()) {
	for {
		l.mu.Lock()
		held, ok := l.held[key]
		if !ok {
			break
		}
		l.mu.Unlock()
		<-held
	}
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[model.AttachmentKey]chan struct{}{}
	}
	mine := make(chan struct{})
	l.held[key] = mine
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, key)
		close(mine)
	}
}
