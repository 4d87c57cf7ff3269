package netlink

import (
	"net/netip"
	"testing"

	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/plan/route"
)

// ipipTo is a plan with one peer behind an ipip device.
func ipipTo(mtu int) *route.Plan {
	peer := netip.MustParseAddr("198.51.100.3")
	p := &route.Plan{}
	p.IPIPs = p.IPIPs.With(route.IPIPDevice, route.IPIP{
		Name: route.IPIPDevice, Device: "up0", Local: netip.MustParseAddr("192.0.2.1"), MTU: mtu,
		Pods: netip.MustParsePrefix("10.0.0.0/24"),
	})
	p.Addresses = p.Addresses.With(route.Address{Device: route.IPIPDevice, Prefix: netip.MustParsePrefix("10.0.0.0/32")}, struct{}{})
	p.Neighbors = p.Neighbors.With(route.Neighbor{Device: route.IPIPDevice, Address: peer}, route.IPIPNeighbor(peer))
	p.Routes = p.Routes.With(netip.MustParsePrefix("10.0.1.0/24"), route.Route{
		Device: route.IPIPDevice, Via: peer, OnLink: true, Source: netip.MustParseAddr("10.0.0.0"), MTU: mtu,
	})
	return p
}

// TestIPIP: the device is made, changed, kept by the next process, and removed;
// of whichever kind the kernel allows.
func TestIPIP(t *testing.T) {
	plane := enter(t)
	apply(t, plane, ipipTo(1480))
	device := link(t, route.IPIPDevice)
	t.Logf("the device is a %s", device.Type())
	if device.Attrs().MTU != 1480 {
		t.Errorf("the MTU is %d", device.Attrs().MTU)
	}
	found, err := rtnl.RouteGet(netip.MustParseAddr("10.0.1.7").AsSlice())
	must(t, err)
	if len(found) != 1 || found[0].LinkIndex != device.Attrs().Index || found[0].Gw.String() != "198.51.100.3" {
		t.Errorf("the way to a pod is %v", found)
	}
	apply(t, plane, ipipTo(1400))
	if now := link(t, route.IPIPDevice).Attrs(); now.MTU != 1400 || now.Index != device.Attrs().Index {
		t.Errorf("after a change, %s has index %d and MTU %d, not %d and 1400", now.Name, now.Index, now.MTU, device.Attrs().Index)
	}

	// The next process finds it as it should be.
	next, err := New()
	must(t, err)
	defer next.Close()
	apply(t, next, ipipTo(1400))
	if now := link(t, route.IPIPDevice).Attrs(); now.Index != device.Attrs().Index {
		t.Error("a restart made the device anew")
	}
	neighbors, err := rtnl.NeighList(device.Attrs().Index, rtnl.FAMILY_V4)
	must(t, err)
	if device.Type() == "veth" && (len(neighbors) != 1 || neighbors[0].HardwareAddr.String() != "02:fa:c6:33:64:03") {
		t.Errorf("neighbours: %v", neighbors)
	}

	// One that is damaged is mended, and what stands on it comes back.
	must(t, rtnl.LinkSetDown(device))
	next.Forget()
	apply(t, next, ipipTo(1400))
	if _, err := rtnl.RouteGet(netip.MustParseAddr("10.0.1.7").AsSlice()); err != nil {
		t.Errorf("after the device was down: %v", err)
	}

	apply(t, next, &route.Plan{})
	if _, err := rtnl.LinkByName(route.IPIPDevice); err == nil {
		t.Error("the device is still there")
	}
	links, err := rtnl.LinkList()
	must(t, err)
	for _, link := range links {
		if name := link.Attrs().Name; name != "lo" && name != "up0" && name != "up1" && name != "tunl0" {
			t.Errorf("left behind: %s", name)
		}
	}
}
