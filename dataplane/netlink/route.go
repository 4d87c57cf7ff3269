package netlink

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// Protocol marks our routes (rtm_protocol, "proto 175" to ip route). Neither
// rtnetlink.h nor the rt_protos of iproute2 or FRR has given it away.
const Protocol rtnl.RouteProtocol = 175

// priority is the metric of our routes: the best that the family has. No other
// route to the same destination then wins over ours without a word, whatever
// its metric, but for one of just this metric; and that one makes the kernel
// refuse ours (EEXIST), which names it in a Problem. IPv6 takes 0 for "no
// metric given", which is 1024.
func priority(destination netip.Prefix) int {
	if model.FamilyOf(destination.Addr()) == model.IPv4 {
		return 0
	}
	return 1
}

func routeItem() item[netip.Prefix, route.Route] {
	return item[netip.Prefix, route.Route]{
		named: func(destination netip.Prefix) string { return "route " + destination.String() },
		asked: func(destination netip.Prefix, r route.Route) string {
			return "route " + plan.RouteText(destination, r)
		},
	}
}

// putRoutes replaces routes of ours in place, without a moment in which there
// is none. A new one must not replace: the kernel does not ask whose it was.
func (b *batch) putRoutes() error {
	return put(b, &b.routes, routeItem(), func(destination netip.Prefix, want route.Route) error {
		entry, err := b.route(destination, want)
		if err != nil {
			return err
		}
		if _, ours := b.routes.Actual(destination); ours {
			return b.handle.RouteReplace(entry)
		}
		if _, yields := b.yields.Get(destination); yields && b.inTheWay(destination) != nil {
			return errLeft
		}
		err = b.handle.RouteAdd(entry)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
		other := b.inTheWay(destination)
		if want.Local && other != nil && other.Type == unix.RTN_LOCAL {
			return errLeft // some interface has the address, so it is the node's
		}
		if other != nil && b.succeeds(entry, other) {
			return b.handle.RouteReplace(entry)
		}
		return fmt.Errorf("%w: %s", err, b.routeOfOther(other))
	})
}

// errLeft says that an item is not put for now, and that all is well.
var errLeft = errors.New("left to another")

// inTheWay is the route of another's that is there instead of ours; nil if none
// can be seen.
func (b *batch) inTheWay(destination netip.Prefix) *rtnl.Route {
	found, err := b.handle.RouteGetWithOptions(destination.Addr().AsSlice(), &rtnl.RouteGetOptions{FIBMatch: true})
	if err != nil || len(found) == 0 || prefixOf(found[0].Dst) != destination || found[0].Protocol == Protocol {
		return nil
	}
	return &found[0]
}

// succeeds tells whether ours may take the place of another's route: one through
// a tunnel of flannel, which has left it behind (see plan/route/flannel.go), or
// one that leads the same way, so that nothing changes for anybody.
func (b *batch) succeeds(ours, other *rtnl.Route) bool {
	if other.LinkIndex == ours.LinkIndex && other.Gw != nil && other.Gw.Equal(ours.Gw) {
		return true
	}
	link, err := b.handle.LinkByIndex(other.LinkIndex)
	return err == nil && link.Type() == "vxlan" && strings.HasPrefix(link.Attrs().Name, route.FlannelPrefix)
}

func (b *batch) routeOfOther(other *rtnl.Route) string {
	if other == nil {
		return "another route is in the way"
	}
	text := fmt.Sprintf("in the way is the route of protocol %s to %s", other.Protocol, prefixOf(other.Dst))
	if gateway := addrOf(other.Gw); gateway.IsValid() {
		text += " via " + gateway.String()
	}
	if link, err := b.handle.LinkByIndex(other.LinkIndex); err == nil {
		text += " dev " + link.Attrs().Name
	}
	return text
}

func (b *batch) removeRoutes() error {
	err := remove(b, &b.routes, routeItem(), func(destination netip.Prefix, was route.Route) error {
		entry := &rtnl.Route{
			Dst:      ipNet(destination),
			Protocol: Protocol, // the kernel removes no route of another's
			Priority: priority(destination),
			Table:    unix.RT_TABLE_MAIN,
			Scope:    rtnl.SCOPE_NOWHERE, // any
		}
		if was.Local {
			entry.Table, entry.Type = unix.RT_TABLE_LOCAL, unix.RTN_LOCAL
		}
		return b.handle.RouteDel(entry)
	})
	if err != nil {
		return err
	}
	var left []rtnl.Route
	for _, entry := range b.debris {
		if err := b.handle.RouteDel(&entry); err != nil && !gone(err) {
			named := "route " + prefixOf(entry.Dst).String()
			if err := b.refused(named, "remove "+named, err); err != nil {
				return err
			}
			left = append(left, entry)
		}
	}
	b.debris = left
	return nil
}

// route is a route in the kernel's terms.
func (b *batch) route(destination netip.Prefix, r route.Route) (*rtnl.Route, error) {
	entry := &rtnl.Route{
		Dst:      ipNet(destination),
		Protocol: Protocol,
		Priority: priority(destination),
		Table:    unix.RT_TABLE_MAIN,
		Type:     unix.RTN_UNICAST,
		Src:      r.Source.AsSlice(),
		Gw:       r.Via.AsSlice(),
		MTU:      r.MTU,
	}
	switch {
	case r.Unreachable:
		entry.Type = unix.RTN_UNREACHABLE
		return entry, nil
	case r.Local:
		entry.Type, entry.Table, entry.Scope = unix.RTN_LOCAL, unix.RT_TABLE_LOCAL, rtnl.SCOPE_HOST
	case !r.Via.IsValid():
		entry.Scope = rtnl.SCOPE_LINK
	case r.OnLink:
		entry.Flags = int(rtnl.FLAG_ONLINK)
	}
	if r.Device == "" {
		return entry, nil
	}
	index, err := b.index(r.Device)
	entry.LinkIndex = index
	return entry, err
}

// observeRoutes reads back the routes of Protocol.
func (b *batch) observeRoutes(names map[int]string) error {
	// The kernel filters only for strict requests (4.20); the library filters
	// again what older ones send.
	if b.handle.SetStrictCheck(true) == nil {
		defer func() { _ = b.handle.SetStrictCheck(false) }()
	}
	found := map[netip.Prefix]route.Route{}
	b.debris = nil
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		var entries []rtnl.Route
		err := dump("routes", func() (err error) {
			filter := &rtnl.Route{Protocol: Protocol}
			entries, err = b.handle.RouteListFiltered(family, filter, rtnl.RT_FILTER_PROTOCOL|rtnl.RT_FILTER_TABLE)
			return err
		})
		if err != nil {
			return err
		}
		for _, entry := range entries {
			destination := prefixOf(entry.Dst)
			_, twice := found[destination]
			if twice || !ourForm(&entry) {
				entry.Scope = rtnl.SCOPE_NOWHERE
				b.debris = append(b.debris, entry)
				continue
			}
			found[destination] = seenRoute(&entry, names)
		}
	}
	b.routes.Observe(found)
	return nil
}

// ourForm tells whether a route is of the form that this version writes.
func ourForm(entry *rtnl.Route) bool {
	if entry.Priority != priority(prefixOf(entry.Dst)) || entry.Tos != 0 || len(entry.MultiPath) != 0 || entry.Encap != nil {
		return false
	}
	if entry.Table == unix.RT_TABLE_LOCAL {
		return entry.Type == unix.RTN_LOCAL
	}
	return entry.Table == unix.RT_TABLE_MAIN && (entry.Type == unix.RTN_UNICAST || entry.Type == unix.RTN_UNREACHABLE)
}

func seenRoute(entry *rtnl.Route, names map[int]string) route.Route {
	if entry.Type == unix.RTN_UNREACHABLE {
		return route.Route{Unreachable: true}
	}
	return route.Route{
		Local:  entry.Type == unix.RTN_LOCAL,
		Device: names[entry.LinkIndex],
		Via:    addrOf(entry.Gw),
		OnLink: entry.Flags&int(rtnl.FLAG_ONLINK) != 0,
		Source: addrOf(entry.Src),
		MTU:    entry.MTU,
	}
}
