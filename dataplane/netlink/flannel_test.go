package netlink

import (
	"net"
	"net/netip"
	"testing"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// TestBesideFlannel: flannel's route stays as long as ours yields, and is then
// replaced without a moment in which there is none. Another's is not.
func TestBesideFlannel(t *testing.T) {
	plane := enter(t)
	attrs := rtnl.NewLinkAttrs()
	attrs.Name = "flannel.1"
	must(t, rtnl.LinkAdd(&rtnl.Vxlan{LinkAttrs: attrs, VxlanId: 1, Port: 8472, SrcAddr: net.IPv4(192, 0, 2, 1)}))
	must(t, rtnl.LinkSetUp(link(t, "flannel.1")))
	four, six := netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")
	must(t, rtnl.RouteAdd(&rtnl.Route{
		Dst: ipNet(four), Gw: net.IPv4(10, 244, 1, 0), LinkIndex: link(t, "flannel.1").Attrs().Index, Flags: int(rtnl.FLAG_ONLINK),
	}))
	must(t, rtnl.RouteAdd(&rtnl.Route{Dst: ipNet(six), LinkIndex: link(t, "flannel.1").Attrs().Index}))

	var wanted route.Plan
	for prefix, via := range map[netip.Prefix]string{four: "192.0.2.2", six: "2001:db8::2"} {
		wanted.Routes = wanted.Routes.With(prefix, route.Route{Device: "up0", Via: netip.MustParseAddr(via)})
		wanted.Yields = wanted.Yields.With(prefix, struct{}{})
	}
	device := func(prefix netip.Prefix) string {
		t.Helper()
		found, err := rtnl.RouteGetWithOptions(prefix.Addr().Next().AsSlice(), &rtnl.RouteGetOptions{FIBMatch: true})
		must(t, err)
		name, err := rtnl.LinkByIndex(found[0].LinkIndex)
		must(t, err)
		return name.Attrs().Name
	}
	for range 2 { // the second time with what was read back
		apply(t, plane, &wanted)
		if device(four) != "flannel.1" || device(six) != "flannel.1" || len(ours(t)) != 0 {
			t.Fatalf("flannel's routes did not stay: by %s and %s", device(four), device(six))
		}
		plane.Forget()
	}

	without := make(chan struct{})
	updates := make(chan rtnl.RouteUpdate, 16)
	must(t, rtnl.RouteSubscribe(updates, without))
	defer close(without)
	moved := route.Plan{Routes: wanted.Routes}
	apply(t, plane, &moved)
	if device(four) != "up0" || device(six) != "up0" || len(ours(t)) != 2 {
		t.Errorf("flannel's routes are in use although its node has moved: by %s and %s", device(four), device(six))
	}
	for n := len(updates); n > 0; n-- {
		if update := <-updates; update.Type == unix.RTM_DELROUTE {
			t.Errorf("for a moment there was no route: %v went", update.Route)
		}
	}

	// One of neither ours nor flannel's is not overwritten.
	other := netip.MustParsePrefix("10.244.2.0/24")
	must(t, rtnl.RouteAdd(&rtnl.Route{Dst: ipNet(other), LinkIndex: link(t, "up0").Attrs().Index}))
	moved.Routes = moved.Routes.With(other, route.Route{Device: "up0", Via: netip.MustParseAddr("192.0.2.3")})
	problems, err := plane.Apply(t.Context(), &plan.Node{Name: "self", Route: &moved})
	must(t, err)
	if len(problems) != 1 || problems[0].Reason != "Conflict" {
		t.Errorf("problems %v, want a Conflict", problems)
	}
	// One that leads the same way is, as those of flannel's backend host-gw do.
	must(t, rtnl.RouteReplace(&rtnl.Route{Dst: ipNet(other), Gw: net.IPv4(192, 0, 2, 3), LinkIndex: link(t, "up0").Attrs().Index}))
	yields := moved
	yields.Yields = yields.Yields.With(other, struct{}{})
	apply(t, plane, &yields)
	if len(ours(t)) != 2 {
		t.Errorf("a route of flannel's backend host-gw did not stay")
	}
	apply(t, plane, &moved)
	if len(ours(t)) != 3 {
		t.Errorf("a route that leads the same way was not taken over")
	}
}
