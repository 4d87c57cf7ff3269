package nftables

import (
	"strings"
	"testing"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

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

// TestMissingFeature: the first that the kernel does not know is named, and the probe
// leaves nothing.
func TestMissingFeature(t *testing.T) {
	netnstest.Enter(t)
	table := &nft.Table{Family: nft.TableFamilyINet, Name: "fairlead-probe"}
	chain := func(kind nft.ChainType) func(*batch) error {
		return func(b *batch) error {
			b.AddChain(&nft.Chain{Name: string(kind), Table: table, Type: kind, Hooknum: nft.ChainHookPrerouting, Priority: nft.ChainPriorityRaw})
			return nil
		}
	}
	const missing = "chains that carry pigeons (Linux 99.1)"
	got := firstRefused(table, []feature{
		{"tables (Linux 3.14)", func(b *batch) error { b.AddTable(table); return nil }},
		{"filters (Linux 3.14)", chain(nft.ChainTypeFilter)},
		{missing, chain("pigeon")},
		{"whatever comes after", chain("hawk")},
	})
	if got != missing {
		t.Errorf("the kernel is said to lack %q", got)
	}
	if tables, err := (&nft.Conn{}).ListTables(); err != nil || len(tables) != 0 {
		t.Errorf("the probe left %v (%v)", tables, err)
	}
}

// TestUnsupported: what the kernel lacks is a Problem, not an error, and it is
// not tried again and again.
func TestUnsupported(t *testing.T) {
	plane := New()
	plane.unsupported = "something (Linux 5.2)"
	problems, err := plane.Apply(t.Context(), example())
	if err != nil || len(problems) != 1 || !strings.Contains(problems[0].Message, "Linux 5.2") {
		t.Fatalf("problems %v, error %v", problems, err)
	}
}
