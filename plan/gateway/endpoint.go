package gateway

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Endpoints are where backends are.
type Endpoints struct {
	services model.Map[model.ServiceKey, *model.Service]
	names    model.Map[model.ServiceKey, *model.Name]
	of       map[model.ServiceKey][]*model.EndpointSlice
}

// EndpointsOf finds those of a snapshot.
func EndpointsOf(snapshot *model.Snapshot) *Endpoints {
	e := &Endpoints{services: snapshot.Services, names: snapshot.Names, of: map[model.ServiceKey][]*model.EndpointSlice{}}
	for _, slice := range snapshot.Slices.All() {
		key := model.ServiceKey{Namespace: slice.Namespace, Name: slice.Service}
		e.of[key] = append(e.of[key], slice)
	}
	return e
}

// At returns where a backend takes requests, sorted: the endpoints that are ready,
// or else those that end and still answer (KEP-1672). None: there is no such
// Service or port, or nobody is ready.
func (e *Endpoints) At(b Backend) []netip.AddrPort {
	name, ok := e.portName(b)
	if !ok {
		return nil
	}
	_, served := e.services.Get(b.Service)
	var ready, leaving []netip.AddrPort
	for _, slice := range e.of[b.Service] {
		for _, port := range slice.Ports {
			// Of a headless Service only the endpoints tell the ports: one is the one.
			alone := !served && b.Name == "" && (len(slice.Ports) == 1 || port.Port == b.Port)
			if port.Protocol != model.TCP || port.Name != name && !alone {
				continue
			}
			for i := range slice.Endpoints {
				endpoint := &slice.Endpoints[i]
				at := netip.AddrPortFrom(endpoint.Address, port.Port)
				if endpoint.Ready {
					ready = append(ready, at)
				} else if endpoint.Serving && endpoint.Terminating {
					leaving = append(leaving, at)
				}
			}
		}
	}
	if len(ready) == 0 {
		ready = leaving
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	return slices.Compact(ready)
}

// Has tells whether there is such a Service, with such a port.
func (e *Endpoints) Has(b Backend) bool {
	_, ok := e.portName(b)
	return ok
}

// portName is what slices call the port of a backend.
func (e *Endpoints) portName(b Backend) (string, bool) {
	service, ok := e.services.Get(b.Service)
	if !ok {
		_, ok = e.names.Get(b.Service)
		return b.Name, ok
	}
	for _, port := range service.Ports {
		if port.Protocol == model.TCP && (b.Name != "" && port.Name == b.Name || b.Name == "" && (port.Port == b.Port || b.Port == 0)) {
			return port.Name, true
		}
	}
	return "", false
}
