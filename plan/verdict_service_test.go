package plan_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// withServices adds to threeNodes Service web, whose endpoints are the pod of
// node a, one on node c and one that is outside, and Service idle without
// endpoints.
func withServices(change func(*model.Service)) *model.Snapshot {
	addr := netip.MustParseAddr
	snapshot := threeNodes()
	web := &model.Service{
		ServiceKey: model.ServiceKey{Namespace: "default", Name: "web"}, ClusterIPs: []netip.Addr{addr("10.96.0.1")},
		ExternalIPs: []netip.Addr{addr("198.51.100.77")}, LoadBalancerIPs: []netip.Addr{addr("198.51.100.78")},
		Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80, NodePort: 30080}},
	}
	change(web)
	idle := &model.Service{
		ServiceKey: model.ServiceKey{Namespace: "default", Name: "idle"}, ClusterIPs: []netip.Addr{addr("10.96.0.2")},
		Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80}},
	}
	slice := &model.EndpointSlice{
		SliceKey: model.SliceKey{Namespace: "default", Name: "web"}, Service: "web",
		Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 8080}},
	}
	for _, at := range [][2]string{{"10.244.0.5", "a"}, {"10.244.2.9", "c"}, {"203.0.113.9", ""}} {
		slice.Endpoints = append(slice.Endpoints, model.Endpoint{Address: addr(at[0]), Node: at[1], Ready: true, Serving: true})
	}
	snapshot.Services = snapshot.Services.With(web.ServiceKey, web).With(idle.ServiceKey, idle)
	snapshot.Slices = snapshot.Slices.With(slice.SliceKey, slice)
	snapshot.ServiceCIDRs = snapshot.ServiceCIDRs.With("a", &model.ServiceCIDR{Name: "a", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}})
	return snapshot
}

// TestVerdictOfServices: where node a leads packets, and with what source.
func TestVerdictOfServices(t *testing.T) {
	addr, to := netip.MustParseAddr, netip.MustParseAddrPort
	own, remote, outside := to("10.244.0.5:8080"), to("10.244.2.9:8080"), to("203.0.113.9:8080")
	const pod, node, client = "10.244.0.6", "192.0.2.1", "203.0.113.1"
	all := []netip.AddrPort{own, remote, outside}
	hop := func(pod netip.AddrPort, masquerade bool, as string) plan.Hop {
		h := plan.Hop{Reachable: true, Pod: pod, Masquerade: masquerade}
		switch pod {
		case own:
			h.Device = "fl1"
		case remote:
			h.Device, h.Via, h.MTU, h.Remote = "fairlead-vx4", addr("10.244.2.0"), 1450, addr("198.51.100.3")
		}
		if as != "" {
			h.As = addr(as)
		}
		return h
	}
	local := func(s *model.Service) { s.ExternalLocal = true }
	some := func(s *model.Service) { s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")} }
	tests := []struct {
		name                string
		change              func(*model.Service)
		source, destination string
		port                uint16
		choices             []netip.AddrPort
		backend             netip.AddrPort
		want                plan.Hop
	}{
		{"a pod keeps its address", nil, pod, "10.96.0.1", 80, all, remote, hop(remote, false, "")},
		{"a pod that reaches itself does not", nil, "10.244.0.5", "10.96.0.1", 80, all, own, hop(own, true, "192.0.2.1")},
		{"nor one that reaches the outside", nil, pod, "10.96.0.1", 80, all, outside, hop(outside, true, "")},
		{"the node", nil, node, "10.96.0.1", 80, all, own, hop(own, true, "192.0.2.1")},
		{"from outside to the ClusterIP", nil, client, "10.96.0.1", 80, all, remote, hop(remote, true, "")},
		{"from outside to the node port", nil, client, "192.0.2.1", 30080, all, own, hop(own, true, "192.0.2.1")},
		{"not to the node port at another address", nil, client, "192.0.2.77", 30080, nil, own, plan.Hop{Reachable: true}},
		{"a pod to an external address", nil, pod, "198.51.100.77", 80, all, remote, hop(remote, true, "")},
		{"Local keeps the address of clients outside", local, client, "198.51.100.77", 80, []netip.AddrPort{own}, own, hop(own, false, "")},
		{"Local sends pods anywhere, as themselves", local, pod, "198.51.100.77", 80, all, remote, hop(remote, false, "")},
		{"Local sends the node anywhere, masqueraded", local, node, "198.51.100.77", 80, all, remote, hop(remote, true, "")},
		{"who may not call is dropped", some, client, "198.51.100.78", 80, nil, own, plan.Hop{Dropped: true}},
		{"who may is not", some, pod, "198.51.100.78", 80, all, remote, hop(remote, true, "")},
		{"ranges are for load balancers alone", some, client, "192.0.2.1", 30080, all, remote, hop(remote, true, "")},
		{"no endpoints", nil, pod, "10.96.0.2", 80, nil, own, plan.Hop{}},
		{"another port", nil, pod, "10.96.0.1", 81, nil, own, plan.Hop{}},
		{"no Service's", nil, pod, "10.96.7.7", 80, nil, own, plan.Hop{Dropped: true}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.change == nil {
				test.change = func(*model.Service) {}
			}
			computed := plan.Compute(nil, withServices(test.change), "a")
			if len(computed.Problems) > 0 {
				t.Fatalf("problems %v", computed.Problems)
			}
			packet := plan.Packet{
				Source: addr(test.source), Destination: addr(test.destination), Protocol: model.TCP, Port: test.port, Backend: test.backend,
			}
			if got := plan.Choices(computed, packet); !slices.Equal(got, test.choices) {
				t.Errorf("choices %v, want %v", got, test.choices)
			}
			if got := plan.Verdict(computed, packet); got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}
