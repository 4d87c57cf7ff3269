package plan_test

import (
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// configured is withServices under a configuration of all Services.
func configured(change func(*model.Services)) *model.Snapshot {
	snapshot := withServices(func(*model.Service) {})
	network := *snapshot.Network
	change(&network.Services)
	snapshot.Network = &network
	return snapshot
}

// TestVerdictOfServiceOptions: what the configuration changes of packets to
// Services on node a.
func TestVerdictOfServiceOptions(t *testing.T) {
	addr := netip.MustParseAddr
	own := netip.MustParseAddrPort("10.244.0.5:8080")
	const pod, node, localhost, client = "10.244.0.6", "192.0.2.1", "127.0.0.1", "203.0.113.1"
	ports := func(s *model.Services) { s.LocalhostNodePorts = true }
	all := func(s *model.Services) { s.MasqueradeAll = true }
	elsewhere := func(s *model.Services) {
		s.NodePortAddresses = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	}
	masqueraded := plan.Hop{Reachable: true, Pod: own, Device: "fl1", Masquerade: true, As: addr(node)}
	untouched := plan.Hop{Reachable: true}
	tests := []struct {
		name                string
		change              func(*model.Services)
		source, destination string
		port                uint16
		want                plan.Hop
	}{
		{"a pod to a ClusterIP takes the node's address", all, pod, "10.96.0.1", 80, masqueraded},
		{"the node's node port at 127.0.0.1", ports, localhost, localhost, 30080, masqueraded},
		{"not by default", func(*model.Services) {}, localhost, localhost, 30080, untouched},
		{"nor for others", ports, client, localhost, 30080, plan.Hop{Dropped: true}},
		{"nor another port", ports, localhost, localhost, 30081, untouched},
		{"not at an address that is in no such network", elsewhere, client, node, 30080, untouched},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			computed := plan.Compute(nil, configured(test.change), "a")
			packet := plan.Packet{Source: addr(test.source), Destination: addr(test.destination), Protocol: model.TCP, Port: test.port, Backend: own}
			got := plan.Verdict(computed, packet)
			if !got.Pod.IsValid() { // of the rest, other tests
				got = plan.Hop{Reachable: got.Reachable, Dropped: got.Dropped}
			}
			if got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// TestLocalhostSysctls: they come with the option, and go with it.
func TestLocalhostSysctls(t *testing.T) {
	const path = "net/ipv4/conf/all/route_localnet"
	var node *plan.Node
	for _, on := range []bool{false, true, true, false} {
		node = plan.Compute(node, configured(func(s *model.Services) { s.LocalhostNodePorts = on }), "a")
		if value, _ := node.Route.Sysctls.Get(path); (value == "1") != on {
			t.Errorf("with %t, %s is %q", on, path, value)
		}
	}
}
