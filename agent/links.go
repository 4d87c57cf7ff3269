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
)

// links tells the feed which interfaces of this node have which addresses, as
// the kernel notifies of them.
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
			l.link(change.Link, change.Header.Type == unix.RTM_NEWLINK)
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
	all, err := whole(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	l.interfaces = map[int]*iface{}
	for _, link := range all {
		l.set(link)
	}
	for _, addr := range addrs {
		l.add(addr.LinkIndex, *addr.IPNet, addr.Scope, addr.Flags)
	}
	for index := range l.interfaces {
		l.show(index)
	}
	for index := range l.shown {
		l.show(index)
	}
	select {
	case <-l.known:
	default:
		close(l.known)
	}
	return nil
}

// whole repeats a listing that a change has interrupted.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	for attempt := 1; ; attempt++ {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || attempt == 10 {
			return all, err
		}
	}
}

func (l *links) link(link netlink.Link, there bool) {
	if there {
		l.set(link)
	} else {
		delete(l.interfaces, link.Attrs().Index)
	}
	l.show(link.Attrs().Index)
}

func (l *links) set(link netlink.Link) {
	attrs := link.Attrs()
	if _, ok := l.interfaces[attrs.Index]; !ok {
		l.interfaces[attrs.Index] = &iface{}
	}
	i := l.interfaces[attrs.Index]
	i.name, i.mtu, i.up = attrs.Name, attrs.MTU, attrs.Flags&net.FlagUp != 0
}

func (l *links) address(change netlink.AddrUpdate) {
	if change.NewAddr {
		l.add(change.LinkIndex, change.LinkAddress, change.Scope, change.Flags)
	} else {
		l.remove(change.LinkIndex, change.LinkAddress)
	}
	l.show(change.LinkIndex)
}

// unusable are addresses that no peer should send to: not checked for
// duplicates yet, found to be one, or made to be forgotten (RFC 8981).
const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_TEMPORARY

func (l *links) add(index int, network net.IPNet, scope, flags int) {
	i, ok := l.interfaces[index]
	if !ok {
		return
	}
	l.remove(index, network)
	prefix := prefixOf(network)
	if scope >= unix.RT_SCOPE_LINK || flags&unusable != 0 || !prefix.IsValid() {
		return
	}
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

// show makes the feed know an interface as it is now.
func (l *links) show(index int) {
	before, now := l.shown[index], l.visible(index)
	if before == now || before != nil && now != nil && before.Equal(now) {
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
		isPodDevice(i.name) || strings.HasPrefix(i.name, route.VXLANPrefix) {
		return nil
	}
	return &model.Link{Name: i.name, MTU: i.mtu, Addresses: i.addresses, AcceptsRA: acceptsRA(i.name)}
}

func acceptsRA(name string) bool {
	value, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/accept_ra")
	return err == nil && strings.TrimSpace(string(value)) != "0"
}
