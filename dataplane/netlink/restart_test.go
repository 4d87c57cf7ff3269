package netlink

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// monitor returns a function that lists what was made, changed or deleted since
// it was called last, by anybody.
func monitor(t *testing.T) func() []string {
	t.Helper()
	socket, err := subscribe()
	must(t, err)
	t.Cleanup(func() { _ = socket.Close() })
	conn, err := socket.SyscallConn()
	must(t, err)
	return func() (seen []string) {
		buffer := make([]byte, 64<<10)
		for {
			n, err := receive(conn, buffer, false)
			if err != nil {
				return seen
			}
			messages, err := syscall.ParseNetlinkMessage(buffer[:n])
			must(t, err)
			for _, message := range messages {
				seen = append(seen, describe(message))
			}
		}
	}
}

func describe(message syscall.NetlinkMessage) string {
	verbs := map[uint16]string{
		unix.RTM_NEWLINK: "new link", unix.RTM_DELLINK: "del link", unix.RTM_NEWROUTE: "new route", unix.RTM_DELROUTE: "del route",
		unix.RTM_NEWADDR: "new address", unix.RTM_DELADDR: "del address", unix.RTM_NEWNEIGH: "new neighbour", unix.RTM_DELNEIGH: "del neighbour",
	}
	text := verbs[message.Header.Type]
	if message.Header.Flags&unix.NLM_F_REPLACE != 0 {
		text += " (replace)"
	}
	if message.Header.Type == unix.RTM_NEWROUTE || message.Header.Type == unix.RTM_DELROUTE {
		entry, _ := readRoute(message.Data)
		text += " " + prefixOf(entry.Dst).String()
	}
	return text
}

// TestRestartIsQuiet: a data plane that finds all as it should be changes
// nothing (calico#8071, calico#5173): nothing is deleted, not even to be made
// again.
func TestRestartIsQuiet(t *testing.T) {
	first := enter(t)
	apply(t, first, forwarding(peers(50)))
	time.Sleep(50 * time.Millisecond) // the kernel notices carriers
	seen := monitor(t)
	second, err := New()
	must(t, err)
	defer second.Close()
	apply(t, second, forwarding(peers(50)))
	if events := seen(); len(events) != 0 {
		t.Errorf("it did %q", events)
	}
}

func shown(t testing.TB, commands string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", commands).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
	return string(out)
}

// TestStaleIsRemovedAtStart: what belonged to nodes that went while nobody ran
// goes at the next start, and only that (flannel#2554).
func TestStaleIsRemovedAtStart(t *testing.T) {
	first := enter(t)
	for _, command := range []string{
		"ip route add 10.77.0.0/16 dev up0 proto static", "ip link add other type veth peer name rehto",
		"ip link add vxother type vxlan id 77 dstport 4777 dev up0", "ip link set vxother up",
		"bridge fdb append 02:00:00:00:77:01 dev vxother dst 192.0.2.77",
		"ip neigh add 10.77.0.1 lladdr 02:00:00:00:77:01 dev vxother nud permanent", "ip -6 neigh add fd00:77::1 lladdr 02:00:00:00:77:01 dev vxother nud permanent",
		"ip route add 10.78.0.0/16 via 10.77.0.1 dev vxother onlink", "ip rule add from 10.77.0.0/16 table 77", "ip -6 rule add from fd00:77::/64 table 77",
	} {
		ip(t, command)
	}
	const foreign = "ip -d link show other; ip -d link show vxother; bridge fdb show dev vxother; ip neigh show dev vxother; ip -6 neigh show dev vxother nud permanent; ip route show 10.77.0.0/16; ip route show dev vxother; ip rule; ip -6 rule"
	theirs := shown(t, foreign)
	apply(t, first, forwarding(peers(3)))
	before := holding(t)
	apply(t, first, forwarding(peers(40)))
	ip(t, "ip link add fairlead-vx4abc type vxlan id 9 dstport 4799 dev up0")
	ip(t, "ip link set fairlead-vx4abc up")
	second, err := New()
	must(t, err)
	defer second.Close()
	seen := monitor(t)
	apply(t, second, forwarding(peers(3)))
	for _, event := range seen() {
		if strings.HasPrefix(event, "new route") {
			t.Errorf("it did %q", event)
		}
	}
	if got := holding(t); got != before {
		t.Errorf("there is\n%s\nwanted\n%s", got, before)
	}
	if now := shown(t, foreign); now != theirs {
		t.Errorf("of others there is\n%s\nthere was\n%s", now, theirs)
	}
}

// TestPeerIsReplaced: a change of one peer replaces its items in place and
// touches no other's: at no moment is there no route.
func TestPeerIsReplaced(t *testing.T) {
	plane := enter(t)
	wanted := forwarding(peers(20))
	apply(t, plane, wanted)
	seen := monitor(t)
	apply(t, plane, forwarding(withPeer(peers(20), 7, 120)))
	events := seen()
	for _, event := range events {
		if strings.HasPrefix(event, "del ") || strings.HasPrefix(event, "new route") && !strings.Contains(event, "(replace)") {
			t.Errorf("it did %q", event)
		}
	}
	if len(events) == 0 || len(events) > 6 {
		t.Errorf("it did %q", events)
	}
}
