package route

import (
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func TestWhy(t *testing.T) {
	self := peer("a", []string{"192.0.2.1", "2001:db8::1"}, "10.0.0.0/24", "fd00::/64")
	for name, test := range map[string]struct {
		peer   *model.Node
		change func(*model.Routing)
		way    Way
		want   string
	}{
		"direct": {peer("b", []string{"192.0.2.2"}, "10.0.1.0/24"), nil, Direct,
			"192.0.2.2 is on the network of eth0"},
		"direct, both families": {peer("b", []string{"192.0.2.2", "2001:db8::2"}, "10.0.1.0/24", "fd00:0:0:1::/64"), nil, Direct,
			"192.0.2.2 is on the network of eth0; 2001:db8::2 is on the network of eth0"},
		"behind a router": {peer("b", []string{"198.51.100.2"}, "10.0.1.0/24"), nil, ViaVXLAN,
			"198.51.100.2 is not on the network of eth0 (192.0.2.0/24); vxlan over IPv4"},
		"no direct routes": {peer("b", []string{"192.0.2.2"}, "10.0.1.0/24"), func(r *model.Routing) { r.DirectRouting = false }, ViaVXLAN,
			"spec.directRouting of the Network is false, though 192.0.2.2 is on the network of eth0; vxlan over IPv4"},
		"IPv6 of IPIP": {peer("b", []string{"198.51.100.2"}, "10.0.1.0/24", "fd00:0:0:1::/64"), func(r *model.Routing) { r.Backend = model.BackendIPIP }, ViaIPIP,
			"198.51.100.2 is not on the network of eth0 (192.0.2.0/24); ipip over IPv4; the peer has no IPv6 address; vxlan over IPv4"},
		"stranded": {peer("b", []string{"198.51.100.2"}, "10.0.1.0/24"), func(r *model.Routing) { r.Backend = model.BackendHostGW }, 0,
			"198.51.100.2 is not on the network of eth0 (192.0.2.1/24, 2001:db8::1/64), and backend host-gw has no tunnel"},
		"no address": {peer("b", nil, "10.0.1.0/24"), nil, 0, "the nodes have no address family in common"},
		"no pods":    {peer("b", []string{"192.0.2.2"}), nil, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			network := model.DefaultNetwork()
			if test.change != nil {
				test.change(&network.Routing)
			}
			plan, _ := Compute(nil, &model.Snapshot{
				Network: network,
				Nodes:   model.MapOf(map[string]*model.Node{"a": self, "b": test.peer}),
				Links:   model.MapOf(map[string]*model.Link{"eth0": link("eth0", 1500, "192.0.2.1/24", "2001:db8::1/64")}),
			}, "a")
			if why := plan.Why("b"); why != test.want {
				t.Errorf("got  %s\nwant %s", why, test.want)
			}
			way, _ := plan.Ways.Get("b")
			if way == ViaVXLAN && test.way == ViaIPIP { // of its families, the greater
				way = ViaIPIP
			}
			if way != test.way {
				t.Errorf("the way is %s", way)
			}
			if plan.Why("a") != "" || plan.Why("c") != "" {
				t.Error("of this node itself, or none, there is something to say")
			}
		})
	}
}
