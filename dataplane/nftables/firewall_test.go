package nftables

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/firewall"
)

func shell(t testing.TB, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

var (
	forward4 = model.ForwardChain{Family: "ip", Table: "filter", Chain: "FORWARD"}
	forward6 = model.ForwardChain{Family: "ip6", Table: "filter", Chain: "FORWARD"}
)

func accepting(accepts ...firewall.Accept) *plan.Node {
	p := &firewall.Plan{}
	for _, accept := range accepts {
		p.Accepts = p.Accepts.With(accept, struct{}{})
	}
	return &plan.Node{Name: "self", Firewall: p}
}

func acceptingAll() *plan.Node {
	return accepting(
		firewall.Accept{Chain: forward4, Pods: netip.MustParsePrefix("10.244.1.0/24")},
		firewall.Accept{Chain: forward4, Pods: netip.MustParsePrefix("10.250.0.7/32")},
		firewall.Accept{Chain: forward6, Pods: netip.MustParsePrefix("fd00:1::/64")},
	)
}

func putRules(t testing.TB, f *Firewall, wanted *plan.Node) {
	t.Helper()
	problems, err := f.Apply(t.Context(), wanted)
	must(t, err)
	if len(problems) > 0 {
		t.Fatalf("problems %v", problems)
	}
}

// TestRulesOfIptables: iptables lists the rules as it would have written them,
// before those of others, which stay; it can delete them, and save and restore
// them.
func TestRulesOfIptables(t *testing.T) {
	netnstest.Enter(t)
	shell(t, "iptables -P FORWARD DROP; iptables -A FORWARD -i docker0 -j ACCEPT; ip6tables -P FORWARD DROP")
	f := NewFirewall()
	putRules(t, f, acceptingAll())
	got := strings.Split(strings.TrimSpace(shell(t, "iptables -S FORWARD")), "\n")
	want := []string{
		`-A FORWARD -d 10.244.1.0/24 -o fl+ -m comment --comment "fairlead: to pods of 10.244.1.0/24" -j ACCEPT`,
		`-A FORWARD -d 10.250.0.7/32 -o fl+ -m comment --comment "fairlead: to pods of 10.250.0.7/32" -j ACCEPT`,
		`-A FORWARD -i docker0 -j ACCEPT`,
		`-A FORWARD -s 10.244.1.0/24 -i fl+ -m comment --comment "fairlead: from pods of 10.244.1.0/24" -j ACCEPT`,
		`-A FORWARD -s 10.250.0.7/32 -i fl+ -m comment --comment "fairlead: from pods of 10.250.0.7/32" -j ACCEPT`,
		`-P FORWARD DROP`,
	}
	if got[len(got)-1] != "-A FORWARD -i docker0 -j ACCEPT" {
		t.Errorf("the foreign rule is not the last: %q", got)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("iptables lists\n%s", strings.Join(got, "\n"))
	}
	if got := shell(t, "ip6tables -S FORWARD"); strings.Count(got, "fd00:1::/64 ") != 2 {
		t.Errorf("ip6tables lists\n%s", got)
	}
	before := shell(t, "iptables -S; ip6tables -S")
	shell(t, "iptables-save >/tmp/fairlead-rules.$$ && iptables-restore </tmp/fairlead-rules.$$; rm /tmp/fairlead-rules.$$")
	if got := shell(t, "iptables -S; ip6tables -S"); got != before {
		t.Errorf("saved and restored:\n%s\nbefore:\n%s", got, before)
	}
	// One that is there twice, as two agents may have put it, is so no longer.
	shell(t, `iptables -I FORWARD -d 10.244.1.0/24 -o fl+ -m comment --comment "fairlead: to pods of 10.244.1.0/24" -j ACCEPT`)
	putRules(t, NewFirewall(), acceptingAll())
	if got := shell(t, "iptables -S FORWARD"); strings.Count(got, "to pods of 10.244.1.0/24") != 1 {
		t.Errorf("iptables lists\n%s", got)
	}
	// A restart finds them, and a smaller plan leaves what is in it.
	f = NewFirewall()
	putRules(t, f, accepting(firewall.Accept{Chain: forward4, Pods: netip.MustParsePrefix("10.244.1.0/24")}))
	if got := shell(t, "iptables -S FORWARD; ip6tables -S FORWARD"); strings.Count(got, Mark) != 2 || strings.Count(got, "docker0") != 1 {
		t.Errorf("iptables lists\n%s", got)
	}
	for range 2 {
		must(t, f.Remove())
	}
	if got := shell(t, "iptables -S FORWARD"); got != "-P FORWARD DROP\n-A FORWARD -i docker0 -j ACCEPT\n" {
		t.Errorf("iptables lists\n%s", got)
	}
}

// TestUnknownFirewallIsLeft: before the firewalls are known, and where there are
// none, nothing is touched or made.
func TestUnknownFirewallIsLeft(t *testing.T) {
	netnstest.Enter(t)
	f := NewFirewall()
	putRules(t, f, accepting())
	must(t, f.Remove())
	putRules(t, f, acceptingAll()) // the chain has just gone
	if got := shell(t, "nft list ruleset"); got != "" {
		t.Errorf("there is\n%s", got)
	}
	shell(t, `iptables -P FORWARD DROP; iptables -A FORWARD -m comment --comment "fairlead: of before" -j ACCEPT`)
	before := shell(t, "iptables -S")
	putRules(t, NewFirewall(), &plan.Node{Name: "self"})
	if got := shell(t, "iptables -S"); got != before {
		t.Errorf("there is\n%s", got)
	}
}

// keepFirewall does what the agent does: it surveys, plans and applies whenever
// it is told, and for no other reason.
func keepFirewall(t *testing.T) {
	t.Helper()
	handle, err := netns.Get()
	must(t, err)
	space, f := netnstest.Of(t, handle), NewFirewall()
	ctx, cancel := context.WithCancel(t.Context())
	ended, kept := make(chan error, 1), make(chan struct{})
	space.Go(func() { ended <- f.Run(ctx) })
	space.Go(func() {
		defer close(kept)
		snapshot := &model.Snapshot{Network: model.DefaultNetwork(), PoliciesKnown: true}
		snapshot.Nodes = snapshot.Nodes.With("self", &model.Node{Name: "self", PodCIDRs: []netip.Prefix{
			netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64"),
		}})
		var node *plan.Node
		for {
			select {
			case <-ctx.Done():
				return
			case <-f.Surveyed():
				found, err := f.Survey()
				if err != nil {
					t.Error(err)
				}
				next := *snapshot
				next.Firewalls = found
				node = plan.Compute(node, &next, "self")
			case <-f.Disturbed():
			}
			if node != nil {
				if _, err := f.Apply(ctx, node); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
		<-kept
		_ = handle.Close()
	})
}

// TestFirewallIsFollowed: whenever somebody makes iptables drop, or removes the
// rules, they are there again, within a second where the machine has time for it; and
// they go when nothing drops.
func TestFirewallIsFollowed(t *testing.T) {
	netnstest.Enter(t)
	keepFirewall(t)
	for _, c := range []struct {
		command string
		rules   int
	}{
		{"iptables -P FORWARD DROP", 2},
		{"ip6tables -P FORWARD DROP", 4},
		{"iptables -F FORWARD", 4},
		{"iptables -F; ip6tables -F", 4},
		{"iptables -D FORWARD 1", 4},
		{"iptables -P FORWARD ACCEPT", 2},
		{"iptables -P FORWARD DROP; iptables -A FORWARD -i docker0 -j ACCEPT", 4},
		{"nft 'flush chain ip filter FORWARD; add rule ip filter FORWARD ct original ip saddr 10.0.0.1 accept'", 4},
		{"nft flush ruleset", 0},
		{"iptables -P FORWARD DROP", 2},
		{"printf '*filter\\n:INPUT ACCEPT\\n:FORWARD DROP\\n:OUTPUT ACCEPT\\nCOMMIT\\n' | iptables-restore", 2},
		{"nft delete table ip filter", 0},
		{"iptables -N LAST; iptables -A FORWARD -j REJECT", 2},
	} {
		shell(t, c.command)
		began := time.Now()
		for {
			got := shell(t, "nft list ruleset 2>&1")
			if strings.Count(got, Mark) == c.rules {
				t.Logf("%s: after %v", c.command, time.Since(began).Round(time.Millisecond))
				break
			}
			if time.Since(began) > 10*time.Second {
				t.Fatalf("after %s, not %d rules but\n%s", c.command, c.rules, got)
			}
		}
	}
}

// TestTableTamperedWith: whatever somebody changes in our table, it is told, and
// the next Apply mends it; what the plane changes itself is not told.
func TestTableTamperedWith(t *testing.T) {
	netnstest.Enter(t)
	handle, err := netns.Get()
	must(t, err)
	defer handle.Close()
	plane, space := New(), netnstest.Of(t, handle)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	space.Go(func() { ended <- plane.Run(ctx) })
	defer func() { cancel(); must(t, <-ended) }()
	wanted := example()
	apply(t, plane, wanted)
	told(plane, 300*time.Millisecond) // perhaps it was applied before Run began
	apply(t, plane, wanted)
	for range 2 {
		apply(t, plane, otherwise(wanted))
		apply(t, plane, wanted)
	}
	if told(plane, 300*time.Millisecond) {
		t.Error("the plane's own changes are told")
	}
	before := asFirst(listed(t, "list", "table", "inet", TableName))
	for _, tampering := range []string{
		"nft flush chain inet fairlead postrouting", "nft flush table inet fairlead", "nft flush set inet fairlead hairpins4",
		"nft insert rule inet fairlead postrouting drop", "nft add set inet fairlead more '{ type mark; }'",
		"nft add counter inet fairlead more", "nft add chain inet fairlead more '{ type filter hook input priority 0; }'", "nft delete table inet fairlead",
	} {
		shell(t, tampering)
		if !told(plane, time.Second) {
			t.Fatalf("%s is not told", tampering)
		}
		apply(t, plane, wanted)
		if got := asFirst(listed(t, "list", "table", "inet", TableName)); got != before {
			t.Errorf("after %s there is\n%s\nthere was\n%s", tampering, got, before)
		}
	}
	shell(t, "nft add table inet other; nft add chain inet other c; nft add rule inet other c accept; iptables -A FORWARD -j ACCEPT")
	if told(plane, 300*time.Millisecond) {
		t.Error("changes of other tables are told")
	}
}

// asFirst is a listing as it were of the first table: of one that succeeded another, sets
// of ranges may be called otherwise, and come before other sets.
func asFirst(listing string) string {
	lines := strings.Split(strings.NewReplacer(otherRanges, "", otherSuffix+" ", " ").Replace(listing), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestPacketsPassFirewall: with a policy that drops, packets between a pod and
// the outside pass either way, and those of others do not.
func TestPacketsPassFirewall(t *testing.T) {
	netnstest.Enter(t)
	spaces := map[string]*netnstest.Namespace{"pod": netnstest.New(t), "out": netnstest.New(t), "other": netnstest.New(t)}
	shell(t, "sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	connect := func(space, device, node, far string) {
		shell(t, "ip link add "+device+" type veth peer name eth0")
		link, err := rtnl.LinkByName("eth0")
		must(t, err)
		must(t, rtnl.LinkSetNsFd(link, int(spaces[space].Handle)))
		shell(t, "ip link set "+device+" up")
		for _, addr := range strings.Fields(node) {
			shell(t, "ip addr add "+addr+" dev "+device+" nodad")
		}
		spaces[space].Do(func() {
			shell(t, "ip link set eth0 up")
			for i, addr := range strings.Fields(far) {
				gateway, _, _ := strings.Cut(strings.Fields(node)[i], "/")
				shell(t, "ip addr add "+addr+" dev eth0 nodad && ip route add default via "+gateway+" dev eth0")
			}
		})
	}
	connect("pod", "fl0123456789abc", "10.244.1.254/24 fd00:1::fe/64", "10.244.1.1/24 fd00:1::1/64")
	connect("out", "up0", "192.0.2.254/24 2001:db8::fe/64", "192.0.2.1/24 2001:db8::1/64")
	connect("other", "docker0", "172.17.0.254/24 fd00:17::fe/64", "172.17.0.1/24 fd00:17::1/64")
	passes := func(from, to, addr string, tries int) (passed bool) {
		var conn net.PacketConn
		spaces[to].Do(func() {
			var err error
			if conn, err = net.ListenPacket("udp", net.JoinHostPort(addr, "7777")); err != nil {
				t.Error(err)
			}
		})
		defer conn.Close()
		spaces[from].Do(func() {
			sender, err := net.Dial("udp", net.JoinHostPort(addr, "7777"))
			if err != nil {
				t.Error(err)
				return
			}
			defer sender.Close()
			for range tries {
				_, _ = sender.Write([]byte("hello"))
				must(t, conn.SetReadDeadline(time.Now().Add(25*time.Millisecond)))
				if _, _, err := conn.ReadFrom(make([]byte, 16)); err == nil {
					passed = true
					return
				}
			}
		})
		return passed
	}
	verify := func(when string, pods, others bool) {
		t.Helper()
		for _, c := range []struct {
			from, to, addr string
			want           bool
		}{
			{"pod", "out", "192.0.2.1", pods}, {"out", "pod", "10.244.1.1", pods},
			{"pod", "out", "2001:db8::1", pods}, {"out", "pod", "fd00:1::1", pods},
			{"other", "out", "192.0.2.1", others}, {"other", "out", "2001:db8::1", others},
		} {
			tries := 10
			if c.want {
				tries = 200 // the first ones may wait for a neighbour
			}
			if got := passes(c.from, c.to, c.addr, tries); got != c.want {
				t.Errorf("%s, %s to %s passes: %v", when, c.from, c.addr, got)
			}
		}
	}
	verify("without a firewall", true, true)
	shell(t, "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
	verify("with a firewall", false, false)
	putRules(t, NewFirewall(), acceptingAll())
	verify("with our rules", true, false)
}
