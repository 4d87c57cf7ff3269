package routing

import (
	"slices"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
)

// way is a backend, and how it is called: routes that agree in it share connections.
type way struct {
	plan.Backend
	protocol plan.Protocol
	tls      plan.BackendTLS // of HTTPS and GRPCS
	one      bool            // its address, not its endpoints
}

// wayTo is that of a policy.
func wayTo(b plan.Backend, p *plan.Policy) way {
	w := way{Backend: b, protocol: p.Protocol, one: p.OneAddress}
	if p.BackendTLS != nil {
		w.tls = *p.BackendTLS
	}
	return w
}

// backend is where a way leads.
func (r *Router) backend(w way, prev *Router, from *Sources) *backend {
	if made, ok := r.backends[w]; ok {
		return made
	}
	var made *backend
	if w.one {
		made = newBackend(from.Endpoints.Own(w.Backend))
	} else {
		made = newBackend(from.Endpoints.At(w.Backend))
		made.Name = from.Endpoints.Name(w.Backend)
	}
	made.HTTP2 = w.protocol == plan.GRPC || w.protocol == plan.GRPCS
	if w.protocol == plan.HTTPS || w.protocol == plan.GRPCS {
		key := trustKey{w.tls, w.Service}
		if r.trusts[key] == nil {
			r.trusts[key] = newTrust(key, from.Secret(w.tls.Secret), prev.trusts[key])
		}
		made.TLS, made.closed = r.trusts[key].config, r.trusts[key].closed
	}
	if old, ok := prev.backends[w]; ok && slices.Equal(old.Endpoints, made.Endpoints) && old.Name == made.Name && old.TLS == made.TLS {
		made = old
	}
	if len(made.Endpoints) == 0 && made.Name == "" && from.Endpoints.Has(w.Backend) {
		r.silent[w.Backend] = struct{}{}
	}
	r.backends[w] = made
	return made
}
