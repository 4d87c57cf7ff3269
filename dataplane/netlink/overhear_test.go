package netlink

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// overhear lets a plane see what the kernel tells of what is done, so many notifications
// at once.
func overhear(t *testing.T, plane *Plane, most int, do func()) {
	t.Helper()
	socket, err := subscribe()
	must(t, err)
	defer socket.Close()
	conn, err := socket.SyscallConn()
	must(t, err)
	do()
	for buffer := make([]byte, 64<<10); ; {
		n, err := receive(conn, buffer, false)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		must(t, err)
		plane.follow(conn, buffer, n, most)
	}
}

// TestManyAtOnce: of more notifications than are taken in at once none is lost.
func TestManyAtOnce(t *testing.T) {
	plane := enter(t)
	apply(t, plane, peers(10))
	overhear(t, plane, 3, func() { ip(t, "ip route flush proto 175") })
	if gone := plane.routes.Pending(); gone != 10 {
		t.Errorf("%d routes of 10 are missed", gone)
	}
}

// TestSysctlsNobodyTellsOf: the kernel has no notification of them, so that they are
// looked at now and then.
func TestSysctlsNobodyTellsOf(t *testing.T) {
	plane := enter(t)
	wanted := forwarding(peers(3))
	wanted.Sysctls = wanted.Sysctls.With("net/ipv6/conf/up0/accept_ra", "2")
	k := keep(t, plane, wanted)
	ip(t, "sysctl -q net.ipv6.conf.up0.accept_ra=0")
	applied := int64(0)
	for at := range 2 {
		plane.mu.Lock()
		plane.looked = time.Time{}
		plane.mu.Unlock()
		plane.look()
		applied += k.settle(t)
		if seen, err := readSysctl("net/ipv6/conf/up0/accept_ra"); err != nil || seen != "2" {
			t.Errorf("look %d: it is %q: %v", at, seen, err)
		}
	}
	if applied != 1 {
		t.Errorf("%d applies, want 1", applied)
	}
}

// TestIPv6SwitchedOff: what the kernel refuses without IPv6 on our own tunnel is there
// again at the second try, as is IPv6.
func TestIPv6SwitchedOff(t *testing.T) {
	plane := enter(t)
	wanted := peers(3)
	wanted.Sysctls = wanted.Sysctls.With("net/ipv6/conf/fairlead-vx4/disable_ipv6", "0")
	apply(t, plane, wanted)
	before := holding(t)
	overhear(t, plane, mostAtOnce, func() { ip(t, "sysctl -q net.ipv6.conf.fairlead-vx4.disable_ipv6=1") })
	node := &plan.Node{Name: "self", Route: wanted}
	if _, err := plane.Apply(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	if problems, err := plane.Apply(t.Context(), node); err != nil || len(problems) > 0 {
		t.Errorf("the second time: %v, %v", problems, err)
	}
	if got := holding(t); got != before {
		t.Errorf("there is\n%s\nthere was\n%s", got, before)
	}
}

// TestSeesWhileIPv6Off: while a network interface of somebody else has no IPv6, so that
// routes are refused for as long, it is seen as ever what others do to the rest.
func TestSeesWhileIPv6Off(t *testing.T) {
	plane := enter(t)
	wanted := peers(3)
	lone := netip.MustParsePrefix("fd00:9::/64")
	wanted.Routes = wanted.Routes.With(lone, route.Route{Device: "up1"})
	ip(t, "sysctl -q net.ipv6.conf.up1.disable_ipv6=1")
	node := &plan.Node{Name: "self", Route: wanted}
	for range 2 {
		if problems, err := plane.Apply(t.Context(), node); err != nil || len(problems) != 1 || problems[0].Reason != ipv6Disabled {
			t.Fatalf("without IPv6: %v, %v", problems, err)
		}
	}
	overhear(t, plane, mostAtOnce, func() { ip(t, "ip -4 route flush proto 175") })
	select {
	case <-plane.Disturbed():
	default:
		t.Error("routes are flushed, and it is not noticed")
	}
	ip(t, "sysctl -q net.ipv6.conf.up1.disable_ipv6=0")
	apply(t, plane, wanted)
}
