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

// backend is where a way leads, for a host.
func (p *parts) backend(h *host, w way, from *Sources) *backend {
	trust := p.trust(h, w, from)
	return p.backends.hold(w, &h.backends, func() *backend { return backendOf(w, trust, from.Endpoints) })
}

// secure tells whether endpoints are called by TLS.
func (w *way) secure() bool { return w.protocol == plan.HTTPS || w.protocol == plan.GRPCS }

// trust is how the endpoints are trusted; nil: they are not called by TLS.
func (p *parts) trust(h *host, w way, from *Sources) *trust {
	if !w.secure() {
		return nil
	}
	key, secret := trustKey{w.tls, w.Service}, from.Secret(w.tls.Secret)
	return p.trusts.hold(key, &h.trusts, func() *trust { return newTrust(key, secret, nil) })
}

// backendOf makes where a way leads.
func backendOf(w way, trust *trust, from *plan.Endpoints) *backend {
	var made *backend
	if w.one {
		made = newBackend(from.Own(w.Backend))
	} else {
		made = newBackend(from.At(w.Backend))
		made.Name = from.Name(w.Backend)
	}
	made.HTTP2 = w.protocol == plan.GRPC || w.protocol == plan.GRPCS
	if trust != nil {
		made.TLS, made.closed = trust.config, trust.closed
	}
	made.silent = len(made.Endpoints) == 0 && made.Name == "" && from.Has(w.Backend)
	return made
}

// is tells whether two lead to the same.
func (b *backend) is(other *backend) bool {
	return slices.Equal(b.Endpoints, other.Endpoints) && b.Name == other.Name && b.TLS == other.TLS && b.closed == other.closed && b.silent == other.silent
}
