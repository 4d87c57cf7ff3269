package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/whole"
)

// mender makes the host's side of pods' links as the attacher made it, when
// somebody has changed it: the data planes know the routes to pods, but not what
// these stand on.
type mender struct {
	feed     *model.Feed
	attacher *attacher
	log      *slog.Logger

	indexes map[int]string      // of pods' links
	due     map[string]struct{} // links that may have been changed
	left    map[string]struct{} // the same, of which that could not be told, or mended
}

// Run mends until the context ends. When notifications were lost, it looks at
// all.
func (m *mender) Run(ctx context.Context) error {
	again := backoff{first: 10 * time.Millisecond, most: 10 * time.Second}
	for {
		began := time.Now()
		err := m.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > time.Minute {
			again.reset()
		}
		m.log.Warn("notifications of pods' links ended, looking at all", "error", err)
		if !pause(ctx, again.next()) {
			return nil
		}
	}
}

// podEvents are the subscriptions to what may happen to pods' links.
type podEvents struct {
	links     chan netlink.LinkUpdate
	addresses chan netlink.AddrUpdate
	neighbors chan netlink.NeighUpdate
	failed    chan error // of one element
}

func subscribePods(done chan struct{}) (*podEvents, error) {
	e := &podEvents{
		make(chan netlink.LinkUpdate, 64), make(chan netlink.AddrUpdate, 64), make(chan netlink.NeighUpdate, 64), make(chan error, 1),
	}
	note := func(err error) {
		select {
		case e.failed <- err:
		default:
		}
	}
	err := netlink.LinkSubscribeWithOptions(e.links, done, netlink.LinkSubscribeOptions{
		ErrorCallback: note, ReceiveBufferSize: receiveBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to links: %w", err)
	}
	go func() { <-done; drain(e.links) }()
	err = netlink.AddrSubscribeWithOptions(e.addresses, done, netlink.AddrSubscribeOptions{
		ErrorCallback: note, ReceiveBufferSize: receiveBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to addresses: %w", err)
	}
	go func() { <-done; drain(e.addresses) }()
	err = netlink.NeighSubscribeWithOptions(e.neighbors, done, netlink.NeighSubscribeOptions{
		ErrorCallback: note, ReceiveBufferSize: receiveBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to neighbours: %w", err)
	}
	go func() { <-done; drain(e.neighbors) }()
	return e, nil
}

// calmPods is how long after pods' links were mended they are mended at once
// again, rather than ever more slowly.
const calmPods = 10 * time.Second

// pace is when links are looked at. The channels are nil if no time is set.
type pace struct {
	slower, again backoff
	mended        time.Time // the last time
	due, left     <-chan time.Time
}

// set sets times for those that are due, if there are any, and for those that were left.
func (p *pace) set(due, left int) {
	if due > 0 && p.due == nil {
		wait := gatherTime
		if time.Since(p.mended) < calmPods {
			wait = p.slower.next()
		} else {
			p.slower.reset()
		}
		p.due = time.After(wait)
	}
	if left > 0 && p.left == nil {
		p.left = time.After(p.again.next())
	}
}

// looked notes that those that were due have been looked at.
func (p *pace) looked(mended bool, left int) {
	p.due = nil
	if mended {
		p.mended = time.Now()
	}
	if left == 0 {
		p.again.reset()
	}
}

func (m *mender) follow(ctx context.Context) error {
	done := make(chan struct{})
	defer close(done)
	events, err := subscribePods(done)
	if err != nil {
		return err
	}
	if err := m.all(); err != nil {
		return err
	}
	next := pace{
		slower: backoff{first: 50 * time.Millisecond, most: 500 * time.Millisecond},
		again:  backoff{first: 100 * time.Millisecond, most: 10 * time.Second},
	}
	for {
		next.set(len(m.due), len(m.left))
		select {
		case <-ctx.Done():
			return nil
		case err := <-events.failed:
			return err
		case change, ok := <-events.links:
			if !ok {
				return errors.New("the socket was closed")
			}
			m.link(change)
		case change, ok := <-events.addresses:
			if !ok {
				return errors.New("the socket was closed")
			}
			if !change.NewAddr {
				m.suspect(change.LinkIndex)
			}
		case change, ok := <-events.neighbors:
			if !ok {
				return errors.New("the socket was closed")
			}
			if change.Type == unix.RTM_DELNEIGH || change.State&netlink.NUD_PERMANENT == 0 {
				m.suspect(change.LinkIndex)
			}
		case <-next.due:
			mended := m.mendDue(ctx)
			next.looked(mended, len(m.left))
		case <-next.left:
			next.left = nil
			maps.Copy(m.due, m.left)
			clear(m.left)
		}
	}
}

// all suspects all pods' links.
func (m *mender) all() error {
	links, err := whole.List(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	m.indexes, m.due, m.left = map[int]string{}, map[string]struct{}{}, map[string]struct{}{}
	for _, link := range links {
		if attrs := link.Attrs(); isPodDevice(attrs.Name) {
			m.indexes[attrs.Index] = attrs.Name
			m.suspect(attrs.Index)
		}
	}
	return nil
}

func (m *mender) suspect(index int) {
	if name, ok := m.indexes[index]; ok {
		m.due[name] = struct{}{}
	}
}

func (m *mender) link(change netlink.LinkUpdate) {
	attrs := change.Attrs()
	if change.Header.Type == unix.RTM_DELLINK {
		if change.Family != unix.AF_BRIDGE {
			delete(m.indexes, attrs.Index)
		}
		return
	}
	if !isPodDevice(attrs.Name) {
		return
	}
	m.indexes[attrs.Index] = attrs.Name
	if attrs.Flags&net.FlagUp == 0 || attrs.Group != model.PodGroup || change.Change != ^uint32(0) && change.Change != 0 {
		m.suspect(attrs.Index)
	}
	// The kernel does not say that a MAC address has changed, but tells the address.
	if _, ok := m.due[attrs.Name]; !ok && m.differs(attrs) {
		m.suspect(attrs.Index)
	}
}

// differs tells whether a link looks otherwise than it was made.
func (m *mender) differs(attrs *netlink.LinkAttrs) bool {
	attachment, ok := m.find(attrs.Name)
	if !ok {
		return false
	}
	host, _ := hardware(attachment.AttachmentKey)
	return attrs.HardwareAddr.String() != host.String() || attrs.Alias != alias(attachment)
}

func (m *mender) find(device string) (*model.Attachment, bool) {
	snapshot, _ := m.feed.Latest()
	for _, attachment := range snapshot.Attachments.All() {
		if attachment.Device == device {
			return attachment, true
		}
	}
	return nil, false
}

// mendDue looks at the suspects and tells whether it has mended one. Those that are being
// attached or detached, or that could not be mended, are left.
func (m *mender) mendDue(ctx context.Context) (mended bool) {
	for device := range m.due {
		delete(m.due, device)
		attachment, ok := m.find(device)
		if !ok || ctx.Err() != nil {
			continue
		}
		unlock := m.attacher.busy.try(attachment.AttachmentKey)
		if unlock == nil {
			m.left[device] = struct{}{}
			continue
		}
		different, err := m.mend(attachment)
		unlock()
		if err != nil {
			m.left[device] = struct{}{}
			m.log.Warn("the link of a pod was changed by somebody and could not be mended", "device", device, "pod", attachment.Pod, "error", err)
			continue
		}
		if different != nil {
			m.log.Info("the link of a pod was changed by somebody and is mended", "device", device, "pod", attachment.Pod, "was", different)
			mended = true
		}
	}
	return mended
}

// mend returns in what the link was different; nil if in nothing. Nobody else may be busy
// with the attachment.
func (m *mender) mend(attachment *model.Attachment) (different, err error) {
	snapshot, _ := m.feed.Latest()
	if current, _ := snapshot.Attachments.Get(attachment.AttachmentKey); current != attachment {
		return nil, nil // it went, or was made anew, meanwhile
	}
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer node.Close()
	v := &veth{Attachment: attachment}
	if _, err := v.verifyHost(node); err == nil || !errors.As(err, new(difference)) {
		return nil, err
	} else {
		different = err
	}
	link, err := node.LinkByName(attachment.Device)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil // links takes the pod out of the feed
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", attachment.Device, err)
	}
	return different, v.restoreHost(node, link)
}

// restoreHost makes the host's side as create does.
func (v *veth) restoreHost(node *netlink.Handle, link netlink.Link) error {
	host, _ := hardware(v.AttachmentKey)
	err := errors.Join(
		node.LinkSetHardwareAddr(link, host[:]),
		node.LinkSetGroup(link, model.PodGroup),
		node.LinkSetAlias(link, alias(v.Attachment)),
	)
	if err != nil {
		return fmt.Errorf("restore %s: %w", v.Device, err)
	}
	return v.configureHost(node, link)
}
