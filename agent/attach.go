package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/ipam"
	"github.com/fairlead-net/fairlead/model"
)

// attacher connects pods and disconnects them. Its methods may be called
// concurrently; those for the same attachment wait for each other.
type attacher struct {
	node       string
	feed       *model.Feed
	loop       *loop
	reserved   <-chan struct{} // closed when no address of others is handed out
	able       chan struct{}   // closed when it knows what a pod of this node gets
	bootMarker string          // file that tells of a reboot by not being there
	booted     bool            // it was not there
	need       func()          // told of each pod that is to be connected; may be nil
	answered   func()          // told when the API server has answered; may be nil
	spool      *spool
	notices    *notices
	publisher  Publisher
	pods       PodReader // may be nil
	log        *slog.Logger
	busy       locks
	wake       chan struct{} // has an element when Run has to look at what fails

	mu        sync.Mutex // guards what is below
	addresses ipam.Allocator
	journal   *journal
	full      error                              // of the last pod that got no address; nil if one would by now
	unwritten error                              // of the journal
	fetched   map[model.AttachmentKey]*model.Pod // by acquaint

	// Of the start.
	strange  []strange           // used by foreign alone
	portless []*model.Attachment // adopted without their host ports; guarded by mu
}

func newAttacher(c *Config, feed *model.Feed, loop *loop, reserved <-chan struct{}, notices *notices) *attacher {
	a := &attacher{
		node: c.Node, feed: feed, loop: loop, reserved: reserved, notices: notices, log: c.Log,
		able: make(chan struct{}), wake: make(chan struct{}, 1), publisher: c.Publisher, pods: c.Pods,
		fetched:    map[model.AttachmentKey]*model.Pod{},
		bootMarker: filepath.Join(c.RunDir, "boot"),
		spool:      &spool{cni.SpoolDir(filepath.Join(c.RunDir, socketName)), c.Log},
	}
	if c.Probes {
		a.addresses.Kept = model.ProbeAddress
	}
	a.journal = &journal{
		path:    c.journalPath(),
		records: func() []ipam.Record { return a.addresses.Records(time.Now()) },
		failing: func(err error) { a.unwritten = err; a.look() },
	}
	return a
}

// look makes Run look at what fails.
func (a *attacher) look() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// wanted is a pod to connect.
type wanted struct {
	model.AttachmentKey
	pod   model.PodKey
	uid   model.UID // of the pod; may be zero
	ports []model.HostPort
	netns *os.File
}

// add connects a pod and returns when the kernel has its routes and what policies
// say of it. What is so already stays; after an error nothing is left.
func (a *attacher) add(ctx context.Context, w wanted) (*veth, error) {
	defer a.busy.lock(w.AttachmentKey)()
	waiting, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if a.need != nil {
		a.need()
	}
	snapshot, err := a.await(waiting)
	if err != nil {
		return nil, err
	}
	// An older DEL of the same name must not come later.
	if a.spool.has(w.AttachmentKey) {
		if err := a.carryOutOne(w.AttachmentKey); err != nil {
			return nil, err
		}
	}
	if snapshot = a.acquaint(ctx, snapshot, w); !snapshot.PoliciesKnown { // any more
		if snapshot, err = a.await(waiting); err != nil {
			return nil, err
		}
	}
	v := &veth{netns: w.netns, mtu: podMTU(snapshot, a.node)}
	if held, ok := snapshot.Attachments.Get(w.AttachmentKey); ok {
		v.Attachment = held
		err := v.verify()
		if err == nil && !slices.Equal(held.HostPorts, w.ports) {
			err = differs("it has the host ports %v, not %v", held.HostPorts, w.ports)
		}
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
	if v.Attachment, err = a.allocate(w, node.PodCIDRs); err != nil {
		return nil, err
	}
	if err := a.connect(ctx, v); err != nil {
		return nil, errors.Join(err, a.remove(w.AttachmentKey))
	}
	return v, nil
}

func (a *attacher) connect(ctx context.Context, v *veth) error {
	err := v.create()
	if errors.Is(err, unix.EEXIST) {
		// Of an earlier attempt, perhaps; never of another pod.
		if err = removeDevice(v.Device); err == nil {
			err = v.create()
		}
	}
	if err != nil {
		return err
	}
	revision := a.feed.Edit(func(s *model.Snapshot) {
		s.Attachments = s.Attachments.With(v.AttachmentKey, v.Attachment)
	})
	// While the data planes apply it.
	if err := inside(v.netns, v.configurePod); err != nil {
		return err
	}
	if err := a.waitRoutes(ctx, v.Attachment, revision); err != nil {
		return err
	}
	return v.waitCarrier(ctx)
}

// waitRoutes waits until the kernel has the routes to the pod, and what policies
// say of it.
func (a *attacher) waitRoutes(ctx context.Context, attachment *model.Attachment, revision uint64) error {
	result, err := a.loop.waitApplied(ctx, revision)
	if err != nil {
		return err
	}
	if result.plan.Policy == nil {
		return fmt.Errorf("%w: what policies forbid is not known", errNotReady)
	}
	for _, addr := range attachment.Addresses {
		prefix := model.HostPrefix(addr)
		for _, problem := range result.refused {
			if problem.Field == "route "+prefix.String() || strings.HasPrefix(problem.Field, "policy "+addr.String()+" ") {
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
	a.mu.Lock()
	defer a.mu.Unlock()
	a.feed.Edit(func(s *model.Snapshot) {
		s.Attachments = s.Attachments.Without(key)
		a.parted(s, key)
	})
	a.addresses.Release(key, time.Now())
	return nil
}

func (a *attacher) del(key model.AttachmentKey) error {
	defer a.busy.lock(key)()
	return a.remove(key)
}

// carryOut carries out the DELs that wait.
func (a *attacher) carryOut() error {
	var failed []error
	for _, key := range a.spool.pending() {
		a.log.Info("carrying out a DEL that waited", "container", key.ContainerID)
		unlock := a.busy.lock(key)
		if a.spool.has(key) { // not carried out meanwhile by an ADD
			failed = append(failed, a.carryOutOne(key))
		}
		unlock()
	}
	return errors.Join(failed...)
}

// carryOutOne is for who has the attachment's turn.
func (a *attacher) carryOutOne(key model.AttachmentKey) error {
	if err := a.remove(key); err != nil {
		return err
	}
	return a.spool.done(key)
}

// check returns a difference if a connected pod is not as it was made, which
// includes what the runtime was told of it.
func (a *attacher) check(key model.AttachmentKey, netns *os.File, told *types100.Result) error {
	defer a.busy.lock(key)()
	snapshot, _ := a.feed.Latest()
	held, ok := snapshot.Attachments.Get(key)
	if !ok {
		return differs("%s of container %s is not connected", key.Interface, key.ContainerID)
	}
	v := &veth{Attachment: held, netns: netns}
	if err := v.verifyTold(told); err != nil {
		return err
	}
	if err := v.verify(); err != nil {
		return err
	}
	return v.verifyRoutes()
}

// collect disconnects all pods but these. The runtime adds none meanwhile (CNI
// specification, section 2, GC).
func (a *attacher) collect(valid map[model.AttachmentKey]bool) error {
	failed := []error{a.carryOut()}
	a.mu.Lock()
	var stale []model.AttachmentKey
	for held := range a.addresses.All() { // also pods whose link is gone
		if !valid[held.AttachmentKey] {
			stale = append(stale, held.AttachmentKey)
		}
	}
	a.mu.Unlock()
	for _, key := range stale {
		a.log.Info("removing a pod that is no more", "container", key.ContainerID)
		failed = append(failed, a.del(key))
	}
	return errors.Join(failed...)
}

func (a *attacher) allocate(w wanted, ranges []netip.Prefix) (*model.Attachment, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.claimPorts(w.AttachmentKey, w.ports); err != nil {
		return nil, err
	}
	a.addresses.SetRanges(ranges)
	_, mac := hardware(w.AttachmentKey)
	held, err := a.addresses.Allocate(model.Attachment{
		AttachmentKey: w.AttachmentKey, Pod: w.pod, UID: w.uid, Device: deviceName(w.AttachmentKey), MAC: mac, HostPorts: w.ports,
	}, time.Now())
	if (err != nil) != (a.full != nil) {
		a.look()
	}
	if a.full = err; err != nil {
		return nil, fmt.Errorf("allocate an address: %w", err)
	}
	return held, nil
}

// errNotReady says what an ADD waited for in vain.
var errNotReady = errors.New("the node is not ready for pods")

// readyTimeout bounds the wait for a node that was just registered to get its
// range; the kubelet tries again.
const readyTimeout = 10 * time.Second

// await waits until the snapshot says what a pod of this node gets, and no
// address of others can be handed out.
func (a *attacher) await(ctx context.Context) (*model.Snapshot, error) {
	for {
		snapshot, changed := a.feed.Latest()
		missing := a.missing(snapshot)
		if missing == "" && isDone(a.reserved) {
			return snapshot, nil
		}
		if missing == "" {
			missing, changed = unreserved, a.reserved
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
	if missing := a.missing(snapshot); missing != "" {
		return missing
	}
	return unreserved
}

// unreserved is what is missing when the snapshot lacks nothing.
const unreserved = "the pods of the node have not been read from the API server yet"

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
		return uplinkless(node)
	case !s.PoliciesKnown:
		return "what policies forbid has not been read from the API server yet; the agent's log and fairlead status say why"
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
		unlock, held := l.take(key)
		if unlock != nil {
			return unlock
		}
		<-held
	}
}

// try returns what ends the turn that begins now, nil if it is another's.
func (l *locks) try(key model.AttachmentKey) (unlock func()) {
	unlock, _ = l.take(key)
	return unlock
}

// take returns what ends the turn, or what is closed when that of another has ended.
func (l *locks) take(key model.AttachmentKey) (unlock func(), held <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held, ok := l.held[key]; ok {
		return nil, held
	}
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
	}, nil
}
