package routing

import (
	"slices"
	"unique"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// way is a backend, and how it is called: routes that agree in it share connections.
type way struct {
	plan.Backend
	protocol plan.Protocol
	tls      plan.BackendTLS // of HTTPS and GRPCS
	one      bool            // its address, not its endpoints
	check    unique.Handle[plan.HealthCheck]
}

// wayTo is that of a policy.
func wayTo(b plan.Backend, p *plan.Policy) way {
	w := way{Backend: b, protocol: p.Protocol, one: p.OneAddress, check: p.Check}
	if p.BackendTLS != nil {
		w.tls = *p.BackendTLS
	}
	return w
}

// secured tells whether it is called by TLS.
func (w *way) secured() bool { return w.protocol == plan.HTTPS || w.protocol == plan.GRPCS }

// checked tells whether its endpoints are asked how they are.
func (w *way) checked() bool { return w.check != unique.Handle[plan.HealthCheck]{} }

// Checked is what gateway.Table wants: the backends whose endpoints are asked how they
// are.
func (r *Router) Checked() (all []*gateway.Backend) {
	if r.parts.checks == 0 {
		return nil
	}
	for w, h := range r.parts.backends {
		if w.checked() {
			all = append(all, h.value.Backend)
		}
	}
	return all
}

// backend is where a way leads, for a host.
func (p *parts) backend(w way, h *host, from *Sources) *backend {
	if w.secured() {
		secret := from.Secret(w.tls.Secret)
		key := trustKey{w.tls, w.Service}
		p.trusts.hold(key, &h.trusts, func() *trust { return newTrust(key, secret, nil) })
	}
	if w.checked() {
		p.checks++
		h.checks++
	}
	return p.backends.hold(w, &h.backends, func() *backend { return p.backendOf(w, from.Endpoints) })
}

// backendOf makes one, whose trust there is.
func (p *parts) backendOf(w way, from *plan.Endpoints) *backend {
	at := from.At
	if w.one {
		at = from.Own
	}
	made := newBackend(at(w.Backend))
	if !w.one {
		made.Name = from.Name(w.Backend)
	}
	made.silent = len(made.Endpoints) == 0 && made.Name == "" && from.Has(w.Backend)
	made.HTTP2 = w.protocol == plan.GRPC || w.protocol == plan.GRPCS
	if w.checked() {
		made.Check = unique.Make(gateway.Check(w.check.Value()))
	}
	if w.secured() {
		trust := p.trusts[trustKey{w.tls, w.Service}].value
		made.TLS, made.closed = trust.config, trust.closed
	}
	return made
}

// equal tells whether nothing differs.
func (b *backend) equal(other *backend) bool {
	return slices.Equal(b.Endpoints, other.Endpoints) && b.Name == other.Name && b.TLS == other.TLS &&
		b.HTTP2 == other.HTTP2 && b.silent == other.silent && b.closed == other.closed
}
