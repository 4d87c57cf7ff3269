package netlink

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// here is the namespace of the calling thread.
func here(t testing.TB) *netnstest.Namespace {
	t.Helper()
	handle, err := netns.Get()
	must(t, err)
	t.Cleanup(func() { _ = handle.Close() })
	return netnstest.Of(t, handle)
}

// keeper applies a plan whenever the data plane says that it was disturbed, and
// for no other reason.
type keeper struct {
	applied atomic.Int64
}

// keep applies a plan and keeps it until the test ends.
func keep(t *testing.T, plane *Plane, routes *route.Plan) *keeper {
	t.Helper()
	apply(t, plane, routes)
	k := &keeper{}
	space := here(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var running sync.WaitGroup
	start := func(f func()) { running.Go(func() { space.Do(f) }) }
	start(func() { ended <- plane.Run(ctx) })
	start(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-plane.Disturbed():
			}
			time.Sleep(20 * time.Millisecond) // as the agent does: what belongs together comes together
			if problems, err := plane.Apply(ctx, &plan.Node{Name: "self", Route: routes}); ctx.Err() == nil && (err != nil || len(problems) > 0) {
				t.Logf("mending: %v %v", problems, err)
			}
			k.applied.Add(1)
		}
	})
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
		running.Wait()
	})
	k.settle(t)
	return k
}

// settle waits until nothing is applied any more, which has to be soon: what the
// data plane does itself is no disturbance. It returns how often it was since the
// last call.
func (k *keeper) settle(t *testing.T) int64 {
	t.Helper()
	deadline := time.Now().Add(3 * time.Second)
	for {
		before := k.applied.Load()
		time.Sleep(150 * time.Millisecond)
		if k.applied.Load() == before {
			return k.applied.Swap(0)
		}
		if time.Now().After(deadline) {
			t.Fatalf("it goes on applying: %d times", k.applied.Load())
		}
	}
}

func ip(t testing.TB, command string) {
	t.Helper()
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// holding is a text of all that is ours, from the kernel by way of iproute2.
func holding(t testing.TB) string {
	t.Helper()
	var lines []string
	for _, command := range []string{
		"ip -4 route show proto 175", "ip -6 route show proto 175",
		"ip neigh show nud permanent", "ip -6 neigh show nud permanent",
		"bridge fdb show dev fairlead-vx4", "ip -br addr show dev fairlead-vx4",
		"ip -br link show dev fairlead-vx4", "ip -d -o link show type vxlan",
		"sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.fairlead-vx4.rp_filter",
	} {
		words := strings.Fields(command)
		out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
		if err != nil {
			return command + ": " + err.Error()
		}
		for _, line := range strings.Split(string(out), "\n") {
			_, shown, ok := strings.Cut(line, ": fairlead-vx4: ") // without the index
			if !ok {
				shown = line
			}
			lines = append(lines, shown)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// within waits until the kernel holds this, a second at most; in an emulator
// (-short), where the look itself takes that long, ten.
func within(t *testing.T, want string) time.Duration {
	t.Helper()
	began, most := time.Now(), time.Second
	if testing.Short() {
		most = 10 * time.Second
	}
	for {
		got := holding(t)
		if got == want {
			return time.Since(began)
		}
		if time.Since(began) > most {
			t.Fatalf("not mended within %s; there is\n%s\nthere was\n%s", most, got, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func forwarding(p *route.Plan) *route.Plan {
	copied := *p
	copied.Sysctls = model.MapOf(map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv4/conf/fairlead-vx4/rp_filter": "2",
	})
	// As real ones have, so that the loss of an address takes them along.
	for destination, r := range copied.Routes.All() {
		r.Source = netip.MustParseAddr("10.0.0.0")
		if destination.Addr().Is6() {
			r.Source = netip.MustParseAddr("fd00::")
		}
		copied.Routes = copied.Routes.With(destination, r)
	}
	return &copied
}

// TestMendsWhatIsDeleted: each kind of item that is ours, deleted or changed by
// someone else, is back within a second although nothing else happens.
func TestMendsWhatIsDeleted(t *testing.T) {
	for name, commands := range map[string][]string{
		"route":                {"ip route del 10.0.1.0/24"},
		"route of IPv6":        {"ip -6 route del fd00:1::/64 proto 175"},
		"all routes":           {"ip route flush proto 175", "ip -6 route flush proto 175"},
		"route changed":        {"ip route change 10.0.1.0/24 dev up0 proto 175"},
		"route added":          {"ip route add 10.99.0.0/16 dev up0 proto 175", "ip -6 route add fd99::/64 dev up0 proto 175 metric 1"},
		"neighbour":            {"ip neigh del 10.0.1.0 dev fairlead-vx4"},
		"neighbour of IPv6":    {"ip -6 neigh del fe80::1 dev fairlead-vx4"},
		"neighbour changed":    {"ip neigh replace 10.0.1.0 lladdr 02:00:00:00:00:99 dev fairlead-vx4 nud permanent"},
		"neighbour unfixed":    {"ip neigh replace 10.0.1.0 lladdr 02:00:00:01:00:01 dev fairlead-vx4 nud reachable"},
		"station":              {"bridge fdb del 02:00:00:01:00:01 dev fairlead-vx4"},
		"station changed":      {"bridge fdb replace 02:00:00:01:00:01 dev fairlead-vx4 dst 203.0.113.9"},
		"station added":        {"bridge fdb add 02:00:00:99:00:01 dev fairlead-vx4 dst 203.0.113.9"},
		"address":              {"ip addr del 10.0.0.0/32 dev fairlead-vx4"},
		"address of IPv6":      {"ip addr del fd00::/128 dev fairlead-vx4"},
		"all addresses":        {"ip addr flush dev fairlead-vx4"},
		"device deleted":       {"ip link del fairlead-vx4"},
		"device down":          {"ip link set fairlead-vx4 down"},
		"device flapped":       {"ip link set fairlead-vx4 down", "ip link set fairlead-vx4 up"},
		"device renamed":       {"ip link set fairlead-vx4 down", "ip link set fairlead-vx4 name other", "ip link del other"},
		"MTU":                  {"ip link set fairlead-vx4 mtu 1300"},
		"MAC (flannel#1155)":   {"ip link set fairlead-vx4 address 02:00:00:00:99:99"},
		"forwarding":           {"sysctl -q net.ipv4.ip_forward=0"},
		"forwarding of IPv6":   {"sysctl -q net.ipv6.conf.all.forwarding=0"},
		"reverse path filter":  {"sysctl -q net.ipv4.conf.fairlead-vx4.rp_filter=1"},
		"all at once":          {"ip link del fairlead-vx4", "sysctl -q net.ipv4.ip_forward=0", "ip route flush proto 175"},
		"deleted and put back": {"ip route del 10.0.1.0/24", "ip route add 10.0.1.0/24 via 10.0.1.0 dev fairlead-vx4 onlink mtu 1449 src 10.0.0.0 proto 175"},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && !slices.Contains([]string{"route", "neighbour", "station", "address", "device deleted", "all at once"}, name) {
				t.Skip("-short: one of each kind of notification is enough where each takes seconds")
			}
			plane := enter(t)
			k := keep(t, plane, forwarding(peers(3)))
			before := holding(t)
			if !strings.Contains(before, "10.0.1.0/24 via 10.0.1.0") {
				t.Fatalf("there is\n%s", before)
			}
			for _, command := range commands {
				ip(t, command)
			}
			took := within(t, before)
			n := k.settle(t)
			t.Logf("mended in %v by %d applies", took.Round(time.Millisecond), n)
			if most := int64(2 + 2*len(commands)); n > most { // on a slow machine each is a disturbance of its own
				t.Errorf("%d applies, want at most %d", n, most)
			}
			within(t, before)
		})
	}
}

// TestForeignIsNoDisturbance: what others do with what is theirs is neither
// touched nor a reason to apply.
func TestForeignIsNoDisturbance(t *testing.T) {
	plane := enter(t)
	k := keep(t, plane, forwarding(peers(3)))
	for _, command := range []string{
		"ip link add other type vxlan id 77 dstport 4790 dev up0", "ip link set other up", "ip addr add 10.98.0.1/24 dev other",
		"ip route add 10.97.0.0/16 dev other", "ip -6 route add fd97::/64 dev other",
		"ip neigh add 10.98.0.2 lladdr 02:00:00:00:98:02 dev other nud permanent",
		"bridge fdb add 02:00:00:00:98:02 dev other dst 203.0.113.9",
		"ip route add 10.0.1.0/24 dev other metric 50", "ip route del 10.0.1.0/24 dev other metric 50",
		"sysctl -q net.ipv4.conf.other.rp_filter=1",
	} {
		ip(t, command)
	}
	if n := k.settle(t); n != 0 {
		t.Errorf("applied %d times", n)
	}
	out, err := exec.Command("ip", "neigh", "show", "dev", "other", "nud", "permanent").CombinedOutput()
	must(t, err)
	if !strings.Contains(string(out), "10.98.0.2") {
		t.Errorf("the foreign neighbour is gone: %s", out)
	}
	for _, command := range []string{"ip link set other down", "ip link set other up", "ip link del other"} {
		ip(t, command)
	}
	if n := k.settle(t); n != 0 {
		t.Errorf("applied %d times", n)
	}
}

// TestConflictEnds: a foreign route in the place of ours is left alone, and
// ours is back when it goes.
func TestConflictEnds(t *testing.T) {
	plane := enter(t)
	k := keep(t, plane, forwarding(peers(3)))
	before := holding(t)
	ip(t, "ip route replace 10.0.1.0/24 dev up0 proto static")
	if n := k.settle(t); n < 1 || n > 3 {
		t.Errorf("applied %d times", n)
	}
	if text := holding(t); strings.Contains(text, "10.0.1.0/24") {
		t.Errorf("there is\n%s", text)
	}
	ip(t, "ip route del 10.0.1.0/24")
	within(t, before)
}

// TestOwnDeedsAreNoDisturbance: whatever the plan does to devices, routes and
// what is between them, is heard of and not taken for another's doing.
func TestOwnDeedsAreNoDisturbance(t *testing.T) {
	plane := enter(t)
	k := keep(t, plane, forwarding(peers(3)))
	other := tunl4
	other.Port, other.MAC = 4790, model.MAC{2, 0, 0, 0, 0, 9}
	plans := []*route.Plan{forwarding(peers(200)), forwarding(peers(1)), forwarding(peers(3)), {}, forwarding(peers(3))}
	changed := *plans[0]
	changed.VXLANs = changed.VXLANs.With(other.Name, other)
	plans = append(plans, &changed, plans[0])
	for i, p := range plans {
		apply(t, plane, p)
		if n := k.settle(t); n > 1 {
			t.Errorf("plan %d: applied %d times more", i, n)
		} else if n == 1 {
			t.Logf("plan %d: applied once more", i)
		}
		// The keeper has another plan in mind; it applies nothing unless told.
	}
}

// TestLostNotifications: when the socket overflows, the kernel is read back.
func TestLostNotifications(t *testing.T) {
	plane := enter(t)
	k := keep(t, plane, forwarding(peers(3)))
	before := holding(t)
	plane.mu.Lock() // nobody reads meanwhile
	ip(t, "ip route del 10.0.1.0/24")
	k.settle(t)
	plane.mu.Unlock()
	within(t, before)
	plane.mu.Lock()
	for family := range plane.names {
		delete(plane.names, family) // it knows nothing of what it hears
	}
	plane.mu.Unlock()
	ip(t, "ip route del 10.0.1.0/24")
	plane.missed()
	within(t, before)
}

// TestRunEnds: with the context, and without an error then. When it ends with one, since
// its socket has failed, the agent runs it again (TestServerThatEndsIsRunAgain).
func TestRunEnds(t *testing.T) {
	plane := enter(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	here(t).Go(func() { ended <- plane.Run(ctx) })
	<-plane.Disturbed() // it has begun
	cancel()
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(time.Second):
		t.Fatal("Run goes on")
	}
}

// TestUplinkIsRecreated: with the uplink go the tunnel and all peers, and all
// are there again when it is (flannel#869, flannel#877), whichever family carries
// the tunnel.
func TestUplinkIsRecreated(t *testing.T) {
	for name, wanted := range map[string]*route.Plan{
		"over IPv4": forwarding(peers(3)), "over IPv6": overIPv6(forwarding(peers(3))),
	} {
		t.Run(name, func(t *testing.T) { recreateUplink(t, wanted) })
	}
}

func recreateUplink(t *testing.T, wanted *route.Plan) {
	plane := enter(t)
	apply(t, plane, wanted)
	before := holding(t)
	ip(t, "ip link del up0")
	plane.Forget()
	problems, err := plane.Apply(t.Context(), &plan.Node{Name: "self", Route: wanted})
	must(t, err)
	if len(problems) == 0 {
		t.Error("nothing is said of the uplink")
	}
	for _, command := range []string{
		"ip link add up0 type veth peer name up1", "ip link set up0 up", "ip link set up1 up",
		"ip addr add 192.0.2.1/24 dev up0", "ip addr add 2001:db8::1/64 dev up0 nodad",
	} {
		ip(t, command)
	}
	plane.Forget()
	apply(t, plane, wanted)
	within(t, before)
}

// overIPv6 has the same in a tunnel between addresses of IPv6.
func overIPv6(p *route.Plan) *route.Plan {
	copied, tunnel := *p, tunl4
	tunnel.Local, tunnel.MTU = netip.MustParseAddr("2001:db8::1"), 1430
	copied.VXLANs = copied.VXLANs.With(tunnel.Name, tunnel)
	for station, peer := range p.FDB.All() {
		last := peer.As4()[3]
		copied.FDB = copied.FDB.With(station, netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%x", last)))
	}
	return &copied
}

// TestListingUnderChurn: interfaces that come and go interrupt listings, which
// are made again (kube-router#1965, plugins#1121).
func TestListingUnderChurn(t *testing.T) {
	plane := enter(t)
	wanted := forwarding(peers(300))
	apply(t, plane, wanted)
	add := func(name string) *rtnl.Veth {
		attrs := rtnl.NewLinkAttrs()
		attrs.Name = name
		pair := rtnl.NewVeth(attrs)
		pair.PeerName = name + "-"
		_ = rtnl.LinkAdd(pair)
		return pair
	}
	for n := range 60 { // so that a listing takes several messages
		add(fmt.Sprintf("still%d", n))
	}
	ctx, cancel := context.WithCancel(t.Context())
	churned := make(chan struct{})
	here(t).Go(func() {
		defer close(churned)
		for ctx.Err() == nil {
			pair := add("churn")
			_ = rtnl.LinkSetUp(pair)
			_ = rtnl.AddrAdd(pair, &rtnl.Addr{IPNet: ipNet(netip.MustParsePrefix("10.250.0.1/24"))})
			_ = rtnl.LinkDel(pair)
		}
	})
	defer func() { cancel(); <-churned }()
	interrupted := 0
	for n := 0; n < 30 || interrupted == 0 && n < 1000; n++ {
		if _, err := rtnl.LinkList(); errors.Is(err, rtnl.ErrDumpInterrupted) {
			interrupted++
		}
		plane.Forget()
		apply(t, plane, wanted)
		if n := len(plane.debris) + plane.pending(); n != 0 {
			t.Fatalf("%d items differ", n)
		}
	}
	if interrupted == 0 {
		t.Error("no listing was interrupted, so nothing was tested")
	}
	t.Logf("%d listings of this test were interrupted", interrupted)
}

// TestRoutesComeBackWithLink: a link that flaps takes routes along, those of
// IPv4 without a word, and they are back when it is (flannel#1070, flannel#1759);
// those of a link that stays down do not make it spin.
func TestRoutesComeBackWithLink(t *testing.T) {
	plane := enter(t)
	wanted := &route.Plan{}
	for _, text := range []string{"10.200.0.0/24", "fd00:200::/64"} {
		wanted.Routes = wanted.Routes.With(netip.MustParsePrefix(text), route.Route{Device: "up0"})
	}
	k := keep(t, plane, wanted)
	back := func() {
		t.Helper()
		for began := time.Now(); len(ours(t)) != 2; time.Sleep(5 * time.Millisecond) {
			if time.Since(began) > time.Second {
				t.Fatalf("after a second there are %v", ours(t))
			}
		}
	}
	ip(t, "ip link set up0 down")
	ip(t, "ip link set up0 up")
	back()
	k.settle(t)
	ip(t, "ip link set up0 down")
	if n := k.settle(t); n > 3 || len(ours(t)) != 0 {
		t.Errorf("%d applies while the link is down, with %v", n, ours(t))
	}
	ip(t, "ip link set up0 up")
	back()
	k.settle(t)
	ip(t, "ip -4 addr flush dev up0") // the last address takes all routes of IPv4
	back()
}
