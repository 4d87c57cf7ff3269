package model

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestOfServices: which Services, and their slices, a text leaves.
func TestOfServices(t *testing.T) {
	s := &Snapshot{Revision: 7}
	addr := netip.MustParseAddr
	for name, service := range map[string]*Service{
		"web":  {ClusterIPs: []netip.Addr{addr("10.96.0.1"), addr("fd96::1")}, Ports: []ServicePort{{Port: 80, NodePort: 30080}}},
		"late": {ClusterIPs: []netip.Addr{addr("10.96.0.2")}, ExternalIPs: []netip.Addr{addr("10.96.0.1")}},
		"port": {ClusterIPs: []netip.Addr{addr("10.96.0.3")}, Ports: []ServicePort{{Port: 81, NodePort: 30080}}},
		"lb":   {LoadBalancerIPs: []netip.Addr{addr("203.0.113.1")}, Ports: []ServicePort{{Port: 80}}},
	} {
		service.ServiceKey = ServiceKey{"shop", name}
		s.Services = s.Services.With(service.ServiceKey, service)
		mere := ServiceKey{"shop", name + "-headless"}
		s.Names, s.NamesKnown = s.Names.With(mere, &Name{ServiceKey: mere}), true
		slice := &EndpointSlice{SliceKey: SliceKey{"shop", name + "-1"}, Service: name}
		s.Slices = s.Slices.With(slice.SliceKey, slice)
	}
	for text, want := range map[string]string{
		"shop/web": "late port web", "shop/late": "late web", "shop/lb": "lb", "shop/port": "port web", "shop/nobody": "", "else/web": "", "": "", "web": "",
		"10.96.0.1:80": "late port web", "[fd96::1]:443": "late port web", "203.0.113.1:0": "lb", "192.0.2.1:30080": "late port web", "192.0.2.1:0": "",
	} {
		narrow := s.OfServices(text)
		var services, slicesOf []string
		for key := range narrow.Services.All() {
			services = append(services, key.Name)
		}
		for key := range narrow.Slices.All() {
			slicesOf = append(slicesOf, strings.TrimSuffix(key.Name, "-1"))
		}
		slices.Sort(services)
		slices.Sort(slicesOf)
		if narrow.Names.Len() > 0 || narrow.NamesKnown {
			t.Errorf("%q leaves names", text)
		}
		if got := strings.Join(services, " "); got != want || !slices.Equal(services, slicesOf) || narrow.Revision != 7 {
			t.Errorf("%q leaves %s, and slices of %v; want %s", text, got, slicesOf, want)
		}
	}
	if s.Services.Len() != 4 {
		t.Error("the snapshot itself changed")
	}
}
