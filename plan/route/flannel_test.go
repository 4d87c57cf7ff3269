package route

import (
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestBesideFlannel: the route to a node of flannel's yields until the node is
// not flannel's any more, and what is in the kernel of flannel is used.
func TestBesideFlannel(t *testing.T) {
	old := peer("b", []string{"192.0.2.2"}, "10.244.1.0/24")
	old.Flannel = "vxlan"
	snapshot := world(model.BackendVXLAN, old)
	snapshot.Links = snapshot.Links.
		With("flannel.1", link("flannel.1", 1450, "10.244.0.0/32")).
		With("cni0", link("cni0", 1450, "10.244.0.1/24"))
	plan, _ := Compute(nil, snapshot, "self")
	prefix := netip.MustParsePrefix("10.244.1.0/24")
	if _, yields := plan.Yields.Get(prefix); !yields {
		t.Errorf("the route to flannel's node does not yield")
	}
	if _, own := plan.Routes.Get(netip.MustParsePrefix("10.244.0.0/24")); own {
		t.Errorf("the range of flannel's bridge is taken from it")
	}
	for path, want := range map[string]string{
		"net/ipv4/conf/flannel.1/rp_filter":  "2",
		"net/ipv4/conf/cni0/proxy_arp":       "1",
		"net/ipv4/neigh/cni0/proxy_delay":    "0",
		"net/ipv4/conf/flannel.1/proxy_arp":  "",
		"net/ipv4/neigh/eth0/proxy_delay":    "",
		"net/ipv4/conf/eth0/proxy_arp":       "",
		"net/ipv6/conf/cni0/accept_ra":       "2",
		"net/ipv4/neigh/flannel.1/proxy_arp": "",
	} {
		if got, _ := plan.Sysctls.Get(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}

	moved := *old
	moved.Flannel = ""
	after := *snapshot
	after.Nodes = snapshot.Nodes.With("b", &moved)
	plan, _ = Compute(plan, &after, "self")
	if plan.Yields.Len() != 0 {
		t.Errorf("the route yields although the node has moved")
	}
	if route, _ := plan.Routes.Get(prefix); route.Device != "eth0" {
		t.Errorf("the route is %+v", route)
	}

	// After a reboot.
	self := *must(after.Nodes.Get("self"))
	self.Flannel = "vxlan"
	after.Nodes = after.Nodes.With("self", &self)
	if _, problems := Compute(plan, &after, "self"); len(problems) != 1 || problems[0].Reason != "PodCIDROnLink" {
		t.Errorf("with flannel's tunnel: %v", problems)
	}
	after.Links = after.Links.Without("flannel.1").Without("cni0")
	if _, problems := Compute(plan, &after, "self"); len(problems) != 1 || problems[0].Reason != "FlannelTunnelMissing" {
		t.Errorf("without flannel's tunnel: %v", problems)
	}
}
