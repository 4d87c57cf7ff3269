package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	planenetlink "github.com/fairlead-net/fairlead/dataplane/netlink"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/whole"
)

// ours is what the kernel holds of ours, as sorted text.
func ours(t testing.TB) []string {
	t.Helper()
	links, err := whole.List(netlink.LinkList)
	must(t, err)
	names := map[int]string{}
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	var lines []string
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := whole.List(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Protocol: planenetlink.Protocol}, netlink.RT_FILTER_PROTOCOL)
		})
		must(t, err)
		for _, r := range routes {
			lines = append(lines, fmt.Sprintf("%s type %d via %s dev %s src %s", r.Dst, r.Type, r.Gw, names[r.LinkIndex], r.Src))
		}
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		entries, err := whole.List(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, family) })
		must(t, err)
		for _, n := range entries {
			if strings.HasPrefix(names[n.LinkIndex], route.VXLANPrefix) && n.State&netlink.NUD_PERMANENT != 0 {
				lines = append(lines, fmt.Sprintf("%s lladdr %s dev %s", n.IP, n.HardwareAddr, names[n.LinkIndex]))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func peerAt(name, cidr, cidr6 string, addrs ...string) *model.Node {
	peer := &model.Node{Name: name, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(cidr), netip.MustParsePrefix(cidr6)}}
	for _, addr := range addrs {
		peer.Addresses = append(peer.Addresses, netip.MustParseAddr(addr))
	}
	return peer
}

// What the kernel drops with the uplink or its addresses comes back with them:
// routes to nodes on the link and behind tunnels, and to this node's own pods.
func TestUplinkComesBack(t *testing.T) {
	needNode(t)
	cluster := newCluster("10.244.1.0/24", "fd00:10:244:1::/64")
	cluster.peers = []*model.Node{
		peerAt("near", "10.244.2.0/24", "fd00:10:244:2::/64", "192.0.2.2", "2001:db8::2"),
		peerAt("far", "10.244.3.0/24", "fd00:10:244:3::/64", "198.51.100.3", "2001:db8:3::3"),
	}
	a := start(t, cluster, t.TempDir())
	p := newPod(t, "p")
	if reply := a.ask(t, request("ADD", "p"), p.netns); reply.Error != nil {
		t.Fatal(reply.Error)
	}
	var want []string
	eventually(t, "all routes", func() bool { want = ours(t); return len(want) == 4*2+3 })
	v4, v6 := address(netip.MustParsePrefix("192.0.2.1/24")), address(netip.MustParsePrefix("2001:db8::1/64"))
	uplink := func() netlink.Link { return linkOf(t, "uplink") }
	away := func() {
		eventually(t, "routes on the uplink to be gone, and the pod's to be there", func() bool {
			now := strings.Join(ours(t), "\n")
			return !strings.Contains(now, "via 192.0.2.2 ") && strings.Contains(now, "10.244.1.1/32")
		})
	}
	defer func() {
		if t.Failed() {
			t.Logf("there is\n%s", strings.Join(ours(t), "\n"))
		}
	}()
	for _, event := range []struct {
		name        string
		leave, back func()
	}{
		{"down and up",
			func() { must(t, netlink.LinkSetDown(uplink())) }, // which takes its IPv6 addresses
			func() { must(t, netlink.LinkSetUp(uplink())); must(t, netlink.AddrAdd(uplink(), v6)) }},
		{"address",
			func() { must(t, netlink.AddrDel(uplink(), v4)); must(t, netlink.AddrDel(uplink(), v6)) },
			func() { must(t, netlink.AddrAdd(uplink(), v4)); must(t, netlink.AddrAdd(uplink(), v6)) }},
		{"made anew",
			func() { must(t, netlink.LinkDel(uplink())) },
			func() { addUplink(t) }},
	} {
		for _, slowly := range []bool{false, true} {
			event.leave()
			if slowly {
				away()
				if err := p.dial("169.254.1.1:1"); err == nil || !strings.Contains(err.Error(), "refused") {
					t.Errorf("%s: the pod does not reach the node meanwhile: %v", event.name, err)
				}
			}
			event.back()
			eventually(t, fmt.Sprintf("%s (slowly: %v): as before\n%s", event.name, slowly, strings.Join(want, "\n")),
				func() bool { return slices.Equal(ours(t), want) })
		}
	}
}

// A pod whose link vanished does not make the node fail. Its address is free
// again, although no DEL comes, but not soon.
func TestPodLinkVanishes(t *testing.T) {
	needNode(t)
	cluster := newCluster("10.244.1.0/30")
	a := start(t, cluster, t.TempDir())
	add := func(name string) string {
		reply := a.ask(t, request("ADD", name), newPod(t, name).netns)
		if reply.Error != nil {
			return reply.Error.Error()
		}
		return reply.Result.IPs[0].Address.String()
	}
	if got := add("lost"); got != "10.244.1.1/32" {
		t.Fatal(got)
	}
	must(t, netlink.LinkDel(linkOf(t, deviceName(keyOf("lost")))))
	eventually(t, "the attachment to be gone", func() bool {
		s := cluster.latest()
		return s.Attachments.Len() == 0
	})
	if got := add("other"); got != "10.244.1.2/32" {
		t.Error(got)
	}
	eventually(t, "the address to be freed", func() bool { return strings.Contains(add("third"), "1 in use, 1 freed") })
	// Whatever is read back now, nothing is refused.
	must(t, netlink.LinkSetMTU(linkOf(t, "uplink"), 1300))
	eventually(t, "the status of the new MTU", func() bool {
		cluster.mu.Lock()
		defer cluster.mu.Unlock()
		last := cluster.published[len(cluster.published)-1]
		if !last.Ready && last.Reason != "Starting" {
			t.Fatalf("the node is not ready: %s", last.Message)
		}
		return last.MTU == 1300
	})
}

// Addresses of a pod whose link went when nobody could look, and of which no DEL comes,
// are freed; not those of one that is connected, or being connected.
func TestRestIsSwept(t *testing.T) {
	needNode(t)
	feed, dir := &model.Feed{}, t.TempDir()
	a := newAttacher(&Config{Node: testNode, RunDir: dir, StateDir: dir, Log: slog.New(slog.DiscardHandler)}, feed, nil, nil, &notices{})
	ranges := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}
	for _, name := range []string{"gone", "connected", "coming"} {
		held, err := a.allocate(wanted{AttachmentKey: keyOf(name)}, ranges)
		must(t, err)
		if name == "connected" {
			feed.Edit(func(s *model.Snapshot) { s.Attachments = s.Attachments.With(held.AttachmentKey, held) })
		}
	}
	unlock := a.busy.lock(keyOf("coming"))
	a.sweepRest()
	unlock()
	for name, want := range map[string]bool{"gone": false, "connected": true, "coming": true} {
		if held := a.addresses.Held(keyOf(name)) != nil; held != want {
			t.Errorf("the pod that is %s has its address: %t", name, held)
		}
	}
}
