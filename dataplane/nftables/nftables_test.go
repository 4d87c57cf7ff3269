package nftables

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/antispoof"
	"github.com/fairlead-net/fairlead/plan/hostport"
	"github.com/fairlead-net/fairlead/plan/masquerade"
	"github.com/fairlead-net/fairlead/plan/policy"
	"github.com/fairlead-net/fairlead/plan/service"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func prefixMap(texts ...string) (set model.Map[netip.Prefix, struct{}]) {
	for _, text := range texts {
		set = set.With(netip.MustParsePrefix(text), struct{}{})
	}
	return set
}

func apply(t testing.TB, plane *Plane, wanted *plan.Node) {
	t.Helper()
	problems, err := plane.Apply(t.Context(), wanted)
	must(t, err)
	if len(problems) != 0 {
		t.Fatalf("problems %v", problems)
	}
}

// listed is what nft lists. Without nft on the machine the test is skipped.
func listed(t testing.TB, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v: %s", args, err, out)
	}
	return string(out)
}

// listedIn are the elements of a set, as nft lists them.
func listedIn(t testing.TB, set string) (found []string) {
	t.Helper()
	if strings.Contains(listed(t, "list", "table", "inet", TableName), " "+set+otherSuffix+" {") {
		set += otherSuffix
	}
	var list struct {
		Nftables []struct {
			Set struct{ Elem []any }
		}
	}
	must(t, json.Unmarshal([]byte(listed(t, "-j", "list", "set", "inet", TableName, set)), &list))
	for _, object := range list.Nftables {
		for _, element := range object.Set.Elem {
			switch element := element.(type) {
			case string:
				found = append(found, element)
			case map[string]any:
				if prefix, ok := element["prefix"].(map[string]any); ok {
					found = append(found, fmt.Sprintf("%v/%v", prefix["addr"], prefix["len"]))
					continue
				}
				found = append(found, fmt.Sprint(element))
			}
		}
	}
	slices.Sort(found)
	return found
}

// masquerading is a plan that only masquerades.
func masquerading(p *masquerade.Plan) *plan.Node {
	return &plan.Node{Name: "self", Masquerade: p, HostPort: &hostport.Plan{}, AntiSpoof: &antispoof.Plan{}, Service: &service.Plan{}, Policy: &policy.Plan{}}
}

func ranges() *masquerade.Plan {
	return &masquerade.Plan{
		Pods: prefixMap("10.244.1.0/24", "fd00:1::/64"),
		// Next to each other, alone, and at both ends of the space.
		Cluster: prefixMap("0.0.0.0/8", "10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "192.0.2.7/32", "255.255.255.0/24",
			"::/64", "fd00:0::/64", "fd00:1::/64", "ffff:ffff:ffff:ffff::/64"),
		Excluded:    prefixMap("169.254.0.0/16", "fe80::/10"),
		RandomPorts: true,
	}
}

// example has something of everything.
func example() *plan.Node {
	node := masquerading(ranges())
	node.Policy = examplePolicies()
	node.Masquerade.Sources[model.IPv4] = netip.MustParseAddr("192.0.2.1")
	node.Masquerade.Tunnels = masquerade.Tunnels{8285}
	node.HostPort.Own[model.IPv6] = netip.MustParseAddr("2001:db8::1")
	for _, pod := range []string{"10.244.1.2", "fd00:1::2"} {
		addr := netip.MustParseAddr(pod)
		node.HostPort.Hairpins = node.HostPort.Hairpins.With(addr, struct{}{})
		node.AntiSpoof.Sources = node.AntiSpoof.Sources.With(podSource(addr), struct{}{})
	}
	node.AntiSpoof.Sources = node.AntiSpoof.Sources.With(podSource(netip.Addr{}), struct{}{})
	for at, to := range map[string]string{
		"0.0.0.0:80": "10.244.1.2:8080", "192.0.2.1:81": "10.244.1.2:8081",
		"[::]:80": "[fd00:1::2]:8080", "[2001:db8::1]:81": "[fd00:1::2]:8081",
	} {
		node.HostPort.Ports = node.HostPort.Ports.With(port(model.TCP, at), netip.MustParseAddrPort(to))
	}
	node.DNS = exampleDNS()
	return node
}

func podSource(addr netip.Addr) antispoof.Source {
	return antispoof.Source{Device: "fl0123456789abc", MAC: model.MAC{2, 0, 0, 0, 0, 1}, Address: addr}
}

func port(protocol model.Protocol, at string) hostport.Port {
	return hostport.Port{Protocol: protocol, At: netip.MustParseAddrPort(at)}
}

func TestListing(t *testing.T) {
	netnstest.Enter(t)
	apply(t, New(), example())
	const want = `table inet fairlead {
	set pods4 {
		type ipv4_addr
		flags interval
		comment "pods of this node (schema 4)"
		elements = { 10.244.1.0/24 }
	}

	set pods6 {
		type ipv6_addr
		flags interval
		comment "pods of this node (schema 4)"
		elements = { fd00:1::/64 }
	}

	set cluster4 {
		type ipv4_addr
		flags interval
		comment "pods of all nodes"
		elements = { 0.0.0.0/8, 10.244.0.0/24,
			     10.244.1.0/24, 10.244.2.0/24,
			     192.0.2.7, 255.255.255.0/24 }
	}

	set cluster6 {
		type ipv6_addr
		flags interval
		comment "pods of all nodes"
		elements = { ::/64,
			     fd00::/64,
			     fd00:1::/64,
			     ffff:ffff:ffff:ffff::/64 }
	}

	set excluded4 {
		type ipv4_addr
		flags interval
		comment "destinations that see pods' own addresses"
		elements = { 169.254.0.0/16 }
	}

	set excluded6 {
		type ipv6_addr
		flags interval
		comment "destinations that see pods' own addresses"
		elements = { fe80::/10 }
	}

	map standing {
		type nf_proto : classid
		comment "empty as soon as other rules succeed these (schema 4)"
		elements = { ipv4 : 0:1, ipv6 : 0:1 }
	}

	map hostports4 {
		type inet_proto . inet_service : ipv4_addr . inet_service
		comment "at all addresses of the node"
		elements = { tcp . 80 : 10.244.1.2 . 8080 }
	}

	map hostports6 {
		type inet_proto . inet_service : ipv6_addr . inet_service
		comment "at all addresses of the node"
		elements = { tcp . 80 : fd00:1::2 . 8080 }
	}

	map hostip-ports4 {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		comment "at one address of the node"
		elements = { 192.0.2.1 . tcp . 81 : 10.244.1.2 . 8081 }
	}

	map hostip-ports6 {
		type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
		comment "at one address of the node"
		elements = { 2001:db8::1 . tcp . 81 : fd00:1::2 . 8081 }
	}

	set hairpins4 {
		type ipv4_addr . ipv4_addr
		comment "pods that reach themselves by a port of the node"
		elements = { 10.244.1.2 . 10.244.1.2 }
	}

	set hairpins6 {
		type ipv6_addr . ipv6_addr
		comment "pods that reach themselves by a port of the node"
		elements = { fd00:1::2 . fd00:1::2 }
	}

	set sources4 {
		type ipv4_addr . ether_addr . ifname
		comment "what pods send from"
		elements = { 10.244.1.2 . 02:00:00:00:00:01 . "fl0123456789abc" }
	}

	set sources6 {
		type ipv6_addr . ether_addr . ifname
		comment "what pods send from"
		elements = { fd00:1::2 . 02:00:00:00:00:01 . "fl0123456789abc" }
	}

	set discoverers {
		type ether_addr . ifname
		comment "pods that have IPv6 neighbours"
		elements = { 02:00:00:00:00:01 . "fl0123456789abc" }
	}

	chain loopback {
		type nat hook prerouting priority -199; policy accept;
		ip daddr 127.0.0.0/8 iifname != "lo" iifgroup 175 counter packets 0 bytes 0 drop comment "to the node's loopback interface"
		ip daddr 127.0.0.0/8 iifname != "lo" counter packets 0 bytes 0 drop comment "to the node's loopback interface, from elsewhere"
		ip saddr 127.0.0.0/8 iifname != "lo" counter packets 0 bytes 0 drop comment "as if from the node's loopback interface"
	}

	chain loopback-delivered {
		ct direction reply ct status snat return comment "answers, which are translated by now"
		ct direction original ct status dnat return comment "others lead it there"
		iifgroup 175 counter packets 0 bytes 0 drop comment "to the node's loopback interface"
		counter packets 0 bytes 0 drop comment "to the node's loopback interface, from elsewhere"
	}

	chain hostport {
		dnat ip to ip daddr . meta l4proto . th dport map @hostip-ports4
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @hostip-ports6
		meta nfproto ipv4 dnat ip to meta l4proto . th dport map @hostports4
		meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @hostports6
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 127.0.0.0/8 return comment "only the node reaches its loopback interface"
		fib daddr type local jump hostport
	}

	chain output {
		type nat hook output priority -100; policy accept;
		ip6 daddr ::1 return comment "which no packet from ::1 leaves"
		fib daddr type local jump hostport
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr . ip daddr @hairpins4 counter packets 0 bytes 0 masquerade comment "pods that reach themselves"
		ip6 saddr . ip6 daddr @hairpins6 counter packets 0 bytes 0 snat ip6 to 2001:db8::1 comment "pods that reach themselves"
		ip saddr 127.0.0.0/8 oifgroup 175 counter packets 0 bytes 0 masquerade comment "from 127.0.0.1 to pods"
		ip saddr @pods4 ip daddr != @cluster4 ip daddr != @excluded4 udp dport 8285 counter packets 0 bytes 0 snat ip to 192.0.2.1:8286-65535 fully-random comment "no pod's packet looks like one of a tunnel"
		ip saddr @pods4 ip daddr != @cluster4 ip daddr != @excluded4 counter packets 0 bytes 0 snat ip to 192.0.2.1 fully-random comment "from pods of this node to the outside"
		ip6 saddr @pods6 ip6 daddr != @cluster6 ip6 daddr != @excluded6 udp dport 8285 counter packets 0 bytes 0 masquerade to :8286-65535 fully-random comment "no pod's packet looks like one of a tunnel"
		ip6 saddr @pods6 ip6 daddr != @cluster6 ip6 daddr != @excluded6 counter packets 0 bytes 0 masquerade fully-random comment "from pods of this node to the outside"
	}

	chain from-pod {
		ip saddr . ether saddr . iifname @sources4 return
		ip6 saddr . ether saddr . iifname @sources6 return
		ip6 saddr :: icmpv6 type { mld-listener-report, mld-listener-done, nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } ether saddr . iifname @discoverers return comment "neighbour and listener discovery"
		ip6 saddr fe80::/10 icmpv6 type { mld-listener-report, mld-listener-done, nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } ether saddr . iifname @discoverers return comment "neighbour and listener discovery"
		counter packets 0 bytes 0 drop comment "another address or MAC than the pod's"
	}

	chain raw {
		type filter hook prerouting priority raw; policy accept;
		iifgroup 175 jump from-pod
	}
}
`
	if got := withoutServices(listed(t, "list", "ruleset")); got != want {
		t.Fatalf("nft lists\n%s", got)
	}
}

// TestListingCanBeLoaded loads what nft lists, in another namespace, and lists
// it again: as text, which leaves out some, and as what the kernel was given.
func TestListingCanBeLoaded(t *testing.T) {
	t.Run("example", func(t *testing.T) { testLoading(t, example()) })
	t.Run("settings", func(t *testing.T) { testLoading(t, otherwise(example())) })
}

// otherwise is a plan with the same elements and other settings.
func otherwise(node *plan.Node) *plan.Node {
	next, changed := *node, *node.Masquerade
	changed.Sources = [...]netip.Addr{{}, netip.MustParseAddr("2001:db8::7")}
	changed.RandomPorts = false
	changed.Tunnels = masquerade.Tunnels{2000, 65535}
	next.Masquerade = &changed
	return &next
}

func testLoading(t *testing.T, node *plan.Node) {
	other := netnstest.New(t)
	netnstest.Enter(t)
	apply(t, New(), node)
	ruleset, rules := listed(t, "list", "ruleset"), expressions(listed(t, "--debug=netlink", "list", "ruleset"))
	other.Do(func() {
		load := exec.Command("nft", "-f", "-")
		load.Stdin = strings.NewReader(ruleset)
		if out, err := load.CombinedOutput(); err != nil {
			t.Errorf("nft -f: %v: %s", err, out)
			return
		}
		if again, err := exec.Command("nft", "list", "ruleset").Output(); err != nil || string(again) != ruleset {
			t.Errorf("after loading, nft lists\n%s(%v)\nbefore:\n%s", again, err, ruleset)
		}
		if again, err := exec.Command("nft", "--debug=netlink", "list", "ruleset").Output(); err != nil || expressions(string(again)) != rules {
			t.Errorf("after loading, the rules are\n%s(%v)\nbefore:\n%s", expressions(string(again)), err, rules)
		}
	})
}

// expressions are those of all rules.
func expressions(debug string) (found string) {
	for line := range strings.Lines(debug) {
		if strings.HasPrefix(line, "  [ ") {
			found += line
		}
	}
	return found
}

// TestOnlyElementsChange: the table stays, and with it its handle.
func TestOnlyElementsChange(t *testing.T) {
	netnstest.Enter(t)
	plane, wanted := New(), masquerading(ranges())
	apply(t, plane, wanted)
	before := chainHandle(t)
	changed := masquerading(&masquerade.Plan{
		Pods: wanted.Masquerade.Pods,
		// Overlaps what it replaces, above and below.
		Cluster: wanted.Masquerade.Cluster.
			Without(netip.MustParsePrefix("10.244.0.0/24")).Without(netip.MustParsePrefix("10.244.1.0/24")).
			With(netip.MustParsePrefix("10.244.0.0/23"), struct{}{}).
			Without(netip.MustParsePrefix("0.0.0.0/8")).With(netip.MustParsePrefix("0.0.0.0/9"), struct{}{}),
	})
	apply(t, plane, changed)
	want := []string{"0.0.0.0/9", "10.244.0.0/23", "10.244.2.0/24", "192.0.2.7", "255.255.255.0/24"}
	if got := listedIn(t, "cluster4"); !slices.Equal(got, want) {
		t.Fatalf("cluster4 has %v, want %v", got, want)
	}
	if now := chainHandle(t); now != before {
		t.Fatal("the chain was replaced")
	}
	apply(t, plane, wanted)
	apply(t, plane, masquerading(&masquerade.Plan{Pods: prefixMap("0.0.0.0/0", "::/0")}))
	for set, want := range map[string][]string{"pods4": {"0.0.0.0/0"}, "pods6": {"::/0"}, "cluster4": nil, "cluster6": nil} {
		if got := listedIn(t, set); !slices.Equal(got, want) {
			t.Fatalf("%s has %v, want %v", set, got, want)
		}
	}
	apply(t, plane, wanted)
	if now := chainHandle(t); now != before {
		t.Fatal("the chain was replaced")
	}
}

// chainHandle is text, since the library does not return it: nft numbers what it
// makes.
func chainHandle(t testing.TB) string {
	t.Helper()
	for line := range strings.Lines(listed(t, "-a", "list", "table", "inet", TableName)) {
		if strings.Contains(line, "chain postrouting") {
			return line
		}
	}
	t.Fatal("no chain")
	return ""
}

// TestNothingToDo applies the same plan on a thread whose namespace is empty,
// and must not notice.
func TestNothingToDo(t *testing.T) {
	other := netnstest.New(t)
	netnstest.Enter(t)
	plane, wanted := New(), example()
	apply(t, plane, wanted)
	other.Do(func() {
		if _, err := plane.Apply(t.Context(), wanted); err != nil {
			t.Error(err)
		}
		if tables, err := (&nft.Conn{}).ListTables(); err != nil || len(tables) != 0 {
			t.Errorf("there are tables %v (%v)", tables, err)
		}
	})
}

// TestStart replaces what an earlier process left, of whatever form, and leaves
// what is not ours. That may be of a newer nft, with notes that nobody here can
// read: nothing reads it (kubernetes#136786).
func TestStart(t *testing.T) {
	netnstest.Enter(t)
	conn := &nft.Conn{}
	foreign := conn.AddTable(&nft.Table{Family: nft.TableFamilyINet, Name: "foreign"})
	theirs := conn.AddChain(&nft.Chain{Table: foreign, Name: "theirs"})
	conn.AddRule(&nft.Rule{Table: foreign, Chain: theirs, UserData: []byte{250, 200, 1}, Exprs: then(expr.VerdictReturn, "")})
	old := conn.AddTable(ourTable())
	conn.AddChain(&nft.Chain{Table: old, Name: "of-another-schema"})
	must(t, conn.Flush())
	apply(t, New(), example())
	apply(t, New(), example())
	chains, err := conn.ListChains()
	must(t, err)
	var names []string
	for _, chain := range chains {
		if strings.HasPrefix(chain.Name, "service") || strings.HasPrefix(chain.Name, "policy") || strings.HasPrefix(chain.Name, "dns") {
			continue
		}
		names = append(names, chain.Table.Name+" "+chain.Name)
	}
	slices.Sort(names)
	want := []string{
		"fairlead forward", "fairlead from-pod", "fairlead hostport", "fairlead input", "fairlead loopback", "fairlead loopback-delivered", "fairlead output", "fairlead postrouting", "fairlead prerouting", "fairlead raw", "fairlead raw-output",
		"foreign theirs",
	}
	if !slices.Equal(names, want) {
		t.Fatalf("chains %v, want %v", names, want)
	}
}

// TestTableRemoved: a change that finds no table makes it again.
func TestTableRemoved(t *testing.T) {
	netnstest.Enter(t)
	plane := New()
	apply(t, plane, example())
	conn := &nft.Conn{}
	conn.DelTable(ourTable())
	must(t, conn.Flush())
	apply(t, plane, masquerading(&masquerade.Plan{Pods: ranges().Pods}))
	if got := listedIn(t, "pods4"); !slices.Equal(got, []string{"10.244.1.0/24"}) {
		t.Fatalf("pods4 has %v", got)
	}
}

// TestManyNodes needs several messages for one set.
func TestManyNodes(t *testing.T) {
	netnstest.Enter(t)
	wanted := many(5000)
	plane := New()
	apply(t, plane, wanted)
	if n := len(listedIn(t, "cluster6")); n != 5000 {
		t.Fatalf("%d elements, want 5000", n)
	}
	apply(t, plane, masquerading(&masquerade.Plan{}))
	if n := len(listedIn(t, "cluster6")); n != 0 {
		t.Fatalf("%d elements, want none", n)
	}
}

func many(nodes int) *plan.Node {
	wanted := ranges()
	wanted.Cluster = prefixMap()
	for n := range nodes {
		wanted.Cluster = wanted.Cluster.
			With(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24), struct{}{}).
			With(netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%x::/64", n)), struct{}{})
	}
	return masquerading(wanted)
}
