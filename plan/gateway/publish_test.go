package gateway

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestAddresses: what the Network says comes first, then load balancers that lead to
// a gateway, then nodes on which one is ready.
func TestAddresses(t *testing.T) {
	service := model.ServiceKey{Namespace: "kube-system", Name: "fairlead-gateway"}
	addrs := func(texts ...string) (all []netip.Addr) {
		for _, text := range texts {
			all = append(all, netip.MustParseAddr(text))
		}
		return all
	}
	snapshot := &model.Snapshot{Network: model.DefaultNetwork()}
	slice := func(key model.ServiceKey, endpoints ...model.Endpoint) {
		s := &model.EndpointSlice{SliceKey: model.SliceKey(key), Service: key.Name, Endpoints: endpoints}
		snapshot.Slices = snapshot.Slices.With(s.SliceKey, s)
	}
	slice(service,
		model.Endpoint{Address: addrs("10.0.0.1")[0], Node: "a", Ready: true},
		model.Endpoint{Address: addrs("10.0.0.2")[0], Node: "b", Ready: true},
		model.Endpoint{Address: addrs("10.0.0.3")[0], Node: "c"},
		model.Endpoint{Address: addrs("10.0.0.4")[0], Node: "gone", Ready: true})
	at := &Whereabouts{Service: service, LoadBalancers: func(model.ServiceKey) []string { return nil }}
	for _, node := range []*model.Node{
		{Name: "a", Addresses: addrs("192.0.2.2", "2001:db8::2")},
		{Name: "b", Addresses: addrs("192.0.2.3"), External: addrs("198.51.100.1")},
		{Name: "c", Addresses: addrs("192.0.2.4")},
	} {
		at.Nodes = at.Nodes.With(node.Name, node)
	}
	is := func(what string, want ...string) {
		t.Helper()
		if got := Addresses(snapshot, at); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	is("nodes", "192.0.2.2", "198.51.100.1", "2001:db8::2")

	outside, other := model.ServiceKey{Namespace: "kube-system", Name: "outside"}, model.ServiceKey{Namespace: "kube-system", Name: "other"}
	slice(outside, model.Endpoint{Address: addrs("10.0.0.1")[0], Ready: true})
	slice(other, model.Endpoint{Address: addrs("10.9.9.9")[0], Ready: true})
	slice(model.ServiceKey{Namespace: "elsewhere", Name: "thief"}, model.Endpoint{Address: addrs("10.0.0.1")[0], Ready: true})
	at.LoadBalancers = func(key model.ServiceKey) []string {
		return map[model.ServiceKey][]string{
			outside: {"lb.example.org", "203.0.113.9"}, other: {"203.0.113.10"}, {Namespace: "elsewhere", Name: "thief"}: {"203.0.113.11"},
		}[key]
	}
	is("a load balancer", "203.0.113.9", "lb.example.org")

	snapshot.Network.Ingress.PublishAddresses = []string{"front.example.org", "203.0.113.1"}
	is("the Network", "front.example.org", "203.0.113.1")

	if got := Addresses(&model.Snapshot{}, &Whereabouts{Service: service}); got != nil {
		t.Errorf("of nothing: %q", got)
	}
}
