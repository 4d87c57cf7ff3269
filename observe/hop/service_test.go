package hop_test

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/hop"
	"github.com/fairlead-net/fairlead/observe/service"
	"github.com/fairlead-net/fairlead/observe/trace"
	"github.com/fairlead-net/fairlead/plan"
)

// discard is a port where nobody listens (RFC 863): who gets there is refused.
const discard = 9

// serve makes every node serve
//
//	web    10.96.0.1, fd96::1   port 80, node port 30080   pods a, b and c
//	local  10.96.0.2, fd96::2   the same, node port 30081, for endpoints of the node alone: c
//	idle   10.96.0.3, fd96::3   nobody
func (w *world) serve() {
	addr := netip.MustParseAddr
	for name, snapshot := range w.snapshots {
		for number, service := range []string{"web", "local", "idle"} {
			key := model.ServiceKey{Namespace: "default", Name: service}
			s := &model.Service{
				ServiceKey: key, ClusterIPs: []netip.Addr{addr(fmt.Sprintf("10.96.0.%d", number+1)), addr(fmt.Sprintf("fd96::%d", number+1))},
				Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80, NodePort: uint16(30080 + number)}}, ExternalLocal: service == "local",
			}
			snapshot.Services = snapshot.Services.With(key, s)
			for _, family := range model.Families {
				slice := &model.EndpointSlice{
					SliceKey: model.SliceKey{Namespace: "default", Name: service + family.String()}, Service: service, Family: family,
					Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: discard}},
				}
				for _, pod := range map[string][]string{"web": {"a", "b", "c"}, "local": {"c"}}[service] {
					end := w.pod(pod, family)
					slice.Endpoints = append(slice.Endpoints, model.Endpoint{Address: end.Address, Node: end.Node, Ready: true, Serving: true})
				}
				if service == "web" {
					slice.Endpoints = append(slice.Endpoints, model.Endpoint{Address: unready[family], Node: "node2"})
				}
				snapshot.Slices = snapshot.Slices.With(slice.SliceKey, slice)
			}
		}
		snapshot.ServiceCIDRs = snapshot.ServiceCIDRs.With("all", &model.ServiceCIDR{
			Name: "all", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/64")},
		})
		w.apply(name)
	}
}

// unready is an endpoint of web that is not.
var unready = [...]netip.Addr{model.IPv4: netip.MustParseAddr("10.244.2.77"), model.IPv6: netip.MustParseAddr("fd00:10:244:2::77")}

// vip is an end that every node has.
func vip(name, address string) trace.End {
	return trace.End{Name: "svc/default/" + name, Address: netip.MustParseAddr(address), Service: "default/" + name}
}

// backend is a pod of web.
func (w *world) backend(pod string, family model.Family) netip.AddrPort {
	return netip.AddrPortFrom(w.pod(pod, family).Address, discard)
}

// connects tells whether somebody answers a connection to where the trip goes,
// if only with a refusal.
func (w *world) connects(trip trace.Trip, within time.Duration) (answered bool) {
	from := trip.From.Node
	if trip.From.Pod {
		from = strings.TrimPrefix(trip.From.Name, "default/")
	}
	w.spaces[from].Do(func() {
		_, err := net.DialTimeout("tcp", netip.AddrPortFrom(trip.To.Address, trip.Port).String(), within)
		answered = err != nil && strings.Contains(err.Error(), "refused")
	})
	return answered
}

// TestWaysThroughServices follows packets through Services, and sends them.
func TestWaysThroughServices(t *testing.T) {
	w := newWorld(t, model.DefaultNetwork())
	w.serve()
	var all strings.Builder
	for number, family := range model.Families {
		address := func(texts ...string) string { return texts[number] }
		web, local, idle := vip("web", address("10.96.0.1", "fd96::1")), vip("local", address("10.96.0.2", "fd96::2")), vip("idle", address("10.96.0.3", "fd96::3"))
		nobody := trace.End{Name: "nobody", Address: netip.MustParseAddr(address("10.96.7.7", "fd96::7"))}
		for _, test := range []struct {
			from     trace.End
			to       trace.End
			port     uint16
			backend  string
			answered bool
		}{
			{w.pod("a", family), web, 80, "b", true},
			{w.pod("a", family), web, 80, "c", true},
			{w.pod("a", family), web, 80, "a", true},
			{w.node("node1", family), web, 80, "a", true},
			{w.node("node1", family), web, 80, "c", true},
			{w.pod("a", family), w.node("node2", family), 30080, "c", true},
			{w.pod("a", family), w.node("node1", family), 30081, "c", true},
			{w.node("node1", family), w.node("node3", family), 30081, "c", true},
			{w.node("node1", family), w.node("node2", family), 30081, "", false}, // has no endpoint
			{w.pod("a", family), local, 80, "a", true},                           // it has another one
			{w.pod("a", family), web, 80, "unready", true},                       // by another one
			{w.pod("a", family), idle, 80, "", true},                             // by the node
			{w.pod("a", family), web, 81, "", true},                              // by the node
			{w.pod("a", family), nobody, 80, "", false},
		} {
			trip := trace.Trip{From: test.from, To: test.to, Protocol: model.TCP, Port: test.port}
			switch test.backend {
			case "":
			case "unready":
				trip.Backend = netip.AddrPortFrom(unready[family], 0)
			default:
				trip.Backend = w.backend(test.backend, family)
			}
			within := 300 * time.Millisecond
			if test.answered {
				within = 10 * time.Second
			}
			if w.connects(trip, within) != test.answered {
				t.Errorf("%s to %s port %d: answered: %t", test.from.Name, test.to.Name, test.port, !test.answered)
			}
			all.WriteString(w.text(trip) + "\n")
		}
	}
	golden(t, "services", all.String())
}

// TestAnswersKeepTheirSource: an answer to an address of a node outside of the
// pods is no new connection, which would be masqueraded.
func TestAnswersKeepTheirSource(t *testing.T) {
	w := newWorld(t, model.DefaultNetwork())
	w.serve()
	trip := trace.Trip{From: w.pod("a", model.IPv4), To: w.node("node2", model.IPv4), Protocol: model.TCP, Port: 30080, Backend: w.backend("b", model.IPv4)}
	back, ok := trace.Walk(w.places, trip, w.ask).Return()
	if !ok || back.From.Name != "default/b" || back.To.Name != "node/node2" {
		t.Fatalf("the answer goes from %+v to %+v", back.From, back.To)
	}
	path := trace.Walk(w.places, back, w.ask)
	if path.Outcome != trace.Arrives || path.As.Address.IsValid() || path.Source != back.From.Address {
		t.Errorf("it %s from %s, as %+v", path.Outcome, path.Source, path.As)
	}
	trip.To, trip.Port, trip.Backend = w.node("node3", model.IPv4), 30081, netip.AddrPort{}
	trip.From = w.pod("b", model.IPv4)
	if back, ok = trace.Walk(w.places, trip, w.ask).Return(); !ok || back.To.Name != "node/node2" {
		t.Fatalf("the answer goes from %+v to %+v", back.From, back.To)
	}
	if path = trace.Walk(w.places, back, w.ask); path.Source != back.From.Address {
		t.Errorf("the answer to node2, which has masqueraded, comes from %s", path.Source)
	}
}

// TestFaultsOfServices: where the kernel is not as planned, it says so.
func TestFaultsOfServices(t *testing.T) {
	w := newWorld(t, model.DefaultNetwork())
	w.serve()
	trip := trace.Trip{From: w.pod("a", model.IPv4), To: vip("web", "10.96.0.1"), Protocol: model.TCP, Port: 80, Backend: w.backend("c", model.IPv4)}
	if !w.connects(trip, 10*time.Second) {
		t.Error("as planned, nobody answers")
	}
	var all strings.Builder
	say := func(what string) { fmt.Fprintf(&all, "# %s\n%s\n", what, w.text(trip)) }
	w.silent["node1"] = "it does not answer"
	say("the agent does not tell its plan: what the kernel has is followed")
	w.silent["node1"] = ""
	w.in("node1", "nft delete element inet fairlead services4 '{ 10.96.0.1 . tcp . 80 }'")
	say("the address is not in the maps")
	w.apply("node1")
	w.in("node1", "nft flush map inet fairlead service-slots4")
	say("no slot leads anywhere")
	w.in("node1", "nft delete table inet fairlead")
	say("the table is gone")
	w.apply("node1")
	for _, name := range []string{"web", "local", "idle"} {
		s := w.snapshots["node1"]
		s.Services = s.Services.Without(model.ServiceKey{Namespace: "default", Name: name})
	}
	w.snapshots["node1"].ServiceCIDRs = model.Map[string, *model.ServiceCIDR]{}
	w.apply("node1")
	say("the agent does not know the Service")
	golden(t, "services-faults", all.String())
}

// TestServe: a report has what the kernel has: connections that are open, and
// addresses that are not as planned.
func TestServe(t *testing.T) {
	w := newWorld(t, model.DefaultNetwork())
	w.serve()
	key := model.ServiceKey{Namespace: "default", Name: "web"}
	look := func() *service.Report {
		t.Helper()
		computed := plan.Compute(nil, w.snapshots["node1"], "node1")
		report := service.Of(computed.Service, w.snapshots["node1"], "node1", key)
		var err error
		w.spaces["node1"].Do(func() { err = hop.Serve(computed.Service, report) })
		if err != nil || !report.Kernel || len(report.Ports) != 2 {
			t.Fatalf("error %v, report %+v", err, report)
		}
		return report
	}
	report := look()
	if !report.Well() || report.Ports[0].VIPs[0].Connections != 0 {
		t.Errorf("as planned, it is %+v", report)
	}
	for _, family := range model.Families { // two connections to whom the kernel chooses
		var opened []net.Conn
		var listeners []net.Listener
		for _, pod := range []string{"a", "b", "c"} {
			w.spaces[pod].Do(func() {
				network := map[model.Family]string{model.IPv4: "tcp4", model.IPv6: "tcp6"}[family]
				listener, err := net.Listen(network, fmt.Sprintf(":%d", discard))
				if err != nil {
					t.Fatal(err)
				}
				listeners = append(listeners, listener)
				t.Cleanup(func() { listener.Close() })
			})
		}
		for range 2 {
			w.spaces["a"].Do(func() {
				at := map[model.Family]string{model.IPv4: "10.96.0.1:80", model.IPv6: "[fd96::1]:80"}[family]
				connection, err := net.DialTimeout("tcp", at, 10*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				opened = append(opened, connection)
				t.Cleanup(func() { connection.Close() })
			})
		}
		port := look().Ports[family]
		sum := 0
		for _, endpoint := range port.Endpoints {
			sum += endpoint.Connections
		}
		if port.VIPs[0].Connections != 2 || sum != 2 || port.VIPs[1].Connections != 0 {
			t.Errorf("%s: of two connections, it is %+v", family, port)
		}
		for _, connection := range opened {
			connection.Close()
		}
		for _, listener := range listeners {
			listener.Close() // resets what nobody has accepted
		}
		// The kernel remembers a connection for 10 s after it was reset.
		ended := func() bool { return look().Ports[family].VIPs[0].Connections == 0 }
		for began := time.Now(); !ended() && time.Since(began) < 5*time.Second; {
			runtime.Gosched()
		}
		if !ended() {
			t.Errorf("%s: connections that have ended are counted", family)
		}
	}
	w.in("node1", "nft delete element inet fairlead services4 '{ 10.96.0.1 . tcp . 80 }'")
	w.in("node1", "nft flush map inet fairlead service-slots6")
	report = look()
	if differs := report.Ports[0].VIPs[0].Differs; differs != "none" || report.Well() {
		t.Errorf("without its element, it is %q", differs)
	}
	if differs := report.Ports[1].VIPs[0].Differs; !strings.HasPrefix(differs, "without [") || !strings.HasSuffix(differs, ", with empty slots: 3") {
		t.Errorf("without slots, it is %q", differs)
	}
}
