package trace

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/service"
)

// TestHere: a query to the address of DNS is answered on the node while its server
// is well, and is a Service's otherwise.
func TestHere(t *testing.T) {
	network := model.DefaultNetwork()
	address := netip.MustParseAddr("10.96.0.10")
	snapshot := &model.Snapshot{Network: network, PoliciesKnown: true}
	snapshot.Nodes = snapshot.Nodes.With("node1", &model.Node{
		Name: "node1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
	})
	snapshot.Links = snapshot.Links.With("eth0", &model.Link{Name: "eth0", MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}})
	snapshot.Services = snapshot.Services.With(network.DNS.Service, &model.Service{
		ServiceKey: network.DNS.Service, ClusterIPs: []netip.Addr{address}, Ports: []model.ServicePort{{Protocol: model.UDP, Port: 53}},
	})
	q := Question{From: netip.MustParseAddr("10.244.1.5"), To: address, Protocol: model.UDP, Port: 53}
	for server, here := range map[model.NameServer]bool{model.NameServerWell: true, model.NameServerHung: false, model.NameServerAbsent: false} {
		snapshot.NameServers[model.IPv4] = server
		expected := Expect(snapshot, "node1", q, model.MAC{})
		if expected.Here != here || (expected.Service == nil) != here {
			t.Errorf("%s: answered here: %v, want %v; Service %+v", server, expected.Here, here, expected.Service)
		}
	}
}

// TestLoopbackFromElsewhere: why a packet to 127.0.0.1 ends that did not begin
// there is told, and no ServiceCIDR is blamed.
func TestLoopbackFromElsewhere(t *testing.T) {
	snapshot := &model.Snapshot{Network: model.DefaultNetwork(), PoliciesKnown: true}
	snapshot.Nodes = snapshot.Nodes.With("node1", &model.Node{
		Name: "node1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
	})
	q := Question{From: netip.MustParseAddr("10.244.1.5"), To: netip.MustParseAddr("127.0.0.1"), Protocol: model.TCP, Port: 30080}
	expected := Expect(snapshot, "node1", q, model.MAC{})
	if expected.Service == nil || expected.Service.Do != service.Drop || !strings.HasPrefix(expected.Service.Why, "127.0.0.1 is the loopback interface of node1") {
		t.Errorf("expected %+v", expected.Service)
	}
}
