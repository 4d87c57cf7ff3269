package agent

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
)

// TestAddressOnLoopback: where the node's address is on lo, as in networks that are
// routed to each machine, --node-ip is right, and is not what is told to change.
func TestAddressOnLoopback(t *testing.T) {
	netnstest.Enter(t)
	prefix := netip.MustParsePrefix("10.244.0.0/24")
	snapshot := &model.Snapshot{Network: model.DefaultNetwork()}
	snapshot.Nodes = snapshot.Nodes.With("a", &model.Node{
		Name: "a", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")}, PodCIDRs: []netip.Prefix{prefix},
	})
	a := &attacher{node: "a"}
	if got := a.missing(snapshot); !strings.Contains(got, "give the kubelet the right --node-ip") {
		t.Errorf("of an address that is nowhere: %s", got)
	}
	for _, address := range []string{"2001:db8::9/128", "192.0.2.9/32"} {
		if out, err := exec.Command("ip", "address", "replace", address, "dev", "lo").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := a.missing(snapshot); !strings.Contains(got, "ip address add "+address+" dev eth0") || strings.Contains(got, "--node-ip") {
			t.Errorf("with %s on lo: %s", address, got)
		}
	}
}
