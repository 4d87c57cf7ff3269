package model

import (
	"net/netip"
	"slices"
	"strings"
)

// OfServices is the snapshot without other Services than the text may mean and
// those that claim what one of these does, without the EndpointSlices of others,
// and without mere names: of a large cluster, these are nearly all of it. The text is
// NAMESPACE/NAME, or ADDRESS:PORT of a Service's own address or of a node; if it
// is neither, no Service is meant.
func (s *Snapshot) OfServices(text string) *Snapshot {
	narrow := *s
	narrow.Services, narrow.Slices = Map[ServiceKey, *Service]{}, Map[SliceKey, *EndpointSlice]{}
	narrow.Names, narrow.Hosts, narrow.NamesKnown = Map[ServiceKey, *Name]{}, Map[SliceKey, *Hosts]{}, false
	namespace, name, _ := strings.Cut(text, "/")
	at, err := netip.ParseAddrPort(text)
	isAddress := err == nil
	for key, service := range s.Services.All() {
		if key == (ServiceKey{namespace, name}) || isAddress && service.mayHave(at) {
			narrow.Services = narrow.Services.With(key, service)
		}
	}
	meant := narrow.Services
	for key, service := range s.Services.All() {
		for _, other := range meant.All() {
			if service.contends(other) {
				narrow.Services = narrow.Services.With(key, service)
				break
			}
		}
	}
	for key, slice := range s.Slices.All() {
		if _, ok := narrow.Services.Get(ServiceKey{slice.Namespace, slice.Service}); ok {
			narrow.Slices = narrow.Slices.With(key, slice)
		}
	}
	return &narrow
}

// contends tells whether two Services want the same address or node port; only
// one of them can have it.
func (s *Service) contends(other *Service) bool {
	for _, addresses := range [][]netip.Addr{s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs} {
		for _, addr := range addresses {
			if other.mayHave(netip.AddrPortFrom(addr, 0)) {
				return true
			}
		}
	}
	for i := range s.Ports {
		if at := netip.AddrPortFrom(netip.Addr{}, s.Ports[i].NodePort); at.Port() != 0 && other.mayHave(at) {
			return true
		}
	}
	return false
}

// mayHave tells whether an address is one of the Service, or a port is its node
// port.
func (s *Service) mayHave(at netip.AddrPort) bool {
	for _, addresses := range [][]netip.Addr{s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs} {
		if slices.Contains(addresses, at.Addr()) {
			return true
		}
	}
	return slices.ContainsFunc(s.Ports, func(p ServicePort) bool { return p.NodePort != 0 && p.NodePort == at.Port() })
}
