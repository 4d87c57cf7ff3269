package agent

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// TestAddressOfBridge: the bridge of another network has an address of the
// pods' range, which is not handed out.
func TestAddressOfBridge(t *testing.T) {
	needNode(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "cni0"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	must(t, netlink.LinkAdd(bridge))
	t.Cleanup(func() { must(t, netlink.LinkDel(bridge)) })
	must(t, netlink.LinkSetUp(bridge))
	addr, err := netlink.ParseAddr("10.244.1.1/24")
	must(t, err)
	must(t, netlink.AddrAdd(bridge, addr))
	a := start(t, newCluster("10.244.1.0/24"), t.TempDir())
	if got := a.add(t, "new"); got != "10.244.1.2" {
		t.Errorf("got %s, the first that the bridge does not have is 10.244.1.2", got)
	}
}
