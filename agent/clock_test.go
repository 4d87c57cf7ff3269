package agent

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestClockJumps: pods come, go and are reached, and agents restart, though the clock of
// the machine jumps. Only on one that is the tests' own: see lab/kernels.
func TestClockJumps(t *testing.T) {
	if os.Getenv("FAIRLEAD_LAB_GUEST") == "" {
		t.Skip("the clock is the whole machine's: make test-kernels has machines to itself")
	}
	needNode(t)
	began := time.Now()
	set := func(jump time.Duration) {
		now := began.Round(0).Add(time.Since(began) + jump) // by the monotonic clock
		must(t, unix.ClockSettime(unix.CLOCK_REALTIME, &unix.Timespec{Sec: now.Unix(), Nsec: int64(now.Nanosecond())}))
	}
	defer set(0)
	run, ranges := t.TempDir(), []string{"10.244.0.0/22", "fd00:10:244:1::/118"}
	a := start(t, newCluster(ranges...), run)
	add := func(name string) *pod {
		p := newPod(t, name)
		if reply := a.ask(t, request("ADD", name), p.netns); reply.Error != nil {
			t.Fatal(reply.Error)
		}
		return p
	}
	hammer(t, add("prober"), 20, "10.244.0.1", "fd00:10:244:1::1")
	stays := add("stays")
	index := linkOf(t, deviceName(keyOf("stays"))).Attrs().Index
	flows := func(when string, p *pod) {
		t.Helper()
		before4, before6 := p.datagrams(t)
		eventually(t, "more packets "+when, func() bool { v4, v6 := p.datagrams(t); return v4 > before4+100 && v6 > before6+100 })
	}
	const day = 24 * time.Hour
	for at, jump := range []time.Duration{time.Hour, -2 * time.Hour, 365 * day, -300 * day} {
		set(jump)
		flows("to a pod of before", stays)
		name := fmt.Sprint("comes", at)
		flows("to one that comes", add(name))
		a.stop()
		set(-jump)
		a = start(t, newCluster(ranges...), run)
		flows("after a restart", stays)
		if now := linkOf(t, deviceName(keyOf("stays"))).Attrs().Index; now != index {
			t.Fatalf("its link is another: %d, was %d", now, index)
		}
		if n := len(attachmentsOf(a)); n != 3 {
			t.Errorf("after a jump by %v there are %d pods", jump, n)
		}
		a.del(t, name)
	}
}
