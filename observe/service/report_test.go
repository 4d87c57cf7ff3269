package service

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

var web = model.ServiceKey{Namespace: "shop", Name: "web"}

// snapshot has Service web with two endpoints, of which the one on node a is
// ready, and the one on node b is not.
func snapshot(change func(*model.Service)) *model.Snapshot {
	addr := netip.MustParseAddr
	s := &model.Snapshot{Network: model.DefaultNetwork()}
	for name, address := range map[string]string{"a": "192.0.2.1", "b": "192.0.2.2"} {
		s.Nodes = s.Nodes.With(name, &model.Node{Name: name, Addresses: []netip.Addr{addr(address)}})
	}
	served := &model.Service{
		ServiceKey: web, ClusterIPs: []netip.Addr{addr("10.96.0.1")},
		Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80, NodePort: 30080}},
	}
	change(served)
	slice := &model.EndpointSlice{
		SliceKey: model.SliceKey{Namespace: "shop", Name: "web"}, Service: "web",
		Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
		Endpoints: []model.Endpoint{
			{Address: addr("10.244.0.1"), Node: "a", Ready: true, Serving: true}, {Address: addr("10.244.1.1"), Node: "b"},
		},
	}
	s.Services = s.Services.With(web, served)
	s.Slices = s.Slices.With(slice.SliceKey, slice)
	return s
}

func report(s *model.Snapshot, node string) (*Report, *service.Plan) {
	computed, _ := service.Compute(nil, s, node)
	return Of(computed, s, node, web), computed
}

// TestReport: what two nodes make of a Service whose node port is for endpoints
// of the node alone.
func TestReport(t *testing.T) {
	local := snapshot(func(s *model.Service) { s.ExternalLocal, s.Affinity = true, 60 })
	for node, want := range map[string]string{
		"a": `ClusterIP 10.96.0.1:80/TCP, IPv4: 1 of 1
NodePort 30080/TCP, IPv4: 1 of 1 for pods and the node, 1 of 1 here for others`,
		"b": `ClusterIP 10.96.0.1:80/TCP, IPv4: 1 of 1
NodePort 30080/TCP, IPv4: 1 of 1 for pods and the node, dropped for others`,
	} {
		r, _ := report(local, node)
		if got := strings.Join(r.Answers(), "\n"); got != want || !r.Well() || r.Affinity != 60 {
			t.Errorf("%s: well: %t, affinity %d, got\n%s\nwant\n%s", node, r.Well(), r.Affinity, got, want)
		}
		port := r.Ports[0]
		var endpoints []string
		for _, e := range port.Endpoints {
			endpoints = append(endpoints, fmt.Sprintf("%s %s %t %t %s", e.Address, e.Node, e.Cluster, e.Local, e.Why))
		}
		want = fmt.Sprintf("10.244.0.1:8080 a true %t it is ready, 10.244.1.1:8080 b false false it is not ready", node == "a")
		if got := strings.Join(endpoints, ", "); port.Port != 80 || port.Name != "http" || got != want {
			t.Errorf("%s: port %s %d has %s", node, port.Name, port.Port, got)
		}
		if outside := port.VIPs[1].Outside; node == "b" && (outside.Do != Drop || !strings.Contains(outside.Why, "none on b")) {
			t.Errorf("outside is %+v", outside)
		}
	}
}

// TestNotWell: nobody answers, or another Service has the address.
func TestNotWell(t *testing.T) {
	s := snapshot(func(s *model.Service) {})
	s.Slices = model.Map[model.SliceKey, *model.EndpointSlice]{}
	if r, _ := report(s, "a"); r.Well() || r.Ports[0].VIPs[0].Inside.Why != "it has no endpoints" {
		t.Errorf("without endpoints: %+v", r)
	}
	s = snapshot(func(s *model.Service) {
		s.Created, s.ExternalIPs = 9, []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	})
	older, _ := s.Services.Get(web)
	other := *older
	other.Name, other.Created, other.ClusterIPs = "older", 1, []netip.Addr{netip.MustParseAddr("10.96.0.2")}
	other.Ports = []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}}
	s.Services = s.Services.With(other.ServiceKey, &other)
	r, _ := report(s, "a")
	if r.Well() || r.Ports[0].VIPs[2].TakenBy != "shop/older" {
		t.Errorf("of a taken address: %+v", r)
	}
	s.Services = s.Services.Without(web)
	if r, _ := report(s, "a"); r != nil {
		t.Errorf("of a Service that is not there: %+v", r)
	}
}

// TestCompare: how a kernel can differ.
func TestCompare(t *testing.T) {
	at, other := netip.MustParseAddrPort("10.244.0.1:8080"), netip.MustParseAddrPort("10.244.9.9:80")
	forward := func(holes int, targets ...netip.AddrPort) service.HeldAnswer {
		return service.HeldAnswer{Do: service.Forward, Targets: targets, Holes: holes}
	}
	well, reject := forward(0, at), service.HeldAnswer{Do: service.Reject}
	for _, test := range []struct {
		held *service.Held
		want string
	}{
		{&service.Held{Inside: well, Outside: well}, ""},
		{nil, "none"},
		{&service.Held{Inside: reject, Outside: reject}, "refused"},
		{&service.Held{Inside: service.HeldAnswer{Do: service.Drop}, Outside: well}, "for pods and the node: dropped"},
		{&service.Held{Inside: well, Outside: forward(0, other)}, "for others: without 10.244.0.1:8080, with 10.244.9.9:80"},
		{&service.Held{Inside: forward(1), Outside: forward(0, other, at)}, "for pods and the node: without 10.244.0.1:8080, with empty slots: 1; for others: with 10.244.9.9:80"},
	} {
		r, computed := report(snapshot(func(*model.Service) {}), "a")
		vip := &r.Ports[0].VIPs[0]
		vip.Compare(computed, model.TCP, test.held)
		if vip.Differs != test.want || r.Well() != (test.want == "") {
			t.Errorf("%v: %q, want %q", test.held, vip.Differs, test.want)
		}
	}
}

// TestReportTravels: what a node writes is what is read.
func TestReportTravels(t *testing.T) {
	want, _ := report(snapshot(func(s *model.Service) { s.ExternalLocal = true }), "b")
	want.Ports[0].Former = []Former{{netip.MustParseAddrPort("10.244.0.9:80"), 3}}
	text, err := json.Marshal(want)
	got := &Report{}
	if err != nil || json.Unmarshal(text, got) != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("error %v, got %+v of %s", err, got, text)
	}
}
