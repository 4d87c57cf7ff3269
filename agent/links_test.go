package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// What happens to interfaces is in the feed soon, and only what peers may use.
func TestLinksAreFollowed(t *testing.T) {
	needNode(t)
	feed := &model.Feed{}
	l := newLinks(feed, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	defer func() {
		cancel()
		must(t, <-ended)
	}()
	<-l.known
	is := func(want *model.Link) {
		t.Helper()
		eventually(t, "the links to be as wanted", func() bool {
			s, _ := feed.Latest()
			got, ok := s.Links.Get("uplink")
			return ok == (want != nil) && s.Links.Len() <= 1 && (want == nil || got.Equal(want))
		})
	}
	prefixes := func(texts ...string) (all []netip.Prefix) {
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	want := model.Link{Name: "uplink", MTU: 1400, AcceptsRA: true, Addresses: prefixes("192.0.2.1/24", "2001:db8::1/64")}
	is(&want)

	link, err := netlink.LinkByName("uplink")
	must(t, err)
	must(t, netlink.LinkSetMTU(link, 1300))
	want.MTU = 1300
	is(&want)

	second := address(netip.MustParsePrefix("198.51.100.7/25"))
	must(t, netlink.AddrAdd(link, second))
	want.Addresses = prefixes("192.0.2.1/24", "198.51.100.7/25", "2001:db8::1/64")
	is(&want)
	must(t, netlink.AddrDel(link, second))
	want.Addresses = slices.Delete(want.Addresses, 1, 2)
	is(&want)

	// Pods, tunnels, loopback, and addresses of the link alone are not shown.
	for _, name := range []string{deviceName(keyOf("c")), "fairlead-vx4"} {
		ignored := netlink.NewVeth(netlink.LinkAttrs{Name: name, TxQLen: -1})
		ignored.PeerName = "peer"
		must(t, netlink.LinkAdd(ignored))
		must(t, netlink.LinkSetUp(ignored))
		must(t, netlink.AddrAdd(ignored, address(netip.MustParsePrefix("198.51.100.9/24"))))
		is(&want)
		must(t, netlink.LinkDel(ignored))
	}
	must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: network(netip.MustParsePrefix("169.254.7.7/16")), Scope: unix.RT_SCOPE_LINK}))
	is(&want)

	// A bridge says of a port that left it that the link is no more.
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge", TxQLen: -1}}
	must(t, netlink.LinkAdd(bridge))
	must(t, netlink.LinkSetMaster(link, bridge))
	must(t, netlink.LinkSetNoMaster(link))
	must(t, netlink.LinkDel(bridge))
	must(t, netlink.LinkSetMTU(link, 1280))
	want.MTU = 1280
	is(&want)

	must(t, netlink.LinkSetDown(link)) // which takes its IPv6 addresses
	is(nil)
	must(t, netlink.LinkSetUp(link))
	want.Addresses = prefixes("192.0.2.1/24")
	is(&want)
}

// TestSecondaryAddresses: a further IPv4 address of a network counts; one of
// IPv6 that is made to be forgotten, for which the kernel has the same bit, does
// not.
func TestSecondaryAddresses(t *testing.T) {
	l := newLinks(&model.Feed{}, slog.New(slog.DiscardHandler))
	l.interfaces = map[int]*iface{}
	for _, text := range []string{"192.0.2.2/24", "2001:db8::2/64"} {
		l.add(7, *network(netip.MustParsePrefix(text)), unix.RT_SCOPE_UNIVERSE, unix.IFA_F_SECONDARY)
	}
	if got := l.iface(7).addresses; len(got) != 1 || !got[0].Addr().Is4() {
		t.Errorf("addresses %v, want the one of IPv4", got)
	}
}
