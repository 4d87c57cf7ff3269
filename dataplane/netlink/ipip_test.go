package netlink

import (
	"net/netip"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/dataplane/ebpf"
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

// TestIPIPIsMended: what somebody removes of the device is back within a second,
// of whichever kind it is: itself, its other end, or a program on the uplink, of which
// the kernel may not tell.
func TestIPIPIsMended(t *testing.T) {
	plane := enter(t)
	k := keep(t, plane, ipipTo(1480))
	whole := func() bool {
		plane.mu.Lock()
		defer plane.mu.Unlock()
		device, err := rtnl.LinkByName(route.IPIPDevice)
		if err != nil {
			return false
		}
		seen, err := plane.seenIPIP(device)
		want, _ := plane.ipips.Wanted(route.IPIPDevice)
		found, _ := rtnl.RouteGet(netip.MustParseAddr("10.0.1.7").AsSlice())
		return err == nil && seen == want && len(found) == 1 && found[0].LinkIndex == device.Attrs().Index
	}
	if !whole() {
		t.Fatal("it is not there")
	}
	const takeProgram = "taking the program from the uplink"
	commands := []string{
		"ip link del " + route.IPIPDevice, "ip link set " + route.IPIPDevice + " down", "ip link set " + route.IPIPDevice + " mtu 1300",
	}
	if link(t, route.IPIPDevice).Type() == "veth" {
		commands = append(commands, "ip link del "+route.IPIPDevice+"0", "ip neigh flush nud permanent dev "+route.IPIPDevice, takeProgram)
	}
	filters, err := rtnl.FilterList(link(t, "up0"), rtnl.HANDLE_MIN_INGRESS)
	if err == nil && len(filters) > 0 { // no tcx, which tc does not know
		commands = append(commands, "tc filter del dev up0 ingress", "tc qdisc del dev up0 clsact", "tc qdisc del dev "+route.IPIPDevice+" clsact")
	}
	for _, command := range commands {
		if command != takeProgram {
			ip(t, command)
		} else if err := ebpf.RemoveFilters(route.IPIPDevice); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for !whole() {
			if time.Since(began) > time.Second {
				t.Fatalf("%s: not mended within a second", command)
			}
			time.Sleep(5 * time.Millisecond)
		}
		if n := k.settle(t); n > 5 {
			t.Errorf("%s: %d applies", command, n)
		}
	}
}

// TestLossOfUDPDeviceIsNoticed: the device of the tunnel in user space is made
// by another, whose loss is told all the same.
func TestLossOfUDPDeviceIsNoticed(t *testing.T) {
	plane := enter(t)
	ip(t, "ip tuntap add "+route.UDPDevice+" mode tun")
	ip(t, "ip link set "+route.UDPDevice+" up mtu 1400")
	wanted := &route.Plan{}
	wanted.UDPs = wanted.UDPs.With(route.UDPDevice, route.UDP{Name: route.UDPDevice, MTU: 1400})
	k := keep(t, plane, wanted)
	for _, command := range []string{"ip link set " + route.UDPDevice + " mtu 1300", "ip link del " + route.UDPDevice} {
		ip(t, command)
		if n := k.settle(t); n < 1 || n > 2 { // it may go down before it goes
			t.Errorf("%s: told %d times", command, n)
		}
	}
}
