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

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/masquerade"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func prefixes(texts ...string) (set model.Map[netip.Prefix, struct{}]) {
	for _, text := range texts {
		set = set.With(netip.MustParsePrefix(text), struct{}{})
	}
	return set
}

func apply(t testing.TB, plane *Plane, wanted *masquerade.Plan) {
	t.Helper()
	problems, err := plane.Apply(t.Context(), &plan.Node{Name: "self", Masquerade: wanted})
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

// elements are those of a set, as nft lists them.
func elements(t testing.TB, set string) (found []string) {
	t.Helper()
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

func example() *masquerade.Plan {
	return &masquerade.Plan{
		Pods: prefixes("10.244.1.0/24", "fd00:1::/64"),
		// Next to each other, alone, and at both ends of the space.
		Cluster: prefixes("0.0.0.0/8", "10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "192.0.2.7/32", "255.255.255.0/24",
			"::/64", "fd00:0::/64", "fd00:1::/64", "ffff:ffff:ffff:ffff::/64"),
	}
}

func TestListing(t *testing.T) {
	netnstest.Enter(t)
	apply(t, New(), example())
	const want = `table inet fairlead {
	set pods4 {
		type ipv4_addr
		flags interval
		comment "pods of this node (schema 1)"
		elements = { 10.244.1.0/24 }
	}

	set pods6 {
		type ipv6_addr
		flags interval
		comment "pods of this node (schema 1)"
		elements = { fd00:1::/64 }
	}

	set cluster4 {
		type ipv4_addr
		flags interval
		comment "pods of all nodes (schema 1)"
		elements = { 0.0.0.0/8, 10.244.0.0/24,
			     10.244.1.0/24, 10.244.2.0/24,
			     192.0.2.7, 255.255.255.0/24 }
	}

	set cluster6 {
		type ipv6_addr
		flags interval
		comment "pods of all nodes (schema 1)"
		elements = { ::/64,
			     fd00::/64,
			     fd00:1::/64,
			     ffff:ffff:ffff:ffff::/64 }
	}

	set unforwarded4 {
		type ipv4_addr
		flags constant,interval
		comment "link-local and multicast"
		elements = { 169.254.0.0/16, 224.0.0.0/4 }
	}

	set unforwarded6 {
		type ipv6_addr
		flags constant,interval
		comment "link-local and multicast"
		elements = { fe80::/10,
			     ff00::/8 }
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @pods4 ip daddr != @cluster4 ip daddr != @unforwarded4 counter packets 0 bytes 0 masquerade fully-random comment "from pods of this node to the outside: with the node's address"
		ip6 saddr @pods6 ip6 daddr != @cluster6 ip6 daddr != @unforwarded6 counter packets 0 bytes 0 masquerade fully-random comment "from pods of this node to the outside: with the node's address"
	}
}
`
	if got := listed(t, "list", "ruleset"); got != want {
		t.Fatalf("nft lists\n%s", got)
	}
}

// TestListingCanBeLoaded loads what nft lists, in another namespace, and lists
// it again.
func TestListingCanBeLoaded(t *testing.T) {
	other := netnstest.New(t)
	netnstest.Enter(t)
	apply(t, New(), example())
	ruleset := listed(t, "list", "ruleset")
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
	})
}

// TestOnlyElementsChange: the table stays, and with it its handle.
func TestOnlyElementsChange(t *testing.T) {
	netnstest.Enter(t)
	plane, wanted := New(), example()
	apply(t, plane, wanted)
	before := chainHandle(t)
	changed := &masquerade.Plan{
		Pods: wanted.Pods,
		// Overlaps what it replaces, above and below.
		Cluster: wanted.Cluster.
			Without(netip.MustParsePrefix("10.244.0.0/24")).Without(netip.MustParsePrefix("10.244.1.0/24")).
			With(netip.MustParsePrefix("10.244.0.0/23"), struct{}{}).
			Without(netip.MustParsePrefix("0.0.0.0/8")).With(netip.MustParsePrefix("0.0.0.0/9"), struct{}{}),
	}
	apply(t, plane, changed)
	want := []string{"0.0.0.0/9", "10.244.0.0/23", "10.244.2.0/24", "192.0.2.7", "255.255.255.0/24"}
	if got := elements(t, "cluster4"); !slices.Equal(got, want) {
		t.Fatalf("cluster4 has %v, want %v", got, want)
	}
	if now := chainHandle(t); now != before {
		t.Fatal("the chain was replaced")
	}
	apply(t, plane, wanted)
	apply(t, plane, &masquerade.Plan{Pods: prefixes("0.0.0.0/0", "::/0")})
	for set, want := range map[string][]string{"pods4": {"0.0.0.0/0"}, "pods6": {"::/0"}, "cluster4": nil, "cluster6": nil} {
		if got := elements(t, set); !slices.Equal(got, want) {
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
		if _, err := plane.Apply(t.Context(), &plan.Node{Masquerade: wanted}); err != nil {
			t.Error(err)
		}
		if tables, err := (&nft.Conn{}).ListTables(); err != nil || len(tables) != 0 {
			t.Errorf("there are tables %v (%v)", tables, err)
		}
	})
}

// TestStart replaces what an earlier process left, of whatever form, and leaves
// what is not ours.
func TestStart(t *testing.T) {
	netnstest.Enter(t)
	conn := &nft.Conn{}
	foreign := conn.AddTable(&nft.Table{Family: nft.TableFamilyINet, Name: "foreign"})
	conn.AddChain(&nft.Chain{Table: foreign, Name: "theirs"})
	old := conn.AddTable(ourTable())
	conn.AddChain(&nft.Chain{Table: old, Name: "of-another-schema"})
	must(t, conn.Flush())
	apply(t, New(), example())
	apply(t, New(), example())
	chains, err := conn.ListChains()
	must(t, err)
	var names []string
	for _, chain := range chains {
		names = append(names, chain.Table.Name+" "+chain.Name)
	}
	slices.Sort(names)
	if want := []string{"fairlead postrouting", "foreign theirs"}; !slices.Equal(names, want) {
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
	apply(t, plane, &masquerade.Plan{Pods: example().Pods})
	if got := elements(t, "pods4"); !slices.Equal(got, []string{"10.244.1.0/24"}) {
		t.Fatalf("pods4 has %v", got)
	}
}

// TestManyNodes needs several messages for one set.
func TestManyNodes(t *testing.T) {
	netnstest.Enter(t)
	wanted := many(5000)
	plane := New()
	apply(t, plane, wanted)
	if n := len(elements(t, "cluster6")); n != 5000 {
		t.Fatalf("%d elements, want 5000", n)
	}
	apply(t, plane, &masquerade.Plan{})
	if n := len(elements(t, "cluster6")); n != 0 {
		t.Fatalf("%d elements, want none", n)
	}
}

func many(nodes int) *masquerade.Plan {
	wanted := example()
	wanted.Cluster = prefixes()
	for n := range nodes {
		wanted.Cluster = wanted.Cluster.
			With(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24), struct{}{}).
			With(netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%x::/64", n)), struct{}{})
	}
	return wanted
}

// TestFeaturesOfThisKernel: what is there is not said to be missing, and the
// probe leaves nothing.
func TestFeaturesOfThisKernel(t *testing.T) {
	netnstest.Enter(t)
	if missing := missingFeature(); missing != "" {
		t.Fatalf("the kernel is said to lack %s", missing)
	}
	if tables, err := (&nft.Conn{}).ListTables(); err != nil || len(tables) != 0 {
		t.Fatalf("the probe left %v (%v)", tables, err)
	}
}

// TestUnsupported: what the kernel lacks is a Problem, not an error, and it is
// not tried again and again.
func TestUnsupported(t *testing.T) {
	plane := New()
	plane.unsupported = "something (Linux 5.2)"
	problems, err := plane.Apply(t.Context(), &plan.Node{Name: "self", Masquerade: example()})
	if err != nil || len(problems) != 1 || !strings.Contains(problems[0].Message, "Linux 5.2") {
		t.Fatalf("problems %v, error %v", problems, err)
	}
}

func BenchmarkFirstApply(b *testing.B) {
	netnstest.Enter(b)
	wanted := many(1000)
	for b.Loop() {
		apply(b, New(), wanted)
	}
}

func BenchmarkOneNodeChanges(b *testing.B) {
	netnstest.Enter(b)
	plane, wanted := New(), many(1000)
	extra := *wanted
	extra.Cluster = extra.Cluster.With(netip.MustParsePrefix("10.200.0.0/24"), struct{}{})
	apply(b, plane, wanted)
	for i := 0; b.Loop(); i++ {
		if i%2 == 0 {
			apply(b, plane, &extra)
		} else {
			apply(b, plane, wanted)
		}
	}
}
