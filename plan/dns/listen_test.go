package dns_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/dns"
)

// served is a snapshot with the Service that kubeadm makes.
func served(server model.NameServer) *model.Snapshot {
	network := model.DefaultNetwork()
	service := &model.Service{
		ServiceKey: network.DNS.Service,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd96::a")},
		Ports: []model.ServicePort{
			{Name: "dns", Protocol: model.UDP, Port: 53}, {Name: "dns-tcp", Protocol: model.TCP, Port: 53},
			{Name: "metrics", Protocol: model.TCP, Port: 9153}, {Name: "odd", Protocol: model.SCTP, Port: 53},
		},
	}
	snapshot := &model.Snapshot{Network: network, NameServers: [...]model.NameServer{server, server}}
	snapshot.Services = snapshot.Services.With(service.ServiceKey, service)
	for i, name := range []string{"node1", "node2"} {
		snapshot.Nodes = snapshot.Nodes.With(name, &model.Node{
			Name: name, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)})},
			PodCIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24)},
		})
	}
	return snapshot
}

func ports(of model.Map[dns.Port, struct{}]) (all []string) {
	for port := range of.All() {
		all = append(all, port.String())
	}
	slices.Sort(all)
	return all
}

func TestListen(t *testing.T) {
	all := []string{"TCP 10.96.0.10:53", "TCP [fd96::a]:53", "UDP 10.96.0.10:53", "UDP [fd96::a]:53"}
	for server, want := range map[model.NameServer]struct{ queries, own []string }{
		model.NameServerUnknown: {all, nil},
		model.NameServerAbsent:  {all, nil},
		model.NameServerWell:    {all, all},
		model.NameServerHung:    {nil, nil},
	} {
		plan := dns.ComputeListen(nil, served(server), "node1")
		if got := ports(plan.Ports); !slices.Equal(got, all) {
			t.Errorf("%s: ports %v, want %v", server, got, all)
		}
		if got := ports(plan.Queries); !slices.Equal(got, want.queries) {
			t.Errorf("%s: queries are answered here at %v, want %v", server, got, want.queries)
		}
		if got := ports(plan.Own); !slices.Equal(got, want.own) {
			t.Errorf("%s: the node's own are answered here at %v, want %v", server, got, want.own)
		}
		if plan.Addresses.Len() != 2 {
			t.Errorf("%s: %d addresses, want 2", server, plan.Addresses.Len())
		}
	}
}

// TestListenByFamily: each address is as its server is.
func TestListenByFamily(t *testing.T) {
	snapshot := served(model.NameServerWell)
	snapshot.NameServers[model.IPv4] = model.NameServerHung
	plan := dns.ComputeListen(nil, snapshot, "node1")
	want := []string{"TCP [fd96::a]:53", "UDP [fd96::a]:53"}
	if got := ports(plan.Queries); !slices.Equal(got, want) {
		t.Errorf("the server of IPv4 hangs: queries are answered here at %v, want %v", got, want)
	}
	if got := ports(plan.Own); !slices.Equal(got, want) {
		t.Errorf("the server of IPv4 hangs: the node's own are answered here at %v, want %v", got, want)
	}
}

// TestListenStays: what does not change is the same, and what cannot be told
// stays.
func TestListenStays(t *testing.T) {
	first := dns.ComputeListen(nil, served(model.NameServerWell), "node1")
	if again := dns.ComputeListen(first, served(model.NameServerWell), "node1"); again != first {
		t.Error("an equal Service makes another plan")
	}
	if unknown := dns.ComputeListen(first, &model.Snapshot{}, "node1"); unknown != first {
		t.Error("the plan does not stay while the configuration is not known")
	}
	if dns.ComputeListen(nil, &model.Snapshot{}, "node1") != nil {
		t.Error("there is a plan before the configuration is known")
	}
	snapshot := served(model.NameServerWell)
	snapshot.Services = snapshot.Services.Without(snapshot.Network.DNS.Service)
	if gone := dns.ComputeListen(first, snapshot, "node1"); gone.Addresses.Len()+gone.Ports.Len()+gone.Queries.Len()+gone.Own.Len() != 0 {
		t.Error("the Service is gone, and its addresses are there")
	}
}

// TestServe: a server listens at the addresses of the Service and of its node, to
// pods, nodes and who watches it.
func TestServe(t *testing.T) {
	plan := dns.ComputeListen(nil, served(model.NameServerAbsent), "node1")
	if got, want := fmt.Sprint(plan.Serve), "[10.96.0.10:53 192.0.2.1:53 [fd96::a]:53]"; got != want {
		t.Errorf("it listens at %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(plan.Clients), "[10.96.0.10/32 10.244.0.0/24 10.244.1.0/24 192.0.2.1/32 192.0.2.2/32 fd96::a/128]"; got != want {
		t.Errorf("it answers %s, want %s", got, want)
	}
	snapshot := served(model.NameServerAbsent)
	node, _ := snapshot.Nodes.Get("node2")
	moved := *node
	moved.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.3")}
	snapshot.Nodes = snapshot.Nodes.With("node2", &moved)
	if next := dns.ComputeListen(plan, snapshot, "node1"); !slices.Contains(next.Clients, netip.MustParsePrefix("192.0.2.3/32")) {
		t.Errorf("a node has another address, and it answers %s", next.Clients)
	}
}
