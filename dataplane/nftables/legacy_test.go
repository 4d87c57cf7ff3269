package nftables

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

// TestLegacy: tables of iptables-legacy are told of by how to list them.
func TestLegacy(t *testing.T) {
	for _, c := range []struct {
		ip, ip6 string
		want    []string
	}{
		{"", "", nil},
		{"nat\nfilter\n", "", []string{"iptables-legacy -S FORWARD"}},
		{"", "filter\n", []string{"ip6tables-legacy -S FORWARD"}},
		{"raw\n", "mangle\nfilter\n", []string{"iptables-legacy-save", "ip6tables-legacy -S FORWARD"}},
	} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "ip_tables_names"), []byte(c.ip), 0o600))
		if c.ip6 != "" { // without IPv6 there is no such file
			must(t, os.WriteFile(filepath.Join(dir, "ip6_tables_names"), []byte(c.ip6), 0o600))
		}
		if got, err := legacyIn(dir); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("of %q and %q: %q, %v, want %q", c.ip, c.ip6, got, err, c.want)
		}
	}
}

// TestOthersLegacy: those of this kernel; what iptables-nft makes is not among them.
func TestOthersLegacy(t *testing.T) {
	netnstest.Enter(t)
	f := NewFirewall()
	shell(t, "iptables -P FORWARD DROP")
	if got, err := f.Legacy(); err != nil || len(got) > 0 {
		t.Skipf("there are tables in a namespace that is new: %q, %v", got, err) // before Linux 5.15
	}
	if out, err := exec.Command("iptables-legacy", "-P", "FORWARD", "DROP").CombinedOutput(); err != nil {
		t.Skipf("no iptables-legacy here: %v: %s", err, out)
	}
	if got, err := f.Legacy(); err != nil || !slices.Equal(got, []string{"iptables-legacy -S FORWARD"}) {
		t.Errorf("%q, %v", got, err)
	}
}
