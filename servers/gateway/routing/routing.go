package routing

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unsafe"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// Router leads requests by a plan.
type Router struct {
	table    *plan.Table
	hosts    map[*plan.Host]*host
	routes   map[*plan.Route]*route
	backends map[plan.Backend]*backend
	limits   map[limitKey]*limit
	users    map[plan.BasicAuth]*users
	external map[*plan.ExternalAuth]*external
	meters   map[gateway.Names]*gateway.Meter
	silent   map[plan.Backend]struct{} // backends that there are, without an endpoint
}

// Sources are what a plan names and does not have.
type Sources struct {
	Endpoints *plan.Endpoints
	// Secret returns what a Secret has, by key, and nil if there is none.
	Secret func(plan.SecretKey) map[string][]byte
}

// host has the answers of one.
type host struct {
	other, https *gateway.Route
	meter        *gateway.Meter // of what no route takes
}

// route is one of the plan, ready to be taken.
type route struct {
	*plan.Route
	taken    *gateway.Route // as the plan says
	closed   *gateway.Route // of all requests; nil: it is open
	redirect *gateway.Route // instead of a backend; nil: none
	root     *gateway.Route // of requests to /; nil: as all
	backend  *backend
	meter    *gateway.Meter
	canaries []*canary
	limits   []*limit
	users    *users // nil: all may
	external *external
	cors     *cors // nil: browsers are told nothing of other origins
}

// New makes the Router of a table. prev is the last or nil: what is the same in both
// is shared.
func New(prev *Router, table *plan.Table, from Sources) *Router {
	if prev == nil {
		prev = &Router{}
	}
	r := &Router{
		table: table, hosts: map[*plan.Host]*host{}, routes: map[*plan.Route]*route{},
		backends: map[plan.Backend]*backend{}, limits: map[limitKey]*limit{}, users: map[plan.BasicAuth]*users{}, external: map[*plan.ExternalAuth]*external{},
		meters: map[gateway.Names]*gateway.Meter{},
		silent: map[plan.Backend]struct{}{},
	}
	at := func(b plan.Backend) *backend {
		if made, ok := r.backends[b]; ok {
			return made
		}
		made := newBackend(from.Endpoints.At(b))
		if old, ok := prev.backends[b]; ok && slices.Equal(old.Endpoints, made.Endpoints) {
			made = old
		}
		if len(made.Endpoints) == 0 && from.Endpoints.Has(b) {
			r.silent[b] = struct{}{}
		}
		r.backends[b] = made
		return made
	}
	for _, h := range table.Hosts.All() {
		r.hosts[h] = newHost(h)
		r.hosts[h].meter = r.meter(prev, hostNames(h))
		for _, of := range h.Routes {
			r.add(of, at, prev, &from)
		}
		if h.Default != nil {
			r.add(h.Default, at, prev, &from)
		}
	}
	return r
}

func (r *Router) add(of *plan.Route, backend func(plan.Backend) *backend, prev *Router, from *Sources) {
	var asks *external
	if auth := of.Policy.ExternalAuth; auth != nil {
		if r.external[auth] == nil {
			r.external[auth] = newExternal(auth, prev.external[auth])
		}
		asks = r.external[auth]
	}
	made := newRoute(of, asks, backend)
	if auth := of.Policy.BasicAuth; auth != nil {
		if r.users[*auth] == nil {
			r.users[*auth] = newUsers(auth, from.Secret(auth.Secret), prev.users[*auth])
		}
		made.users = r.users[*auth]
	}
	for _, key := range limitsOf(of.From, of.Policy.Limits) {
		if r.limits[key] == nil {
			if r.limits[key] = prev.limits[key]; r.limits[key] == nil {
				r.limits[key] = newLimit(key)
			}
		}
		made.limits = append(made.limits, r.limits[key])
	}
	made.meter = r.meter(prev, routeNames(of))
	for i, c := range of.Canaries {
		made.canaries[i].meter = r.meter(prev, canaryNames(of, c))
	}
	r.routes[of] = made
}

func newHost(of *plan.Host) *host {
	h := &host{https: moved(http.StatusPermanentRedirect, func(into []byte, r *gateway.Request) []byte {
		return appendTarget(append(append(into, "https://"...), r.Host...), r)
	})}
	if of.Redirect != "" {
		h.other = moved(http.StatusPermanentRedirect, func(into []byte, r *gateway.Request) []byte {
			return appendTarget(append(append(append(into, scheme(r)...), "://"...), of.Redirect...), r)
		})
	}
	return h
}

// moved is a redirect.
func moved(status int, to func(into []byte, r *gateway.Request) []byte) *gateway.Route {
	return &gateway.Route{Answer: &gateway.Answer{Status: status, Location: to}}
}

// refused is an answer that says why.
func refused(status int, why string) *gateway.Route {
	return &gateway.Route{Answer: &gateway.Answer{Status: status, Body: []byte(why + "\n")}}
}

var (
	slashMissing = moved(http.StatusMovedPermanently, func(into []byte, r *gateway.Request) []byte {
		into = append(appendOrigin(into, r), r.Path...)
		return appendQuery(append(into, '/'), r)
	})
	tooMany   = refused(http.StatusServiceUnavailable, "you ask more often than you may; wait a moment")
	forbidden = refused(http.StatusForbidden, "who asks from your address may not")
)

func newRoute(of *plan.Route, asks *external, backend func(plan.Backend) *backend) *route {
	p := of.Policy
	r := &route{Route: of, external: asks, backend: backend(of.Backend)}
	for _, c := range of.Canaries {
		r.canaries = append(r.canaries, newCanary(c, backend(c.Backend)))
	}
	r.taken = &gateway.Route{
		MaxBody: p.MaxBody, Tries: p.Retry.Tries, Host: r.expanding(p.Host),
		Timeouts: gateway.Timeouts{Connect: p.Connect, Response: p.Read, Send: p.Send},
		Request:  r.edits(p.RequestHeaders), Response: r.edits(p.ResponseHeaders),
	}
	if p.Prefix != "" {
		r.taken.Request.Set = append(r.taken.Request.Set, gateway.Field{Name: "X-Forwarded-Prefix", Value: p.Prefix})
	}
	if p.Rewrite != "" {
		r.taken.Rewrite = func(into []byte, ask *gateway.Request) []byte {
			at := len(into)
			into = append(into, of.Rewrite(text(ask.Path))...)
			if ask.Asked && bytes.IndexByte(into[at:], '?') >= 0 {
				return append(append(into, '&'), ask.Query...)
			}
			return appendQuery(into, ask)
		}
	}
	if p.BasicAuth != nil { // the password is no business of the backend
		r.taken.Request.Remove = append(r.taken.Request.Remove, "Authorization")
	}
	if p.ErrorBackend != nil {
		r.taken.Instead = r.instead(backend(*p.ErrorBackend))
	}
	r.taken.Response.Change = renames(p)
	if asks != nil {
		request, response := asks.fields()
		r.taken.Request.Set = append(r.taken.Request.Set, request...)
		r.taken.Response.Add = append(r.taken.Response.Add, response...)
	}
	if p.Affinity != nil {
		path := of.Match.Path
		if of.Match.Type == plan.MatchRegex {
			path = "/"
		}
		r.taken.Response.Add = append(r.taken.Response.Add, setCookie(p.Affinity, path))
	}
	if p.CORS != nil {
		r.cors = newCORS(p.CORS, r.taken)
	}
	if why := closed(p); why != "" {
		r.closed = refused(http.StatusServiceUnavailable, fmt.Sprintf("Ingress %s answers nobody: %s", of.From, why))
	}
	switch {
	case p.Redirect != nil:
		r.redirect = moved(p.Redirect.Code, r.expanding(p.Redirect.To))
	case p.AppRoot != "":
		r.root = moved(http.StatusFound, func(into []byte, ask *gateway.Request) []byte {
			return append(appendOrigin(into, ask), p.AppRoot...)
		})
	}
	return r
}

// closed is why nobody is let in: what a policy wants, and the engine has not yet,
// closes it as well.
func closed(p *plan.Policy) string {
	switch {
	case p.Closed != "":
		return p.Closed
	case p.ClientCert != nil:
		return "certificates of clients (auth-tls-secret) cannot be asked for yet"
	case p.Limits.Connections > 0:
		return "connections (limit-connections) cannot be limited yet"
	case p.Protocol != plan.HTTP:
		return fmt.Sprintf("backends of protocol %s (backend-protocol) cannot be called yet", p.Protocol)
	}
	return ""
}

// expanding is what appends a template; nil: there is none.
func (r *route) expanding(t *plan.Template) func(into []byte, ask *gateway.Request) []byte {
	if t == nil {
		return nil
	}
	return func(into []byte, ask *gateway.Request) []byte { return t.Expand(into, r.value(ask)) }
}

// edits are those of headers, as the engine has them.
func (r *route) edits(all []plan.HeaderEdit) (e gateway.Edits) {
	for _, edit := range all {
		field := gateway.Field{Name: edit.Name, Value: edit.Value.String()}
		if !edit.Value.Plain() {
			field.Expand = r.expanding(edit.Value)
		}
		switch {
		case edit.Value == nil:
			e.Remove = append(e.Remove, edit.Name)
		case edit.Add:
			e.Add = append(e.Add, field)
		default:
			e.Set = append(e.Set, field)
		}
	}
	return e
}

// Route says what becomes of a request: it is the order of ingress-nginx, of which
// docs/ingress.md tells.
func (r *Router) Route(ask *gateway.Request) (*gateway.Route, *gateway.Backend) {
	found := r.table.Find(text(ask.Host))
	if found == nil {
		return nil, nil
	}
	h := r.hosts[found]
	ask.Meter = h.meter
	if h.other != nil {
		return h.other, nil
	}
	of, slash := r.table.Route(found, text(ask.Path))
	if of == nil {
		return nil, nil
	}
	to := r.routes[of]
	p := of.Policy
	ask.Meter, ask.Quiet = to.meter, p.NoLog
	switch {
	case to.closed != nil:
		return to.closed, nil
	case !ask.Secure && (p.ForceHTTPS || p.RedirectHTTPS && found.TLS) && !challenged(ask.Path):
		return h.https, nil
	case slash:
		return slashMissing, nil
	case to.redirect != nil:
		return to.redirect, nil
	case to.root != nil && len(ask.Path) == 1:
		return to.root, nil
	}
	taken := to.taken
	if to.cors != nil {
		if origin, _ := ask.Get("origin"); to.cors.knows(origin) {
			if string(ask.Method) == http.MethodOptions {
				return to.cors.preflight, nil // browsers say no password with it
			}
			taken = to.cors.taken
		}
	}
	if !to.within(ask.Client) {
		return tooMany, nil
	}
	if no := to.admit(ask); no != nil {
		return no, nil
	}
	backend, place := to.chosen(ask)
	to.counts(ask, backend)
	if other := to.without(ask, backend); other != nil {
		return other.Route, other.Backend
	}
	to.stick(ask, backend, place)
	return taken, backend.Backend
}

// challenged tells whether a certificate authority asks by HTTP for a proof (RFC
// 8555, section 8.3).
func challenged(path []byte) bool {
	return strings.HasPrefix(text(path), "/.well-known/acme-challenge/")
}

// text is bytes as a string, for whoever does not keep it.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
