package nftables

import (
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

// TestOthersUnderChurn: a chain of others that comes and goes moves ours in the listings
// of the kernel, of which none of ours is left out for that.
func TestOthersUnderChurn(t *testing.T) {
	netnstest.Enter(t)
	before := "add table inet churn; add chain inet churn early" // listed before our table
	for n := range 40 {
		before += fmt.Sprintf("; add chain inet churn still%d", n)
	}
	shell(t, "nft '"+before+"'")
	plane := New()
	apply(t, plane, example())
	names := func() (names []string) {
		counters, err := plane.Counters()
		must(t, err)
		for _, counter := range counters {
			names = append(names, counter.Rule)
		}
		return names
	}
	want, all := names(), strings.Count(listed(t, "list", "table", "inet", TableName), "\tchain ")
	churn(t, "delete chain inet churn early\nadd chain inet churn early\n")
	for range 30 {
		if f, ok := readFormer(); !ok || len(f.chains) != all {
			t.Fatalf("read is %v: chains %v, which are %d, want %d chains", ok, f.chains, len(f.chains), all)
		}
		if got := names(); !slices.Equal(got, want) {
			t.Fatalf("counters are %q, want %q", got, want)
		}
	}
}

// churn has nft carry out these lines over and over, until the test ends.
func churn(t *testing.T, lines string) {
	nft := exec.Command("nft", "-i") // of this namespace: a goroutine may be on a thread of another
	in, err := nft.StdinPipe()
	must(t, err)
	must(t, nft.Start())
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
