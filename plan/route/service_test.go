package route

import (
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func serviceCIDR(name string, prefixes ...string) *model.ServiceCIDR {
	cidr := &model.ServiceCIDR{Name: name}
	for _, prefix := range prefixes {
		cidr.Prefixes = append(cidr.Prefixes, netip.MustParsePrefix(prefix))
	}
	return cidr
}

// TestRoutesToClusterIPs: each range of a family that the node has an uplink of
// has a route by it, which goes with the range, and yields to another's.
func TestRoutesToClusterIPs(t *testing.T) {
	snapshot := &model.Snapshot{
		Network: model.DefaultNetwork(),
		Nodes:   model.MapOf(map[string]*model.Node{"self": peer("self", []string{"192.0.2.1", "2001:db8::1"}, "10.244.0.0/24")}),
		Links: model.MapOf(map[string]*model.Link{
			"eth0": link("eth0", 1500, "192.0.2.1/24"), "eth1": link("eth1", 1500, "2001:db8::1/64", "10.99.0.1/16"),
		}),
	}
	var plan *Plan
	expect := func(when string, cidr *model.ServiceCIDR, want map[string]Route) {
		t.Helper()
		next := *snapshot
		next.ServiceCIDRs = next.ServiceCIDRs.With(cidr.Name, cidr)
		plan, _ = Compute(plan, &next, "self")
		found := map[string]Route{}
		for prefix, route := range plan.Routes.All() {
			if !route.Unreachable {
				found[prefix.String()] = route
			}
			if _, yields := plan.Yields.Get(prefix); yields == route.Unreachable {
				t.Errorf("%s: that the route to %s yields is %t", when, prefix, yields)
			}
		}
		for prefix, route := range want {
			if found[prefix] != route {
				t.Errorf("%s: the route to %s is %+v, want %+v", when, prefix, found[prefix], route)
			}
			delete(found, prefix)
		}
		if len(found) > 0 {
			t.Errorf("%s: there are routes %v", when, found)
		}
	}
	four := Route{Device: "eth0", Source: netip.MustParseAddr("192.0.2.1")}
	six := Route{Device: "eth1", Source: netip.MustParseAddr("2001:db8::1")}
	expect("both families", serviceCIDR("a", "10.96.0.0/16", "fd96::/112"), map[string]Route{"10.96.0.0/16": four, "fd96::/112": six})
	expect("another range", serviceCIDR("a", "10.97.0.0/16"), map[string]Route{"10.97.0.0/16": four})
	expect("around a network of a link", serviceCIDR("a", "10.96.0.0/12"), map[string]Route{"10.96.0.0/12": four})
	expect("that network", serviceCIDR("a", "10.99.0.0/16"), nil)
	expect("in that network", serviceCIDR("a", "10.99.7.0/24"), nil)
	expect("the range of pods", serviceCIDR("a", "10.244.0.0/24"), nil)
	snapshot.Nodes = snapshot.Nodes.With("self", peer("self", []string{"192.0.2.1"}, "10.244.0.0/24"))
	expect("without an address of the family", serviceCIDR("a", "fd96::/112"), nil)
}
