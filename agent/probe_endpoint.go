package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// endpointKey is the attachment of the probe endpoint.
var endpointKey = model.ProbeEndpoint

// endpoint is a network namespace of the agent's own, connected as pods are: who
// reaches it reaches pods of this node, and what it reaches, they do. Its
// addresses are those of model.ProbeAddress. It goes with the agent, and the
// next one makes it anew.
type endpoint struct {
	node     string
	feed     *model.Feed
	attacher *attacher
	log      *slog.Logger

	current watched[*connected]
}

// connected is an endpoint that can be used, or why there is none. It is
// immutable.
type connected struct {
	netns     *os.File // nil if there is none
	addresses []netip.Addr
	mtu       int    // bytes
	missing   string // why there is none
}

// Run keeps the endpoint until the context ends, and then takes it away.
func (e *endpoint) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-e.attacher.able:
	}
	defer e.disconnect()
	again := backoff{first: recheckTime, most: warnTime}
	for {
		snapshot, changed := e.feed.Latest()
		err := e.keep(ctx, snapshot)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			again.reset()
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
			continue
		}
		if was, _ := e.current.get(); was == nil || was.missing != err.Error() {
			e.log.Warn("there is no probe endpoint, trying again", "error", err)
		}
		e.disconnect()
		e.current.set(&connected{missing: err.Error()})
		if !pause(ctx, again.next()) {
			return nil
		}
	}
}

// keep makes the endpoint as the snapshot wants it.
func (e *endpoint) keep(ctx context.Context, s *model.Snapshot) error {
	node, ok := s.Nodes.Get(e.node)
	if !ok || uplink(s, e.node) == nil {
		return nil // for the moment: what there is stays
	}
	var wanted []netip.Addr
	for _, family := range model.Families {
		if addr := node.ProbeAddress(family); addr.IsValid() {
			wanted = append(wanted, addr)
		}
	}
	if len(wanted) == 0 {
		return fmt.Errorf("the ranges of the node, %v, are too small for one", node.PodCIDRs)
	}
	now, _ := e.current.get()
	held, ok := s.Attachments.Get(endpointKey)
	if ok && now != nil && now.netns != nil && slices.Equal(held.Addresses, wanted) {
		return e.resize(now, podMTU(s, e.node))
	}
	if who := e.taken(s, wanted); who != "" {
		return fmt.Errorf("%s has its address until it ends", who)
	}
	e.disconnect()
	return e.connect(ctx, wanted, podMTU(s, e.node))
}

// taken is the pod of this node that has one of these addresses: of a time when
// they were not kept for the endpoint, or of another network.
func (e *endpoint) taken(s *model.Snapshot, wanted []netip.Addr) string {
	has := func(addrs []netip.Addr) bool {
		return slices.ContainsFunc(addrs, func(addr netip.Addr) bool { return slices.Contains(wanted, addr) })
	}
	for key, attachment := range s.Attachments.All() {
		if key != endpointKey && has(attachment.Addresses) {
			return "pod " + attachment.Pod.String()
		}
	}
	for key, pod := range s.Pods.All() {
		if pod.Node == e.node && !pod.HostNetwork && !pod.Finished && has(pod.Addresses) {
			return "pod " + key.String()
		}
	}
	return ""
}

func (e *endpoint) connect(ctx context.Context, addrs []netip.Addr, mtu int) error {
	defer e.attacher.busy.lock(endpointKey)()
	netns, err := newNetns()
	if err != nil {
		return err
	}
	_, mac := hardware(endpointKey)
	v := &veth{netns: netns, mtu: mtu, Attachment: &model.Attachment{
		AttachmentKey: endpointKey, Device: deviceName(endpointKey), MAC: mac, Addresses: addrs,
	}}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	// Of an endpoint before, the kernel has dropped the routes with the link; the
	// plan has to be without them for a moment, or they would be taken to be there.
	without, _ := e.feed.Latest()
	_, err = e.attacher.loop.waitApplied(ctx, without.Revision)
	if err == nil {
		err = e.attacher.connect(ctx, v)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("connect the probe endpoint: %w", err), e.attacher.remove(endpointKey), netns.Close())
	}
	e.current.set(&connected{netns: netns, addresses: addrs, mtu: mtu})
	return nil
}

// disconnect takes away what there is; nothing is fine.
func (e *endpoint) disconnect() {
	now, _ := e.current.get()
	if now == nil || now.netns == nil {
		return
	}
	e.current.set(&connected{missing: "the agent is ending or makes another"})
	defer e.attacher.busy.lock(endpointKey)()
	if err := errors.Join(e.attacher.remove(endpointKey), now.netns.Close()); err != nil {
		e.log.Warn("the probe endpoint could not be taken away", "error", err)
	}
}

// resize makes the endpoint what a new pod would be.
func (e *endpoint) resize(now *connected, mtu int) error {
	if now.mtu == mtu {
		return nil
	}
	set := func(name string) error {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetMTU(link, mtu)
		}
		if err != nil {
			return fmt.Errorf("set the MTU of %s: %w", name, err)
		}
		return nil
	}
	err := set(deviceName(endpointKey))
	if err == nil {
		err = inside(now.netns, func() error { return set(endpointKey.Interface) })
	}
	if err == nil {
		e.current.set(&connected{netns: now.netns, addresses: now.addresses, mtu: mtu})
	}
	return err
}

// newNetns makes a network namespace that goes when the file is closed.
func newNetns() (made *os.File, err error) {
	home, err := os.Open(currentNetns)
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	defer home.Close()
	err = inside(home, func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			made, err = os.Open(currentNetns)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return made, nil
}

// attachedPods is how many pods the node has, without the endpoint.
func attachedPods(s *model.Snapshot) int {
	if _, ok := s.Attachments.Get(endpointKey); ok {
		return s.Attachments.Len() - 1
	}
	return s.Attachments.Len()
}
