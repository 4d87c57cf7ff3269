package gateway

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestPorts: the port of a Service is found by name and by number, in Services that
// have no addresses, too.
func TestPorts(t *testing.T) {
	s := &model.Snapshot{}
	key := func(name string) model.ServiceKey { return model.ServiceKey{Namespace: "shop", Name: name} }
	tcp := func(name string, number uint16) model.ServicePort {
		return model.ServicePort{Name: name, Protocol: model.TCP, Port: number}
	}
	two := []model.ServicePort{tcp("http", 80), tcp("admin", 81)}
	s.Services = s.Services.With(key("served"), &model.Service{ServiceKey: key("served"), Ports: two})
	for _, n := range []*model.Name{
		{ServiceKey: key("headless"), Ports: two},
		{ServiceKey: key("undeclared")},
		{ServiceKey: key("outside"), External: "db.example.org", Ports: two},
	} {
		s.Names = s.Names.With(n.ServiceKey, n)
	}
	for _, name := range []string{"served", "headless", "undeclared"} {
		slice := &model.EndpointSlice{
			SliceKey: model.SliceKey(key(name)), Service: name,
			Endpoints: []model.Endpoint{{Address: netip.MustParseAddr("10.0.0.1"), Ready: true, Serving: true}},
			Ports:     []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}, {Name: "admin", Protocol: model.TCP, Port: 9090}},
		}
		if name == "undeclared" {
			slice.Ports = []model.EndpointPort{{Protocol: model.TCP, Port: 8080}}
		}
		s.Slices = s.Slices.With(slice.SliceKey, slice)
	}
	endpoints := EndpointsOf(s)
	for _, test := range []struct {
		service string
		port    uint16
		name    string
		want    string
	}{
		{"served", 81, "", "[10.0.0.1:9090]"},
		{"served", 0, "http", "[10.0.0.1:8080]"},
		{"served", 82, "", "[]"},
		{"headless", 80, "", "[10.0.0.1:8080]"},
		{"headless", 81, "", "[10.0.0.1:9090]"},
		{"headless", 0, "admin", "[10.0.0.1:9090]"},
		{"headless", 9090, "", "[10.0.0.1:9090]"}, // where its endpoints are, which clients of its name use
		{"headless", 82, "", "[]"},
		{"undeclared", 80, "", "[10.0.0.1:8080]"},
		{"outside", 0, "admin", "db.example.org:81"},
		{"outside", 81, "", "db.example.org:81"},
		{"outside", 5432, "", "db.example.org:5432"},
		{"outside", 0, "other", ""},
	} {
		backend := Backend{Service: key(test.service), Port: test.port, Name: test.name}
		got := endpoints.Name(backend)
		if test.service != "outside" {
			got = fmt.Sprint(endpoints.At(backend))
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", backend, got, test.want)
		}
	}
}
