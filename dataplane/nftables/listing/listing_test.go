package listing

import (
	"fmt"
	"os/exec"
	"slices"
	"testing"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

// TestChains: of base chains it is told where they are, and what becomes of the rest.
func TestChains(t *testing.T) {
	netnstest.Enter(t)
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	const table = `table ip mine {
	chain base { type filter hook forward priority -5; policy drop; }
	chain other { }
	}
	table inet mine { chain nat { type nat hook prerouting priority 7; }
	}`
	if out, err := exec.Command("nft", table).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for family, want := range map[nft.TableFamily][]string{
		nft.TableFamilyIPv4: {"mine base filter 2 -5 0", "mine other"}, nft.TableFamilyINet: {"mine nat nat 0 7 1"}, nft.TableFamilyIPv6: nil,
	} {
		chains, err := Chains(family)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, chain := range chains {
			text := chain.Table.Name + " " + chain.Name
			if chain.Hooknum != nil {
				text += fmt.Sprint(" ", chain.Type, " ", *chain.Hooknum, " ", *chain.Priority, " ", *chain.Policy)
			}
			if got = append(got, text); chain.Table.Family != family {
				t.Errorf("%s is of family %d", text, chain.Table.Family)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("of family %d: %q, want %q", family, got, want)
		}
	}
}

// TestRules: all rules of a chain are there, and of each all that it says, or at least
// that it says something.
func TestRules(t *testing.T) {
	netnstest.Enter(t)
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	const table = `table inet mine { chain c {
		meta l4proto tcp ct original proto-dst 80 counter accept comment "first"
		ct reply ip daddr 10.0.0.1 jump d
		rt mtu 1280 drop
	}
	chain d { }
	}`
	if out, err := exec.Command("nft", table).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	of := func(chain string) []*nft.Rule {
		found, err := Rules(&nft.Chain{Name: chain, Table: &nft.Table{Name: "mine", Family: nft.TableFamilyINet}})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if none, empty := of("none"), of("d"); len(none)+len(empty) != 0 {
		t.Errorf("there are %v and %v", none, empty)
	}
	found := of("c")
	if len(found) != 3 {
		t.Fatalf("there are %d rules", len(found))
	}
	if comment, _ := userdata.GetString(found[0].UserData, userdata.TypeComment); comment != "first" || found[0].Handle == 0 {
		t.Errorf("the first has handle %d and comment %q", found[0].Handle, comment)
	}
	if ct, ok := found[0].Exprs[2].(*expr.Ct); !ok || ct.Key != expr.CtKeyPROTODST || ct.Register == 0 || ct.Direction != 0 {
		t.Errorf("the first is %+v", found[0].Exprs)
	}
	if ct, ok := found[1].Exprs[0].(*expr.Ct); !ok || ct.Key != unix.NFT_CT_DST_IP || ct.Direction != 1 {
		t.Errorf("the second begins with %+v", found[1].Exprs[0])
	}
	if jump, ok := found[1].Exprs[len(found[1].Exprs)-1].(*expr.Verdict); !ok || jump.Kind != expr.VerdictJump || jump.Chain != "d" {
		t.Errorf("the second ends with %+v", found[1].Exprs)
	}
	opaque := false
	for _, e := range found[2].Exprs {
		opaque = opaque || e == Opaque{Name: "rt"}
	}
	if !opaque {
		t.Errorf("the third is %+v", found[2].Exprs)
	}
}
