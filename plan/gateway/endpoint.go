package gateway

import (
	"net"
	"net/netip"
	"slices"
	"strconv"

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
	at := slices.IndexFunc(service.Ports, b.isPort)
	if at < 0 {
		return "", false
	}
	return service.Ports[at].Name, true
}

// Own is the address of a Service itself, in the place of its endpoints. None: it has
// none, as a headless one, or no such port.
func (e *Endpoints) Own(b Backend) []netip.AddrPort {
	service, ok := e.services.Get(b.Service)
	if !ok {
		return nil
	}
	at := slices.IndexFunc(service.Ports, b.isPort)
	if at < 0 || len(service.ClusterIPs) == 0 {
		return nil
	}
	return []netip.AddrPort{netip.AddrPortFrom(service.ClusterIPs[0], service.Ports[at].Port)}
}

// Name is the name of DNS, with a port, that a backend is at: of a Service of type
// ExternalName. Empty: it is of another.
func (e *Endpoints) Name(b Backend) string {
	name, ok := e.names.Get(b.Service)
	if !ok || name.External == "" {
		return ""
	}
	port := b.Port
	if at := slices.IndexFunc(name.Ports, b.isPort); at >= 0 {
		port = name.Ports[at].Port
	}
	if port == 0 {
		return ""
	}
	return net.JoinHostPort(name.External, strconv.Itoa(int(port)))
}

// isPort tells whether a port of its Service is meant.
func (b *Backend) isPort(p model.ServicePort) bool {
	return p.Protocol == model.TCP && (b.Name != "" && p.Name == b.Name || b.Name == "" && (p.Port == b.Port || b.Port == 0))
}
