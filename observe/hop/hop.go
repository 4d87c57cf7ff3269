package hop

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/trace"
	"github.com/fairlead-net/fairlead/whole"
)

// reader is one reading.
type reader struct {
	handle *rtnl.Handle
	links  []rtnl.Link
	answer trace.Kernel
}

// read reads what the kernel does with a packet that comes by In. Peer is the
// node to which a process sends what leaves by the device of backend udp, which
// the kernel does not know; it may be invalid.
func (r *reader) read(q trace.Question, peer netip.Addr) {
	if in := r.answer.In; in != nil {
		if q.To.Is4() {
			r.answer.Filter = max(number("net/ipv4/conf/all/rp_filter"), number("net/ipv4/conf/"+in.Name+"/rp_filter"))
		}
		if back, err := r.lookup(q.From, rtnl.RouteGetOptions{}); err == nil {
			r.answer.Back = back
		}
	} else if q.Enter.By != trace.ByNode {
		return
	}
	r.forward(q)
	if r.answer.Out == nil {
		return
	}
	r.answer.Neighbor = r.neighbor(r.answer.Out, next(r.answer.Route, q.To))
	r.tunnel(q, peer)
}

func open() (*reader, error) {
	handle, err := rtnl.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a route netlink socket: %w", err)
	}
	r := &reader{handle: handle}
	err = dump("network interfaces", func() (err error) {
		r.links, err = handle.LinkList()
		return err
	})
	if err != nil {
		handle.Close()
		return nil, err
	}
	return r, nil
}

// dump repeats a listing that the kernel says was interrupted by changes.
func dump(what string, list func() error) error {
	if err := whole.Read(list); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}

// forward finds the route, as for a packet that comes by In.
func (r *reader) forward(q trace.Question) {
	options := rtnl.RouteGetOptions{SrcAddr: q.From.AsSlice()}
	if r.answer.In != nil {
		options.Iif = r.answer.In.Name
	}
	// Once as the packet goes, which tells the source of the node itself; once
	// for the route that matches.
	taken, err := r.get(q.To, options)
	if err == nil {
		options.FIBMatch = true
		r.answer.Route, err = r.lookup(q.To, options)
	}
	if err != nil {
		r.refuse(q, err)
		return
	}
	switch route := r.answer.Route; {
	case taken.Type == unix.RTN_LOCAL:
		r.answer.Local = true
	case refusing(route.Type):
		r.answer.Refused = trace.Unreachable
		return
	case !r.forwards(q):
		r.answer.Refused = trace.NoForwarding
		return
	}
	r.answer.Source = addrOf(taken.Src)
	if out := r.byIndex(taken.LinkIndex); out != nil && !r.answer.Local {
		r.answer.Out = r.device(out)
	}
	if r.answer.In != nil && r.answer.Out != nil {
		// What comes from elsewhere has its source; masquerade takes this one.
		if own, err := r.get(q.To, rtnl.RouteGetOptions{Oif: r.answer.Out.Name}); err == nil {
			r.answer.Source = addrOf(own.Src)
		}
	}
}

// forwards tells whether what comes by In may leave by another interface.
func (r *reader) forwards(q trace.Question) bool {
	switch {
	case r.answer.In == nil || r.answer.Local:
		return true
	case q.To.Is4():
		return number("net/ipv4/conf/"+r.answer.In.Name+"/forwarding") != 0
	default:
		// Since Linux 6.17 one interface can do without the setting of all.
		return number("net/ipv6/conf/all/forwarding") != 0 ||
			number("net/ipv6/conf/"+r.answer.In.Name+"/force_forwarding") != 0
	}
}

// ownSource is what the node's own packets come from; invalid if the kernel
// has no way for them.
func (r *reader) ownSource(to netip.Addr) netip.Addr {
	taken, err := r.get(to, rtnl.RouteGetOptions{})
	if err != nil {
		return netip.Addr{}
	}
	return addrOf(taken.Src)
}

// refuse finds out why the kernel has no way for a packet. Its error alone does
// not tell: since Linux 6.14, it is the same for all that rp_filter drops and
// for sources that cannot be (EINVAL, before it EXDEV).
func (r *reader) refuse(q trace.Question, err error) {
	r.answer.Error = err.Error()
	r.answer.Route = r.match(q.To)
	switch route, back := r.answer.Route, r.answer.Back; {
	case !r.forwards(q):
		r.answer.Refused = trace.NoForwarding
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL) && r.answer.In != nil && (r.answer.Filter == 1 && (back == nil || back.Device != r.answer.In.Name) ||
		r.answer.Filter == 2 && (back == nil || refusing(back.Type))):
		r.answer.Refused = trace.Filtered
	case route == nil:
		r.answer.Refused = trace.NoRoute
	case refusing(route.Type):
		r.answer.Refused = trace.Unreachable
	default:
		r.answer.Refused = trace.OtherReason
	}
}

// match finds the route of the main table that the kernel does not name when it
// refuses; nil if there is none.
func (r *reader) match(to netip.Addr) *trace.Route {
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	var routes []rtnl.Route
	if dump("routes", func() (err error) {
		routes, err = r.handle.RouteList(nil, family)
		return err
	}) != nil {
		return nil
	}
	var best *trace.Route
	for i := range routes {
		found := r.route(&routes[i], to)
		if found.Destination.Contains(to) && (best == nil || found.Destination.Bits() > best.Destination.Bits()) {
			best = found
		}
	}
	return best
}

func (r *reader) get(to netip.Addr, options rtnl.RouteGetOptions) (rtnl.Route, error) {
	found, err := r.handle.RouteGetWithOptions(to.AsSlice(), &options)
	if err == nil && len(found) == 0 {
		err = unix.ENETUNREACH
	}
	if err != nil {
		return rtnl.Route{}, err
	}
	return found[0], nil
}

// lookup finds the route that a packet matches.
func (r *reader) lookup(to netip.Addr, options rtnl.RouteGetOptions) (*trace.Route, error) {
	options.FIBMatch = true
	found, err := r.get(to, options)
	if err != nil {
		return nil, err
	}
	return r.route(&found, to), nil
}

func (r *reader) route(from *rtnl.Route, to netip.Addr) *trace.Route {
	route := &trace.Route{
		Destination: prefixOf(from.Dst), Via: addrOf(from.Gw), MTU: from.MTU,
		Protocol: from.Protocol.String(), Table: from.Table,
	}
	if from.Type != unix.RTN_UNICAST {
		route.Type = routeType(from.Type)
	}
	if !route.Destination.IsValid() {
		route.Destination, _ = to.Prefix(0)
	}
	if via, ok := from.Via.(*rtnl.Via); ok { // of the other family (RFC 5549)
		route.Via = addrOf(via.Addr)
	}
	if len(from.MultiPath) > 0 {
		from = &rtnl.Route{LinkIndex: from.MultiPath[0].LinkIndex, Gw: from.MultiPath[0].Gw}
		route.Via = addrOf(from.Gw)
	}
	if link := r.byIndex(from.LinkIndex); link != nil && !refusing(route.Type) {
		route.Device = link.Attrs().Name
	}
	return route
}

func routeType(kind int) string {
	names := map[int]string{
		unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast", unix.RTN_MULTICAST: "multicast",
		unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
	}
	if name, ok := names[kind]; ok {
		return name
	}
	return "type " + strconv.Itoa(kind)
}

func refusing(kind string) bool {
	return slices.Contains([]string{"unreachable", "blackhole", "prohibit", "throw"}, kind)
}

// next is the next hop of a route.
func next(route *trace.Route, to netip.Addr) netip.Addr {
	if route.Via.IsValid() {
		return route.Via
	}
	return to
}

// tunnel follows a packet that leaves through a tunnel to the packet around it.
func (r *reader) tunnel(q trace.Question, peer netip.Addr) {
	out, remote := r.answer.Out, netip.Addr{}
	switch out.Tunnel() {
	case trace.ByVXLAN:
		if r.answer.Neighbor != nil {
			remote = r.station(out, r.answer.Neighbor.MAC)
		}
	case trace.ByIPIP:
		remote = next(r.answer.Route, q.To)
	case trace.ByUDP:
		remote = peer
	}
	if !remote.IsValid() {
		return
	}
	r.answer.Remote = remote
	outer := &trace.Outer{}
	r.answer.Outer = outer
	options := rtnl.RouteGetOptions{Oif: out.Parent}
	if out.Local.IsValid() && out.Local.Is4() == remote.Is4() {
		options.SrcAddr = out.Local.AsSlice()
	}
	taken, err := r.get(remote, options)
	if err == nil {
		outer.Route, err = r.lookup(remote, options)
	}
	switch {
	case err != nil:
		outer.Error, outer.Refused, outer.Route = err.Error(), trace.NoRoute, r.match(remote)
		if outer.Route != nil && refusing(outer.Route.Type) {
			outer.Refused = trace.Unreachable
		} else if outer.Route != nil {
			outer.Refused = trace.OtherReason
		}
		return
	case refusing(outer.Route.Type):
		outer.Refused = trace.Unreachable
		return
	}
	outer.Source = addrOf(taken.Src)
	if out.Local.IsValid() {
		outer.Source = out.Local
	}
	if link := r.byIndex(taken.LinkIndex); link != nil {
		outer.Out = r.device(link)
		outer.Neighbor = r.neighbor(outer.Out, next(outer.Route, remote))
	}
}

// neighbor is the entry of a next hop; nil if there is none.
func (r *reader) neighbor(on *trace.Device, addr netip.Addr) *trace.Neighbor {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	for _, entry := range r.neighbors(on, family) {
		if addrOf(entry.IP) == addr {
			mac, _ := macOf(entry.HardwareAddr)
			return &trace.Neighbor{Address: addr, MAC: mac, State: neighborState(entry.State)}
		}
	}
	return nil
}

// station is where a tunnel sends what is for a MAC: the kernel takes the entry
// of all zeros for those that it does not know.
func (r *reader) station(on *trace.Device, mac model.MAC) (remote netip.Addr) {
	for _, entry := range r.neighbors(on, unix.AF_BRIDGE) {
		found, ok := macOf(entry.HardwareAddr)
		if addr := addrOf(entry.IP); ok && addr.IsValid() && (found == mac || found == (model.MAC{}) && !remote.IsValid()) {
			remote = addr
		}
	}
	return remote
}

func (r *reader) neighbors(on *trace.Device, family int) (entries []rtnl.Neigh) {
	index := slices.IndexFunc(r.links, func(link rtnl.Link) bool { return link.Attrs().Name == on.Name })
	if index < 0 {
		return nil
	}
	// What cannot be listed is shown as not being there.
	_ = dump("neighbours", func() (err error) {
		entries, err = r.handle.NeighList(r.links[index].Attrs().Index, family)
		return err
	})
	return entries
}

func neighborState(state int) string {
	for _, s := range []struct {
		bit  int
		name string
	}{
		{rtnl.NUD_PERMANENT, "permanent"}, {rtnl.NUD_NOARP, "noarp"}, {rtnl.NUD_REACHABLE, "reachable"},
		{rtnl.NUD_STALE, "stale"}, {rtnl.NUD_DELAY, "delay"}, {rtnl.NUD_PROBE, "probe"},
		{rtnl.NUD_FAILED, "failed"}, {rtnl.NUD_INCOMPLETE, "incomplete"},
	} {
		if state&s.bit != 0 {
			return s.name
		}
	}
	return "none"
}
