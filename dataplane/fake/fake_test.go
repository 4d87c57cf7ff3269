package fake_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/fake"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/antispoof"
	"github.com/fairlead-net/fairlead/plan/hostport"
	"github.com/fairlead-net/fairlead/plan/masquerade"
	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/plan/service"
)

func example() *plan.Node {
	gateway := netip.MustParseAddr("10.244.2.0")
	mac := model.MAC{2, 0, 0, 0, 0, 2}
	routes := &route.Plan{}
	routes.Sysctls = routes.Sysctls.With("net/ipv4/ip_forward", "1")
	routes.VXLANs = routes.VXLANs.With("fairlead-vx4", route.VXLAN{
		Name: "fairlead-vx4", VNI: 4096, Port: 4789, Device: "eth0",
		Local: netip.MustParseAddr("192.0.2.1"), MTU: 1450, MAC: model.MAC{2, 0, 0, 0, 0, 1},
	})
	own := netip.MustParsePrefix("10.244.1.0/32")
	routes.Addresses = routes.Addresses.With(route.Address{Device: "fairlead-vx4", Prefix: own}, struct{}{})
	routes.Neighbors = routes.Neighbors.With(route.Neighbor{Device: "fairlead-vx4", Address: gateway}, mac)
	routes.FDB = routes.FDB.With(route.Station{Device: "fairlead-vx4", MAC: mac}, netip.MustParseAddr("198.51.100.2"))
	routes.Routes = routes.Routes.With(netip.MustParsePrefix("10.244.2.0/24"), route.Route{
		Device: "fairlead-vx4", Via: gateway, OnLink: true, Source: own.Addr(), MTU: 1450,
	})
	ranges := model.MapOf(map[netip.Prefix]struct{}{netip.MustParsePrefix("10.244.1.0/24"): {}})
	pod := netip.MustParseAddr("10.244.1.2")
	source := antispoof.Source{Device: "fl1", MAC: model.MAC{2, 0, 0, 0, 0, 3}, Address: pod}
	port := hostport.Port{Protocol: model.TCP, At: netip.MustParseAddrPort("0.0.0.0:80")}
	return &plan.Node{
		Name: "node1", Route: routes,
		Masquerade: &masquerade.Plan{Pods: ranges, Cluster: ranges, Sources: [2]netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		HostPort: &hostport.Plan{
			Ports:    model.MapOf(map[hostport.Port]netip.AddrPort{port: netip.AddrPortFrom(pod, 8080)}),
			Hairpins: model.MapOf(map[netip.Addr]struct{}{pod: {}}),
		},
		AntiSpoof: &antispoof.Plan{Sources: model.MapOf(map[antispoof.Source]struct{}{source: {}})},
		Service:   services(netip.AddrPortFrom(pod, 8080)),
	}
}

func services(to netip.AddrPort) *service.Plan {
	vip := service.VIP{Protocol: model.TCP, At: netip.MustParseAddrPort("10.96.0.1:80")}
	port := service.Port{Service: model.ServiceKey{Namespace: "default", Name: "web"}}
	one := service.Answer{Do: service.Forward, Count: 1}
	return &service.Plan{
		Frontends: model.MapOf(map[service.VIP]*service.Frontend{
			vip: {Port: port, Inside: one, Outside: one, Masquerade: service.FromOutside},
		}),
		Backends:   model.MapOf(map[service.Pool]*service.Backends{{Port: port}: {Targets: []netip.AddrPort{to}}}),
		ClusterIPs: model.MapOf(map[netip.Addr]struct{}{vip.At.Addr(): {}}),
		CIDRs:      model.MapOf(map[netip.Prefix]struct{}{netip.MustParsePrefix("10.96.0.0/16"): {}}),
	}
}

func machine() *fake.Kernel {
	kernel := fake.NewKernel()
	kernel.AddDevice("eth0", netip.MustParsePrefix("192.0.2.1/24"))
	return kernel
}

func TestState(t *testing.T) {
	kernel, node := machine(), example()
	if problems, err := fake.New(kernel).Apply(t.Context(), node); err != nil || len(problems) != 0 {
		t.Fatalf("problems %v, error %v", problems, err)
	}
	const want = `sysctl net/ipv4/ip_forward=1
link fairlead-vx4 vxlan id 4096 dstport 4789 local 192.0.2.1 dev eth0 mtu 1450 address 02:00:00:00:00:01 nolearning
address 10.244.1.0/32 dev fairlead-vx4
neighbor 10.244.2.0 lladdr 02:00:00:00:00:02 dev fairlead-vx4
fdb 02:00:00:00:00:02 dst 198.51.100.2 dev fairlead-vx4
route 10.244.2.0/24 via 10.244.2.0 dev fairlead-vx4 onlink src 10.244.1.0 mtu 1450
masquerade from 10.244.1.0/24
masquerade not to 10.244.1.0/24
masquerade as 192.0.2.1
masquerade keeping ports
hostport TCP 0.0.0.0:80 to 10.244.1.2:8080
hairpin 10.244.1.2
source fl1 02:00:00:00:00:03 10.244.1.2
service TCP 10.96.0.1:80 to default/web IPv4 (ClusterIP): 1 of 1, masquerade from outside
backends default/web IPv4: [10.244.1.2:8080]
service refuse 10.96.0.1
service drop 10.96.0.0/16
`
	if got := kernel.State(); got != want || got != plan.Text(node) {
		t.Fatalf("state\n%s", got)
	}
}

// TestRefuse: whichever item is refused, it alone is missing, and it goes in
// once it is not refused.
func TestRefuse(t *testing.T) {
	for _, item := range []string{
		"sysctl net/ipv4/ip_forward", "neighbor 10.244.2.0", "fdb 02:00:00:00:00:02",
		"route 10.244.2.0/24", "masquerade from 10.244.1.0/24", "masquerade not to 10.244.1.0/24",
		"service TCP 10.96.0.1:80", "backends default/web IPv4", "service refuse 10.96.0.1", "service drop 10.96.0.0/16",
		"hostport TCP 0.0.0.0:80", "hairpin 10.244.1.2", "source fl1 02:00:00:00:00:03 10.244.1.2",
	} {
		kernel, node := machine(), example()
		kernel.Refuse(item, unix.EPERM)
		plane := fake.New(kernel)
		problems, err := plane.Apply(t.Context(), node)
		if err != nil || len(problems) != 1 || problems[0].Field != item {
			t.Fatalf("%s: problems %v, error %v", item, problems, err)
		}
		if got, want := strings.Count(kernel.State(), "\n"), strings.Count(plan.Text(node), "\n")-1; got != want {
			t.Fatalf("%s: %d lines, want %d:\n%s", item, got, want, kernel.State())
		}
		kernel.Refuse(item, nil)
		if problems, err := plane.Apply(t.Context(), node); err != nil || len(problems) != 0 || kernel.State() != plan.Text(node) {
			t.Fatalf("%s: problems %v, error %v, state\n%s", item, problems, err, kernel.State())
		}
	}
}

// TestRulesOfRoutes: what a route needs is asked for.
func TestRulesOfRoutes(t *testing.T) {
	for want, r := range map[error]route.Route{
		unix.ENODEV:      {Device: "absent"},
		unix.EINVAL:      {Device: "eth0", Source: netip.MustParseAddr("10.9.9.9")},
		unix.ENETUNREACH: {Device: "eth0", Via: netip.MustParseAddr("198.51.100.1")},
	} {
		node := &plan.Node{Name: "node1", Route: &route.Plan{
			Routes: model.MapOf(map[netip.Prefix]route.Route{netip.MustParsePrefix("10.1.0.0/16"): r}),
		}}
		problems, err := fake.New(machine()).Apply(t.Context(), node)
		if err != nil || len(problems) != 1 || !strings.Contains(problems[0].Message, want.Error()) {
			t.Errorf("%+v: problems %v, error %v; want %v", r, problems, err, want)
		}
	}
}

// TestFailAfter: wherever an Apply fails as a whole, the next one ends where it
// should, though the kernel was changed behind its back as well.
func TestFailAfter(t *testing.T) {
	broken := errors.New("broken")
	for writes := range 8 {
		kernel, node := machine(), example()
		plane := fake.New(kernel)
		kernel.FailAfter(writes, broken)
		if _, err := plane.Apply(t.Context(), node); !errors.Is(err, broken) {
			t.Fatalf("after %d writes: error %v", writes, err)
		}
		kernel.RemoveDevice("fairlead-vx4")
		if problems, err := plane.Apply(t.Context(), node); err != nil || len(problems) != 0 || kernel.State() != plan.Text(node) {
			t.Fatalf("after %d writes: problems %v, error %v, state\n%s", writes, problems, err, kernel.State())
		}
	}
}
