package routing

import (
	"iter"
	"maps"
	"strconv"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// meter returns what counts the requests of these names: what the last table had
// goes on. Two routes that only differ in how the path is compared are counted as
// one.
func (r *Router) meter(prev *Router, names gateway.Names) *gateway.Meter {
	if m := r.meters[names]; m != nil {
		return m
	}
	m := prev.meters[names]
	if m == nil {
		m = &gateway.Meter{Names: names}
	}
	r.meters[names] = m
	return m
}

// Meters are those of all hosts, routes and canaries.
func (r *Router) Meters() iter.Seq[*gateway.Meter] { return maps.Values(r.meters) }

// anyHost is how ingress-nginx writes the host of a rule that names none.
const anyHost = "_"

func hostNames(h *plan.Host) gateway.Names {
	if h.Name == "" {
		return gateway.Names{Host: anyHost}
	}
	return gateway.Names{Host: h.Name}
}

func routeNames(of *plan.Route) gateway.Names {
	n := gateway.Names{Host: of.Host, Path: of.Match.Path, Namespace: of.From.Namespace, Ingress: of.From.Name}
	if n.Host == "" {
		n.Host = anyHost
	}
	n.Service, n.Port = serviceNames(of.Backend)
	return n
}

func canaryNames(of *plan.Route, c *plan.Canary) gateway.Names {
	n := routeNames(of)
	n.Namespace, n.Ingress, n.Canary = c.From.Namespace, c.From.Name, true
	n.Service, n.Port = serviceNames(c.Backend)
	return n
}

func serviceNames(b plan.Backend) (service, port string) {
	if b.Port != 0 {
		return b.Service.Name, strconv.Itoa(int(b.Port))
	}
	return b.Service.Name, b.Name
}

// counts names what counts a request that goes to a backend.
func (r *route) counts(ask *gateway.Request, to *backend) {
	if to == r.backend {
		return
	}
	for _, c := range r.canaries {
		if c.backend == to {
			ask.Meter = c.meter
			return
		}
	}
}
