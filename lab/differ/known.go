package main

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

// exception is a known difference of kube-proxy, which is not reported. It is as
// narrow as its reason: all else about the same Service is compared.
type exception struct {
	name    string
	applies func(p *plane, f finding) bool
}

// exceptions are all of them. docs/service.md has them for users.
func exceptions() []exception {
	return []exception{
		{"one endpoint in two slices that differ about it: kube-proxy takes either", toldTwice},
		{"an address and port that several Services claim: kube-proxy has no order among them (kubernetes#69599)", contested},
		{"an outer address that is another Service's ClusterIP: kube-proxy masquerades whoever calls it", (*plane).borrowed},
		{"a client that stays, by two addresses with different policies: kube-proxy has it change", (*plane).torn},
	}
}

// excuse finds the exception of a finding; empty: there is none.
func (p *plane) excuse(f finding) string {
	for _, e := range exceptions() {
		if e.applies(p, f) {
			return e.name
		}
	}
	return ""
}

// served is the Service that a call is about, and its port; nil: it is none's.
func (p *plane) served(c call) (*model.Service, service.Port) {
	frontend, _ := p.serve(c)
	if frontend == nil {
		return nil, service.Port{}
	}
	s, _ := p.snapshot.Services.Get(frontend.Port.Service)
	return s, frontend.Port
}

// contested: Fairlead gives what is claimed to one of them, always the same, and
// lets nobody take a ClusterIP. Of kube-proxy, whoever is written last has it.
func contested(p *plane, f finding) bool { return p.contested(f.call) }

// borrowed: a load balancer's address or an external IP is a ClusterIP of another
// Service, which does not have the port. kube-proxy masquerades all who call a
// ClusterIP from outside, whatever the port, and so hides them from local
// endpoints that should see them.
func (p *plane) borrowed(f finding) bool {
	frontend, _ := p.serve(f.call)
	_, clusterIP := p.oracle.Service.ClusterIPs.Get(f.call.to.Addr())
	hidden := f.answer.server.IsValid() && f.answer.seen == nodeAt(0)[model.FamilyOf(f.answer.seen)]
	right := slices.ContainsFunc(f.want, func(a answer) bool { return a.server == f.answer.server })
	return clusterIP && hidden && right && frontend != nil && frontend.Kind != service.ClusterIP
}

// toldTwice: an endpoint is in two slices for one port, and of those that say
// that it stays there are two that differ, or none at all. kube-proxy keeps its
// slices in a Go map and takes one that comes by chance; upstream calls the
// result undefined (see kubernetes#135266 for the case that is defined: one of
// two goes).
func toldTwice(p *plane, f finding) bool {
	of, port := p.served(f.call)
	if of == nil {
		return false
	}
	told := map[netip.AddrPort][]model.Endpoint{}
	for _, slice := range p.snapshot.Slices.All() {
		if slice.Namespace != of.Namespace || slice.Service != of.Name || slice.Family != port.Family {
			continue
		}
		for _, at := range slice.Ports {
			if at.Name != port.Name || at.Protocol != f.call.protocol {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				key := netip.AddrPortFrom(endpoint.Address, at.Port)
				told[key] = append(told[key], endpoint)
			}
		}
	}
	for _, all := range told {
		staying := slices.DeleteFunc(slices.Clone(all), func(e model.Endpoint) bool { return e.Terminating })
		if len(staying) == 0 {
			staying = all
		}
		if slices.ContainsFunc(staying, func(e model.Endpoint) bool { return !e.Equal(&staying[0]) }) {
			return true
		}
	}
	return false
}

// torn: a client that stays calls by a ClusterIP and by another address, of which
// one leads him to local endpoints alone. kube-proxy notes with each endpoint who
// has called it, whichever way, and takes the first endpoint that has the client.
func (p *plane) torn(f finding) bool {
	of, _ := p.served(f.call)
	return f.stays && of != nil && of.InternalLocal != (of.ExternalLocal && !f.call.client.inside)
}
