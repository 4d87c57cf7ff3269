package netlink

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

var (
	mac4  = model.MAC{2, 0, 0, 0, 0, 1}
	tunl4 = route.VXLAN{
		Name: "fairlead-vx4", VNI: 4096, Port: 4789, Device: "up0",
		Local: netip.MustParseAddr("192.0.2.1"), MTU: 1450, MAC: mac4,
	}
)

// enter makes a namespace with an uplink up0, and a data plane for it.
func enter(t testing.TB) *Plane {
	netnstest.Enter(t)
	attrs := rtnl.NewLinkAttrs()
	attrs.Name = "up0"
	veth := &rtnl.Veth{LinkAttrs: attrs, PeerName: "up1"}
	must(t, rtnl.LinkAdd(veth))
	must(t, rtnl.LinkSetUp(veth))
	must(t, rtnl.LinkSetUp(link(t, "up1")))
	for _, prefix := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		address := &rtnl.Addr{IPNet: ipNet(netip.MustParsePrefix(prefix))}
		if strings.Contains(prefix, ":") {
			address.Flags = unix.IFA_F_NODAD
		}
		must(t, rtnl.AddrAdd(veth, address))
	}
	plane, err := New()
	must(t, err)
	t.Cleanup(plane.Close)
	return plane
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func link(t testing.TB, name string) rtnl.Link {
	t.Helper()
	found, err := rtnl.LinkByName(name)
	must(t, err)
	return found
}

func apply(t testing.TB, plane *Plane, routes *route.Plan) {
	t.Helper()
	problems, err := plane.Apply(t.Context(), &plan.Node{Name: "self", Route: routes})
	must(t, err)
	if len(problems) != 0 {
		t.Fatalf("problems %v", problems)
	}
}

// peers is a plan with a tunnel to so many nodes.
func peers(n int) *route.Plan {
	p := &route.Plan{}
	p.VXLANs = p.VXLANs.With(tunl4.Name, tunl4)
	own := netip.MustParseAddr("10.0.0.0")
	p.Addresses = p.Addresses.With(route.Address{Device: tunl4.Name, Prefix: model.HostPrefix(own)}, struct{}{})
	own6 := netip.MustParseAddr("fd00::")
	p.Addresses = p.Addresses.With(route.Address{Device: tunl4.Name, Prefix: model.HostPrefix(own6)}, struct{}{})
	for i := 1; i <= n; i++ {
		p = withPeer(p, i, byte(i))
	}
	return p
}

// withPeer adds or changes a peer.
func withPeer(from *route.Plan, i int, last byte) *route.Plan {
	p := *from
	mac := model.MAC{2, 0, 0, 1, byte(i >> 8), byte(i)}
	ranges := []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
		netip.MustParsePrefix(fmt.Sprintf("fd00:%x::/64", i)),
	}
	for _, destination := range ranges {
		gateway := destination.Addr()
		if gateway.Is6() {
			gateway = netip.MustParseAddr(fmt.Sprintf("fe80::%x", i))
		}
		p.Routes = p.Routes.With(destination, route.Route{
			Device: tunl4.Name, Via: gateway, OnLink: gateway.Is4(), MTU: 1450 - int(last)%2,
		})
		p.Neighbors = p.Neighbors.With(route.Neighbor{Device: tunl4.Name, Address: gateway}, mac)
	}
	p.FDB = p.FDB.With(route.Station{Device: tunl4.Name, MAC: mac}, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), last}))
	return &p
}

// TestNothingToDo: without a difference, no system call is made: there is no
// socket to make it with.
func TestNothingToDo(t *testing.T) {
	plane := enter(t)
	wanted := peers(3)
	apply(t, plane, wanted)
	plane.Close()
	plane.handle = nil
	defer func() { plane.handle = &rtnl.Handle{} }()
	apply(t, plane, wanted)
}

func TestForgetReadsBack(t *testing.T) {
	plane := enter(t)
	wanted := peers(1)
	apply(t, plane, wanted)
	must(t, rtnl.LinkDel(link(t, tunl4.Name)))
	apply(t, plane, wanted)
	if _, err := rtnl.LinkByName(tunl4.Name); err == nil {
		t.Fatal("the kernel was looked at although nothing said so")
	}
	plane.Forget()
	apply(t, plane, wanted)
	link(t, tunl4.Name)
	if n := len(ours(t)); n != 2 {
		t.Fatalf("%d routes, want 2", n)
	}
}

func ours(t testing.TB) []rtnl.Route {
	t.Helper()
	found, err := rtnl.RouteListFiltered(rtnl.FAMILY_ALL, &rtnl.Route{Protocol: Protocol}, rtnl.RT_FILTER_PROTOCOL)
	must(t, err)
	return found
}

// TestErrorReadsBack: after an Apply that failed as a whole, the next one works
// with what it can see.
func TestErrorReadsBack(t *testing.T) {
	plane := enter(t)
	apply(t, plane, peers(1))
	must(t, rtnl.LinkDel(link(t, tunl4.Name)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := plane.Apply(ctx, &plan.Node{Route: peers(2)}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	apply(t, plane, peers(2))
	if n := len(ours(t)); n != 4 {
		t.Fatalf("%d routes, want 4", n)
	}
}

// TestTunnelMACStays: the kernel says that an administrator set it, upon which
// udev and systemd leave it alone (flannel#1155; NET_ADDR_SET).
func TestTunnelMACStays(t *testing.T) {
	plane := enter(t)
	apply(t, plane, peers(1))
	// A sysfs of this namespace, which only this thread sees.
	must(t, unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	dir := t.TempDir()
	must(t, unix.Mount("sysfs", dir, "sysfs", 0, ""))
	origin, err := os.ReadFile(dir + "/class/net/" + tunl4.Name + "/addr_assign_type")
	must(t, err)
	must(t, unix.Unmount(dir, unix.MNT_DETACH))
	if string(origin) != "3\n" {
		t.Errorf("the MAC of %s has the origin %q, not 3 (set)", tunl4.Name, origin)
	}
}

func TestTunnelIsMended(t *testing.T) {
	plane := enter(t)
	wanted := peers(1)
	apply(t, plane, wanted)
	index := link(t, tunl4.Name).Attrs().Index

	changed := tunl4
	changed.MTU, changed.MAC = 1400, model.MAC{2, 0, 0, 0, 0, 2}
	smaller := *wanted
	smaller.VXLANs = smaller.VXLANs.With(changed.Name, changed)
	apply(t, plane, &smaller)
	got := link(t, tunl4.Name).Attrs()
	if got.Index != index || got.MTU != 1400 || got.HardwareAddr.String() != changed.MAC.String() {
		t.Fatalf("the device is not changed in place: %+v", got)
	}
	// The kernel drops the neighbours of a device whose MAC changes.
	for _, family := range []int{rtnl.FAMILY_V4, rtnl.FAMILY_V6} {
		neighbors, err := rtnl.NeighListExecute(rtnl.Ndmsg{Family: uint8(family), Index: uint32(index), State: rtnl.NUD_PERMANENT})
		must(t, err)
		if len(neighbors) != 1 {
			t.Fatalf("neighbours %v, want one", neighbors)
		}
	}

	must(t, rtnl.LinkSetDown(link(t, tunl4.Name)))
	plane.Forget()
	apply(t, plane, &smaller)
	if len(ours(t)) != 2 {
		t.Fatalf("routes %v", ours(t))
	}

	// Learning can only be a foreign hand's.
	must(t, rtnl.LinkDel(link(t, tunl4.Name)))
	attrs := rtnl.NewLinkAttrs()
	attrs.Name = tunl4.Name
	must(t, rtnl.LinkAdd(&rtnl.Vxlan{LinkAttrs: attrs, VxlanId: 4096, Port: 4789, Learning: true}))
	plane.Forget()
	apply(t, plane, wanted)
	if link(t, tunl4.Name).(*rtnl.Vxlan).Learning {
		t.Fatal("the device still learns")
	}
}

// TestTunnelIsOurs: no address of its own making, no MAC for others to replace.
func TestTunnelIsOurs(t *testing.T) {
	plane := enter(t)
	apply(t, plane, peers(1))
	addresses, err := rtnl.AddrList(link(t, tunl4.Name), rtnl.FAMILY_V6)
	must(t, err)
	for _, address := range addresses {
		if address.IP.IsLinkLocalUnicast() || address.Flags&unix.IFA_F_TENTATIVE != 0 {
			t.Fatalf("address %v", address)
		}
	}
	// A mount of sysfs shows the namespace that made it; the ioctl does not say.
	// IPv6's own view of the mode is in /proc/sys, which follows the thread.
	mode, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + tunl4.Name + "/addr_gen_mode")
	must(t, err)
	if strings.TrimSpace(string(mode)) != "1" {
		t.Fatalf("addr_gen_mode %s", mode)
	}
}

// TestOtherFormIsDebris: a route of ours that another version wrote otherwise
// goes away.
func TestOtherFormIsDebris(t *testing.T) {
	plane := enter(t)
	for _, text := range []string{"10.9.0.0/24", "fd00:9::/64", "10.0.1.0/24"} {
		must(t, rtnl.RouteAdd(&rtnl.Route{
			Dst: ipNet(netip.MustParsePrefix(text)), LinkIndex: link(t, "up0").Attrs().Index,
			Protocol: Protocol, Priority: 500, Scope: rtnl.SCOPE_LINK,
		}))
	}
	must(t, rtnl.RouteAdd(&rtnl.Route{
		Dst: ipNet(netip.MustParsePrefix("10.9.1.0/24")), LinkIndex: link(t, "up0").Attrs().Index,
		Protocol: Protocol, Table: 99, Scope: rtnl.SCOPE_LINK,
	}))
	apply(t, plane, peers(1))
	if found := ours(t); len(found) != 2 {
		t.Fatalf("routes %v, want 2", found)
	}
	found, err := rtnl.RouteListFiltered(rtnl.FAMILY_V4, &rtnl.Route{Table: 99}, rtnl.RT_FILTER_TABLE)
	must(t, err)
	if len(found) != 0 {
		t.Fatalf("routes in table 99: %v", found)
	}
}

// TestBestMetric: a foreign route of another metric stays and loses.
func TestBestMetric(t *testing.T) {
	plane := enter(t)
	for _, text := range []string{"10.0.1.0/24", "fd00:1::/64"} {
		must(t, rtnl.RouteAdd(&rtnl.Route{
			Dst: ipNet(netip.MustParsePrefix(text)), LinkIndex: link(t, "up0").Attrs().Index,
			Protocol: unix.RTPROT_STATIC, Priority: 20, Scope: rtnl.SCOPE_LINK,
		}))
	}
	apply(t, plane, peers(1))
	for _, text := range []string{"10.0.1.7", "fd00:1::7"} {
		found, err := rtnl.RouteGet(netip.MustParseAddr(text).AsSlice())
		must(t, err)
		if found[0].LinkIndex != link(t, tunl4.Name).Attrs().Index {
			t.Fatalf("to %s: %v", text, found)
		}
	}
}

func TestSysctls(t *testing.T) {
	plane := enter(t)
	const radv, forward, absent = "net/ipv6/conf/up0/accept_ra", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/absent/rp_filter"
	wanted := &route.Plan{Sysctls: model.MapOf(map[string]string{radv: "2", forward: "1", absent: "2"})}
	problems, err := plane.Apply(t.Context(), &plan.Node{Name: "self", Route: wanted})
	must(t, err)
	if len(problems) != 1 || problems[0].Field != "sysctl "+absent || problems[0].Remedy == "" {
		t.Fatalf("problems %v", problems)
	}
	for path, want := range map[string]string{radv: "2", forward: "1"} {
		if got, err := readSysctl(path); err != nil || got != want {
			t.Fatalf("%s is %q (%v)", path, got, err)
		}
	}
}

// TestRefusals: an answer to an item is a Problem, a failure of the socket an
// error.
func TestRefusals(t *testing.T) {
	b := &batch{Plane: &Plane{}, node: "self"}
	for _, errno := range []syscall.Errno{
		unix.ENODEV, unix.EEXIST, unix.EPERM, unix.EINVAL, unix.ENETUNREACH, unix.ENETDOWN, unix.ENOENT, unix.EOPNOTSUPP,
	} {
		if err := b.refused("route x", "route x", fmt.Errorf("ask: %w", errno)); err != nil {
			t.Errorf("%v: %v", errno, err)
		}
		last := b.problems[len(b.problems)-1]
		if last.Reason == "" || last.Remedy == "" || !strings.Contains(last.Message, errno.Error()) {
			t.Errorf("%v: %+v", errno, last)
		}
	}
	for _, err := range []error{errors.New("wrong sender"), unix.ENOBUFS, unix.EBADF} {
		if b.refused("route x", "route x", err) == nil {
			t.Errorf("%v was taken for an answer", err)
		}
	}
}

// TestDiagnoses: the kernel's answers to what goes wrong most are understood.
func TestDiagnoses(t *testing.T) {
	plane := enter(t)
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/up0/disable_ipv6", []byte("1"), 0))
	wanted := &route.Plan{Sysctls: model.MapOf(map[string]string{"net/ipv4/conf/absent/rp_filter": "2", "net/ipv6/conf/absent/accept_ra": "2"})}
	for destination, r := range map[string]route.Route{
		"10.9.0.0/24":  {Device: "up0", Source: netip.MustParseAddr("192.0.2.7")},
		"fd00:9::/64":  {Device: "up0"},
		"fd00:10::/64": {Device: "up1", Source: netip.MustParseAddr("2001:db8::7")},
	} {
		wanted.Routes = wanted.Routes.With(netip.MustParsePrefix(destination), r)
	}
	problems, err := plane.Apply(t.Context(), &plan.Node{Name: "self", Route: wanted})
	must(t, err)
	var got []string
	for _, p := range problems {
		got = append(got, p.Field+" "+p.Reason+": "+p.Remedy)
	}
	want := []string{
		"route 10.9.0.0/24 SourceMissing: the source address 192.0.2.7 is on no interface of the node that is up; see ip address on the node",
		"route fd00:10::/64 SourceMissing: the source address 2001:db8::7 is on no interface of the node that is up; see ip address on the node",
		"route fd00:9::/64 IPv6Disabled: enable IPv6 on the network interface: sysctl net.ipv6.conf.DEVICE.disable_ipv6=0",
		"sysctl net/ipv4/conf/absent/rp_filter Missing: see whether the network interface is there (ip link)",
		"sysctl net/ipv6/conf/absent/accept_ra Missing: see whether the network interface is there (ip link) and whether IPv6 is disabled on the node",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got\n%s", strings.Join(got, "\n"))
	}
}

// TestManyProblems: whoever waits for one of many items that were refused finds
// it among the Problems, which are the same each time.
func TestManyProblems(t *testing.T) {
	plane, wanted := enter(t), peers(100)
	gone := tunl4
	gone.Device = "absent"
	wanted.VXLANs = wanted.VXLANs.With(gone.Name, gone)
	var before []model.Problem
	for range 2 {
		problems, err := plane.Apply(t.Context(), &plan.Node{Name: "self", Route: wanted})
		must(t, err)
		if len(problems) != 503 {
			t.Fatalf("%d problems, want 503: %v", len(problems), problems)
		}
		if before != nil && !slices.Equal(before, problems) {
			t.Fatalf("problems %v, before %v", problems, before)
		}
		before = problems
	}
}

func BenchmarkFirstApply(b *testing.B) {
	wanted := peers(1000)
	for b.Loop() {
		b.StopTimer()
		plane := enter(b)
		b.StartTimer()
		apply(b, plane, wanted)
	}
}

func BenchmarkRestart(b *testing.B) {
	plane, wanted := enter(b), peers(1000)
	apply(b, plane, wanted)
	for b.Loop() {
		plane.Forget()
		apply(b, plane, wanted)
	}
}

func BenchmarkOneNodeChanges(b *testing.B) {
	plane, wanted := enter(b), peers(1000)
	apply(b, plane, wanted)
	last := byte(0)
	for b.Loop() {
		last++
		wanted = withPeer(wanted, 500, last)
		apply(b, plane, wanted)
	}
}

// TestRouteLocalnetWaitsForGuard: without rules that keep others from 127.0.0.0/8
// it is not set (CVE-2020-8558).
func TestRouteLocalnetWaitsForGuard(t *testing.T) {
	plane := enter(t)
	guarded := false
	plane.Guarded = func() bool { return guarded }
	wanted := *peers(2)
	const key = "net/ipv4/conf/all/route_localnet"
	wanted.Sysctls = wanted.Sysctls.With(key, "1")
	for _, want := range []string{"0", "1"} {
		problems, err := plane.Apply(t.Context(), &plan.Node{Name: "self", Route: &wanted})
		must(t, err)
		if len(problems) > 0 {
			t.Errorf("problems %v", problems)
		}
		if got, err := readSysctl(key); err != nil || got != want {
			t.Errorf("guarded %v: %s, want %s (%v)", guarded, got, want, err)
		}
		guarded = true
	}
}
