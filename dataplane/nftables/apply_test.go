package nftables

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/antispoof"
	"github.com/fairlead-net/fairlead/plan/hostport"
)

// TestRefused: an element that the kernel refuses is named, all others are in,
// and it goes in itself once it can: a range that overlaps another, at the start
// and later.
func TestRefused(t *testing.T) {
	netnstest.Enter(t)
	good := masquerading(ranges())
	bad := masquerading(ranges())
	bad.Masquerade.Cluster = bad.Masquerade.Cluster.With(netip.MustParsePrefix("10.244.0.0/25"), struct{}{})
	bad.AntiSpoof.Sources = bad.AntiSpoof.Sources.With(podSource(netip.MustParseAddr("10.244.1.3")), struct{}{})
	for _, before := range []*plan.Node{nil, good} {
		plane := New()
		if before != nil {
			apply(t, plane, before)
		}
		for range 2 {
			problems, err := plane.Apply(t.Context(), bad)
			if err != nil || len(problems) != 1 || !strings.HasPrefix(problems[0].Field, "masquerade not to 10.244.0.0/2") || problems[0].Name != "self" {
				t.Fatalf("problems %v, error %v", problems, err)
			}
			if got := listedIn(t, "cluster4"); len(got) != 6 {
				t.Fatalf("cluster4 has %v", got)
			}
			if got := listedIn(t, "sources4"); len(got) != 1 {
				t.Fatalf("sources4 has %v", got)
			}
		}
		apply(t, plane, good)
		if got := listedIn(t, "cluster4"); len(got) != 6 {
			t.Fatalf("cluster4 has %v", got)
		}
	}
	table, err := tableHandle()
	must(t, err)
	for range 2 { // sets of ranges have either name once
		if problems, err := New().Apply(t.Context(), bad); err != nil || len(problems) != 1 {
			t.Fatalf("a start: problems %v, error %v", problems, err)
		}
	}
	if now, err := tableHandle(); err != nil || now != table {
		t.Errorf("as an element is refused the table is removed as a whole: %d became %d (%v)", table, now, err)
	}
}

// TestOneElement: what one pod or port changes is one element of each set, in a
// table that stays.
func TestOneElement(t *testing.T) {
	netnstest.Enter(t)
	plane, wanted := New(), example()
	apply(t, plane, wanted)
	before := chainHandle(t)
	next := *wanted
	next.HostPort = &hostport.Plan{
		Own: wanted.HostPort.Own, Hairpins: wanted.HostPort.Hairpins,
		Ports: wanted.HostPort.Ports.
			With(port(model.TCP, "0.0.0.0:80"), netip.MustParseAddrPort("10.244.1.9:9")).
			With(port(model.UDP, "192.0.2.1:81"), netip.MustParseAddrPort("10.244.1.9:10")).
			Without(port(model.TCP, "[::]:80")),
	}
	next.AntiSpoof = &antispoof.Plan{Sources: wanted.AntiSpoof.Sources.
		Without(podSource(netip.MustParseAddr("fd00:1::2"))).With(podSource(netip.MustParseAddr("fd00:1::9")), struct{}{})}
	apply(t, plane, &next)
	for set, want := range map[string][]string{
		"hostports4": {"tcp . 80 : 10.244.1.9 . 9"}, "hostports6": nil,
		"hostip-ports4": {"192.0.2.1 . tcp . 81 : 10.244.1.2 . 8081", "192.0.2.1 . udp . 81 : 10.244.1.9 . 10"},
		"sources6":      {`fd00:1::9 . 02:00:00:00:00:01 . "fl0123456789abc"`},
	} {
		if got := inSet(t, set); !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", set, got, want)
		}
	}
	if now := chainHandle(t); now != before {
		t.Error("the chain was replaced")
	}
}

// inSet are the elements of a set or map, as nft writes them.
func inSet(t *testing.T, name string) (found []string) {
	t.Helper()
	list := listed(t, "list", "table", "inet", TableName)
	_, list, _ = strings.Cut(list, " "+name+" {\n")
	list, _, _ = strings.Cut(list, "\n\t}\n")
	_, list, ok := strings.Cut(list, "elements = {")
	if !ok {
		return nil
	}
	for _, element := range strings.Split(strings.TrimRight(list, " }"), ",") {
		found = append(found, strings.TrimSpace(element))
	}
	slices.Sort(found)
	return found
}

// TestRulesChange: new settings change rules; the chain stays, lest connections
// have a moment without, and so do the elements.
func TestRulesChange(t *testing.T) {
	netnstest.Enter(t)
	plane, wanted := New(), example()
	apply(t, plane, wanted)
	before := chainHandle(t)
	apply(t, plane, otherwise(wanted))
	list := listed(t, "list", "chain", "inet", TableName, "postrouting")
	for _, want := range []string{
		"@excluded4 counter packets 0 bytes 0 masquerade comment", "@excluded6 counter packets 0 bytes 0 snat ip6 to 2001:db8::7 comment",
		"@excluded4 udp dport 2000 counter packets 0 bytes 0 masquerade to :2001-65534 comment",
		"@excluded6 udp dport 65535 counter packets 0 bytes 0 snat ip6 to [2001:db8::7]:2001-65534 comment",
	} {
		if strings.Count(list, want) != 1 {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	if strings.Contains(list, "192.0.2.1") || strings.Contains(list, "random") || strings.Contains(list, "8285") || strings.Count(list, "\n") != 15 {
		t.Errorf("something is left of the old rules:\n%s", list)
	}
	if now := chainHandle(t); now != before {
		t.Error("the chain was replaced")
	}
	if got := listedIn(t, "cluster4"); len(got) != 6 {
		t.Errorf("cluster4 has %v", got)
	}
}

// TestElementRemoved: a change that meets a table that someone has changed makes
// it again.
func TestElementRemoved(t *testing.T) {
	netnstest.Enter(t)
	plane, wanted := New(), example()
	apply(t, plane, wanted)
	conn := &nft.Conn{}
	conn.FlushSet(&nft.Set{Table: ourTable(), Name: "sources4"})
	must(t, conn.Flush())
	next := *wanted
	next.AntiSpoof = &antispoof.Plan{Sources: wanted.AntiSpoof.Sources.
		Without(podSource(netip.MustParseAddr("10.244.1.2"))).With(podSource(netip.MustParseAddr("10.244.1.4")), struct{}{})}
	apply(t, plane, &next)
	if got := inSet(t, "sources4"); len(got) != 1 || !strings.Contains(got[0], "10.244.1.4") {
		t.Errorf("sources4 has %q", got)
	}
}

// TestFlushed: a ruleset that someone flushes is noticed, and the table made
// again though the plan is the same. What the plane itself does is no
// disturbance.
func TestFlushed(t *testing.T) {
	here := netnstest.Enter(t)
	plane, wanted := New(), example()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	here.Go(func() { ended <- plane.Run(ctx) })
	apply(t, plane, wanted)
	for disturbed := false; !disturbed; { // until Run listens
		conn := &nft.Conn{}
		conn.DelTable(conn.AddTable(ourTable()))
		must(t, conn.Flush())
		disturbed = told(plane, 50*time.Millisecond)
	}
	apply(t, plane, wanted)
	apply(t, plane, masquerading(ranges()))
	apply(t, New(), wanted) // as another process that starts would
	apply(t, plane, wanted)
	if told(plane, 50*time.Millisecond) {
		t.Error("the plane has disturbed itself")
	}
	listed(t, "flush", "ruleset")
	if !told(plane, 10*time.Second) {
		t.Fatal("nobody noticed that the ruleset was flushed")
	}
	apply(t, plane, wanted)
	if got := listedIn(t, "cluster4"); len(got) != 6 {
		t.Errorf("cluster4 has %v", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestGoneBeforeAnybodyListens: the first table is made before Run listens, and
// what becomes of it until then is noticed, but not what the plane does.
func TestGoneBeforeAnybodyListens(t *testing.T) {
	for name, test := range map[string]struct {
		meanwhile func(*testing.T, *Plane)
		disturbed bool
	}{
		"nothing": {func(*testing.T, *Plane) {}, false},
		"further plans": {func(t *testing.T, plane *Plane) {
			apply(t, plane, masquerading(ranges()))
			apply(t, plane, example())
		}, false},
		"tables of others": {func(t *testing.T, _ *Plane) {
			conn := &nft.Conn{}
			conn.AddTable(&nft.Table{Family: nft.TableFamilyINet, Name: "foreign"})
			must(t, conn.Flush())
		}, false},
		"flushed": {func(t *testing.T, _ *Plane) { listed(t, "flush", "ruleset") }, true},
		"flushed and made by somebody": {func(t *testing.T, _ *Plane) {
			listed(t, "flush", "ruleset")
			conn := &nft.Conn{}
			conn.AddTable(ourTable())
			must(t, conn.Flush())
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			here := netnstest.Enter(t)
			plane := New()
			apply(t, plane, example())
			test.meanwhile(t, plane)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			here.Go(func() { ended <- plane.Run(ctx) })
			patience := 300 * time.Millisecond
			if test.disturbed {
				patience = 10 * time.Second
			}
			if got := told(plane, patience); got != test.disturbed {
				t.Errorf("disturbed: %v", got)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

func told(plane *Plane, patience time.Duration) bool {
	select {
	case <-plane.Disturbed():
		return true
	case <-time.After(patience):
		return false
	}
}

// TestRemove: only what is ours goes, whether it is there or not, and the plane
// can begin again.
func TestRemove(t *testing.T) {
	netnstest.Enter(t)
	conn, plane := &nft.Conn{}, New()
	must(t, plane.Remove())
	conn.AddTable(&nft.Table{Family: nft.TableFamilyINet, Name: "foreign"})
	must(t, conn.Flush())
	for range 2 {
		apply(t, plane, example())
		if got := listedIn(t, "cluster4"); len(got) != 6 {
			t.Fatalf("cluster4 has %v", got)
		}
		must(t, plane.Remove())
		must(t, plane.Remove())
		tables, err := conn.ListTables()
		if err != nil || len(tables) != 1 || tables[0].Name != "foreign" {
			t.Fatalf("there are tables %v (%v)", tables, err)
		}
	}
}
