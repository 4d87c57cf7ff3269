package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/whole"
)

// links tells the feed which interfaces of this node have which addresses, as
// the kernel notifies of them. An interface of which the kernel may have dropped
// routes is in the feed anew, though it looks as before. Pods whose interface is
// gone are taken out of it.
type links struct {
	feed  *model.Feed
	log   *slog.Logger
	known chan struct{} // closed when the feed has them

	interfaces map[int]*iface      // by index
	shown      map[int]*model.Link // what the feed has
}

// iface is an interface as last seen.
type iface struct {
	name      string
	up        bool
	mtu       int
	addresses []netip.Prefix // sorted
}

func newLinks(feed *model.Feed, log *slog.Logger) *links {
	return &links{feed: feed, log: log, known: make(chan struct{}), shown: map[int]*model.Link{}}
}

// Run follows the links until the context ends. When notifications were lost,
// it lists anew.
func (l *links) Run(ctx context.Context) error {
	again := backoff{first: 10 * time.Millisecond, most: 10 * time.Second}
	for {
		began := time.Now()
		err := l.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > time.Minute {
			again.reset()
		}
		l.log.Warn("notifications of links ended, listing anew", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again.next()):
		}
	}
}

// receiveBuffer in bytes holds the notifications of some thousand changes.
const receiveBuffer = 4 << 20

func (l *links) follow(ctx context.Context) error {
	done, failed := make(chan struct{}), make(chan error, 1)
	note := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	changes, addresses := make(chan netlink.LinkUpdate, 64), make(chan netlink.AddrUpdate, 64)
	defer close(done)
	err := netlink.LinkSubscribeWithOptions(changes, done, netlink.LinkSubscribeOptions{
		ErrorCallback: note, ReceiveBufferSize: receiveBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		return fmt.Errorf("subscribe to links: %w", err)
	}
	defer drain(changes)
	err = netlink.AddrSubscribeWithOptions(addresses, done, netlink.AddrSubscribeOptions{
		ErrorCallback: note, ReceiveBufferSize: receiveBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		return fmt.Errorf("subscribe to addresses: %w", err)
	}
	defer drain(addresses)
	if err := l.list(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case change, ok := <-changes:
			if !ok {
				return errors.New("the socket was closed")
			}
			if err := l.link(change); err != nil {
				return err
			}
		case change, ok := <-addresses:
			if !ok {
				return errors.New("the socket was closed")
			}
			l.address(change)
		}
	}
}

// drain lets the sender, which blocks, see that it is to end.
func drain[T any](updates <-chan T) {
	go func() {
		for range updates {
		}
	}()
}

// list reads everything; notifications that were queued meanwhile only repeat
// it.
func (l *links) list() error {
	before, _ := l.feed.Latest()
	all, err := whole.List(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	addrs, err := whole.List(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	l.interfaces = map[int]*iface{}
	names := map[string]bool{}
	for _, link := range all {
		l.set(link)
		names[link.Attrs().Name] = true
	}
	for _, attachment := range before.Attachments.All() {
		if !names[attachment.Device] {
			l.drop(attachment)
		}
	}
	for _, addr := range addrs {
		l.add(addr.LinkIndex, *addr.IPNet, addr.Scope, addr.Flags)
	}
	// What happened before was perhaps not notified of.
	for index := range l.interfaces {
		l.show(index, true)
	}
	for index := range l.shown {
		if _, ok := l.interfaces[index]; !ok {
			l.show(index, true)
		}
	}
	select {
	case <-l.known:
	default:
		close(l.known)
	}
	return nil
}

func (l *links) link(change netlink.LinkUpdate) error {
	// A bridge speaks of its ports in the same words: when one leaves it, of
	// RTM_DELLINK.
	if change.Family == unix.AF_BRIDGE {
		return nil
	}
	attrs := change.Attrs()
	if change.Header.Type == unix.RTM_NEWLINK {
		l.set(change.Link)
	} else {
		delete(l.interfaces, attrs.Index)
		if isPodDevice(attrs.Name) {
			if err := l.lost(attrs.Name); err != nil {
				return err
			}
		}
	}
	l.show(attrs.Index, change.Change&unix.IFF_UP != 0)
	return nil
}

func (l *links) set(link netlink.Link) {
	attrs := link.Attrs()
	i := l.iface(attrs.Index)
	i.name, i.mtu, i.up = attrs.Name, attrs.MTU, attrs.Flags&net.FlagUp != 0
}

// iface may be of an interface without a name yet: notifications of addresses
// come by another socket, and may come first.
func (l *links) iface(index int) *iface {
	if _, ok := l.interfaces[index]; !ok {
		l.interfaces[index] = &iface{}
	}
	return l.interfaces[index]
}

// lost takes a pod whose interface went out of the feed: no route to it can be
// made. An error means that this could not be told.
func (l *links) lost(device string) error {
	before, _ := l.feed.Latest()
	for _, attachment := range before.Attachments.All() {
		if attachment.Device != device {
			continue
		}
		// The name may be that of a new interface by now.
		_, err := netlink.LinkByName(device)
		switch {
		case errors.As(err, new(netlink.LinkNotFoundError)):
			l.drop(attachment)
		case err != nil:
			return fmt.Errorf("look up %s: %w", device, err)
		}
	}
	return nil
}

// drop leaves alone one that was connected anew meanwhile. The attacher frees its
// addresses.
func (l *links) drop(attachment *model.Attachment) {
	l.feed.Edit(func(s *model.Snapshot) {
		if current, _ := s.Attachments.Get(attachment.AttachmentKey); current == attachment {
			s.Attachments = s.Attachments.Without(attachment.AttachmentKey)
		}
	})
}

func (l *links) address(change netlink.AddrUpdate) {
	if change.NewAddr {
		l.add(change.LinkIndex, change.LinkAddress, change.Scope, change.Flags)
	} else {
		l.remove(change.LinkIndex, change.LinkAddress)
	}
	l.show(change.LinkIndex, !change.NewAddr)
}

// unusable are addresses that no peer should send to: not checked for
// duplicates yet, found to be one, or made to be forgotten (RFC 8981).
const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_TEMPORARY

func (l *links) add(index int, network net.IPNet, scope, flags int) {
	l.remove(index, network)
	prefix := prefixOf(network)
	if prefix.Addr().Is4() {
		flags &^= unix.IFA_F_SECONDARY // the same bit as IFA_F_TEMPORARY
	}
	if scope >= unix.RT_SCOPE_LINK || flags&unusable != 0 || !prefix.IsValid() {
		return
	}
	i := l.iface(index)
	i.addresses = append(slices.Clone(i.addresses), prefix)
	slices.SortFunc(i.addresses, netip.Prefix.Compare)
}

func (l *links) remove(index int, network net.IPNet) {
	if i, ok := l.interfaces[index]; ok {
		prefix := prefixOf(network)
		i.addresses = slices.DeleteFunc(slices.Clone(i.addresses), func(p netip.Prefix) bool { return p == prefix })
	}
}

func prefixOf(network net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(network.IP)
	bits, _ := network.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

// show makes the feed know an interface as it is now. If the kernel has dropped
// routes, perhaps, it does so although nothing else differs.
func (l *links) show(index int, dropped bool) {
	before, now := l.shown[index], l.visible(index)
	if before == now || before != nil && now != nil && before.Equal(now) && !dropped {
		return
	}
	l.feed.Edit(func(s *model.Snapshot) {
		if before != nil {
			// Unless another interface has taken the name.
			if current, _ := s.Links.Get(before.Name); current == before {
				s.Links = s.Links.Without(before.Name)
			}
		}
		if now != nil {
			s.Links = s.Links.With(now.Name, now)
		}
	})
	if now == nil {
		delete(l.shown, index)
	} else {
		l.shown[index] = now
	}
}

// visible is what the feed should have of an interface; nil if nothing.
func (l *links) visible(index int) *model.Link {
	i, ok := l.interfaces[index]
	if !ok || !i.up || len(i.addresses) == 0 || i.name == "lo" ||
		isPodDevice(i.name) || strings.HasPrefix(i.name, route.TunnelPrefix) {
		return nil
	}
	return &model.Link{Name: i.name, MTU: i.mtu, Addresses: i.addresses, AcceptsRA: acceptsRA(i.name)}
}

func acceptsRA(name string) bool {
	value, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/accept_ra")
	return err == nil && strings.TrimSpace(string(value)) != "0"
}
