package gateway

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/fairlead-net/fairlead/model"
)

// Endpoints are where backends are. They are immutable.
type Endpoints struct {
	services model.Map[model.ServiceKey, *model.Service]
	names    model.Map[model.ServiceKey, *model.Name]
	slices   model.Map[model.SliceKey, *model.EndpointSlice]
	of       model.Map[model.ServiceKey, *slicesOf]
}

// slicesOf are those of one Service.
type slicesOf struct{ all []*model.EndpointSlice }

// EndpointsOf finds those of a snapshot.
func EndpointsOf(snapshot *model.Snapshot) *Endpoints { return (&Endpoints{}).Next(snapshot) }

// Next finds those of another snapshot. What it costs follows what has changed.
func (e *Endpoints) Next(snapshot *model.Snapshot) *Endpoints {
	next := &Endpoints{services: snapshot.Services, names: snapshot.Names, slices: snapshot.Slices, of: e.of}
	for change := range model.Diff(e.slices, snapshot.Slices) {
		if change.Had {
			next.replace(change.Old, nil)
		}
		if change.Has {
			next.replace(nil, change.New)
		}
	}
	return next
}

// replace takes one slice out of those of its Service, or puts one in.
func (e *Endpoints) replace(old, new *model.EndpointSlice) {
	slice := cmp.Or(old, new)
	key := model.ServiceKey{Namespace: slice.Namespace, Name: slice.Service}
	var all []*model.EndpointSlice
	if had, ok := e.of.Get(key); ok {
		all = slices.DeleteFunc(slices.Clone(had.all), func(s *model.EndpointSlice) bool { return s == old })
	}
	if new != nil {
		all = append(all, new)
	}
	if len(all) == 0 {
		e.of = e.of.Without(key)
		return
	}
	e.of = e.of.With(key, &slicesOf{all})
}

// Since returns the Services whose backends may be elsewhere than they were.
func (e *Endpoints) Since(prev *Endpoints) map[model.ServiceKey]bool {
	changed := map[model.ServiceKey]bool{}
	for change := range model.Diff(prev.of, e.of) {
		changed[change.Key] = true
	}
	for change := range model.Diff(prev.services, e.services) {
		changed[change.Key] = true
	}
	for change := range model.Diff(prev.names, e.names) {
		changed[change.Key] = true
	}
	return changed
}

// At returns where a backend takes requests, sorted: the endpoints that are ready,
// or else those that end and still answer (KEP-1672). None: there is no such
// Service or port, or nobody is ready.
func (e *Endpoints) At(b Backend) []netip.AddrPort {
	name, declared, ok := e.portName(b)
	if !ok {
		return nil
	}
	of, has := e.of.Get(b.Service)
	if !has {
		return nil
	}
	var ready, leaving []netip.AddrPort
	for _, slice := range of.all {
		for _, port := range slice.Ports {
			// A headless Service need not declare its ports: then one is the one.
			alone := !declared && b.Name == "" && (len(slice.Ports) == 1 || port.Port == b.Port)
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
	_, _, ok := e.portName(b)
	return ok
}

// portName is what slices call the port of a backend. declared says that the Service
// has such a port: it may be one without addresses, which need not say.
func (e *Endpoints) portName(b Backend) (port string, declared, ok bool) {
	if service, ok := e.services.Get(b.Service); ok {
		at := slices.IndexFunc(service.Ports, b.isPort)
		if at < 0 {
			return "", false, false
		}
		return service.Ports[at].Name, true, true
	}
	name, ok := e.names.Get(b.Service)
	if !ok {
		return "", false, false
	}
	if at := slices.IndexFunc(name.Ports, b.isPort); at >= 0 {
		return name.Ports[at].Name, true, true
	}
	return b.Name, false, true
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
