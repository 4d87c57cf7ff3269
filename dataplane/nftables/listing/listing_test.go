package listing

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"testing"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	rtnl "github.com/vishvananda/netlink"
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
		nft.TableFamilyUnspecified: {"mine base filter 2 -5 0", "mine other", "mine nat nat 0 7 1"},
		nft.TableFamilyIPv4:        {"mine base filter 2 -5 0", "mine other"}, nft.TableFamilyINet: {"mine nat nat 0 7 1"}, nft.TableFamilyIPv6: nil,
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
			if got = append(got, text); family != nft.TableFamilyUnspecified && chain.Table.Family != family {
				t.Errorf("%s is of family %d", text, chain.Table.Family)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("of family %d: %q, want %q", family, got, want)
		}
	}
}

// TestInterrupted: a chain goes and another one comes in one transaction, so that a listing
// has both or none of them only if it was interrupted. If all is in one message, the one
// that ends it says so alone.
func TestInterrupted(t *testing.T) {
	netnstest.Enter(t)
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	const early, late = "add chain inet a early; delete chain inet z late\n", "add chain inet z late; delete chain inet a early\n"
	tables := "add table inet a; add table inet still; add table inet z; add chain inet z late"
	for n := range 30 {
		tables += fmt.Sprintf("; add chain inet still c%d", n)
	}
	if out, err := exec.Command("nft", tables).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	churn(t, early+late)
	interrupted := 0
	for began := time.Now(); interrupted < 10 && time.Since(began) < 20*time.Second; {
		chains, err := listChains(nft.TableFamilyINet)
		if errors.Is(err, rtnl.ErrDumpInterrupted) {
			interrupted++
			continue
		}
		if err != nil || len(chains) != 31 {
			t.Fatalf("there are %d chains, %v", len(chains), err)
		}
	}
	if interrupted == 0 {
		t.Error("no listing was interrupted, so nothing was tested")
	}
}

// churn has nft carry out these lines over and over, until the test ends.
func churn(t *testing.T, lines string) {
	nft := exec.Command("nft", "-i") // of this namespace: a goroutine may be on a thread of another
	in, err := nft.StdinPipe()
	if err == nil {
		err = nft.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for err := error(nil); err == nil; time.Sleep(time.Millisecond) {
			_, err = io.WriteString(in, lines)
		}
	}()
	t.Cleanup(func() {
		_, _ = nft.Process.Kill(), nft.Wait() // which closes the pipe
		<-done
	})
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
