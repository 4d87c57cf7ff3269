package model

import (
	"net/netip"
	"slices"
	"strings"
)

// OfServices is the snapshot without other Services than the text may mean, and
// without the EndpointSlices of others: of a large cluster, these are nearly all
// of it. The text is NAMESPACE/NAME, or ADDRESS:PORT of a Service's own address
// or of a node; if it is neither, no Service is meant.
func (s *Snapshot) OfServices(text string) *Snapshot {
	narrow := *s
	narrow.Services, narrow.Slices = Map[ServiceKey, *Service]{}, Map[SliceKey, *EndpointSlice]{}
	namespace, name, _ := strings.Cut(text, "/")
	at, err := netip.ParseAddrPort(text)
	isAddress := err == nil
	for key, service := range s.Services.All() {
		if key == (ServiceKey{namespace, name}) || isAddress && service.mayHave(at) {
			narrow.Services = narrow.Services.With(key, service)
		}
	}
	for key, slice := range s.Slices.All() {
		if _, ok := narrow.Services.Get(ServiceKey{slice.Namespace, slice.Service}); ok {
			narrow.Slices = narrow.Slices.With(key, slice)
		}
	}
	return &narrow
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
