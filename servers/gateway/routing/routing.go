package routing

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"unsafe"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// Router leads requests by a plan.
type Router struct {
	table    *plan.Table
	hosts    map[*plan.Host]*host
	routes   map[*plan.Route]*route
	backends map[way]*backend
	trusts   map[trustKey]*trust
	proofs   map[*plan.ClientCert]*proof
	limits   map[limitKey]*limit
	crowds   map[model.IngressKey]*crowd
	users    map[plan.BasicAuth]*users
	external map[*plan.ExternalAuth]*external
	silent   map[plan.Backend]struct{} // backends that there are, without an endpoint
	meters   map[gateway.Names]*gateway.Meter
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
	root         *gateway.Route  // of requests to /; nil: as all
	also         []gateway.Field // of all that is answered by TLS
	proof        *proof          // nil: clients show no certificate
	meter        *gateway.Meter  // of what no route takes
}

// route is one of the plan, ready to be taken.
type route struct {
	*plan.Route
	taken    *gateway.Route // as the plan says
	closed   *gateway.Route // of all requests; nil: it is open
	redirect *gateway.Route // instead of a backend; nil: none
	backend  *backend
	meter    *gateway.Meter
	canaries []*canary
	limits   []*limit
	crowd    *crowd // nil: a client may have any number of requests under way
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
		backends: map[way]*backend{}, limits: map[limitKey]*limit{}, users: map[plan.BasicAuth]*users{}, external: map[*plan.ExternalAuth]*external{},
		crowds: map[model.IngressKey]*crowd{}, trusts: map[trustKey]*trust{},
		proofs: map[*plan.ClientCert]*proof{}, silent: map[plan.Backend]struct{}{}, meters: map[gateway.Names]*gateway.Meter{},
	}
	at := func(w way) *backend { return r.backend(w, prev, &from) }
	for _, h := range table.Hosts.All() {
		made := newHost(h)
		made.meter = r.meter(prev, hostNames(h))
		if cert := h.ClientCert; cert != nil {
			if r.proofs[cert] == nil {
				r.proofs[cert] = newProof(cert, from.Secret(cert.CA), prev.proofs[cert])
			}
			made.proof = r.proofs[cert]
		}
		r.hosts[h] = made
		for _, of := range h.Routes {
			r.add(of, made, at, prev, &from)
		}
		if h.Default != nil {
			r.add(h.Default, made, at, prev, &from)
		}
	}
	return r
}

func (r *Router) add(of *plan.Route, on *host, backend func(way) *backend, prev *Router, from *Sources) {
	var asks *external
	if auth := of.Policy.ExternalAuth; auth != nil {
		if r.external[auth] == nil {
			r.external[auth] = newExternal(auth, prev.external[auth])
		}
		asks = r.external[auth]
	}
	made := newRoute(of, on, asks, backend)
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
	if of.Policy.Limits.Connections > 0 {
		if r.crowds[of.From] == nil {
			if r.crowds[of.From] = prev.crowds[of.From]; r.crowds[of.From] == nil {
				r.crowds[of.From] = &crowd{}
			}
		}
		made.crowd = r.crowds[of.From]
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
	if of.TLS {
		h.also = strictTransport
	}
	if of.AppRoot != "" {
		h.root = moved(http.StatusFound, func(into []byte, ask *gateway.Request) []byte {
			return append(appendOrigin(into, ask), of.AppRoot...)
		})
	}
	if of.Redirect != "" {
		h.other = moved(http.StatusPermanentRedirect, func(into []byte, r *gateway.Request) []byte {
			return appendTarget(append(append(append(into, scheme(r)...), "://"...), of.Redirect...), r)
		})
	}
	return h
}

// strictTransport has browsers come by TLS from now on (RFC 6797), as ingress-nginx
// does for hosts with a certificate. Of one that they do not trust they ignore it.
var strictTransport = []gateway.Field{{Name: "Strict-Transport-Security", Value: "max-age=31536000; includeSubDomains"}}

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

func newRoute(of *plan.Route, on *host, asks *external, backend func(way) *backend) *route {
	p := of.Policy
	r := &route{Route: of, external: asks, backend: backend(wayTo(of.Backend, p))}
	for _, c := range of.Canaries {
		r.canaries = append(r.canaries, newCanary(c, backend(wayTo(c.Backend, p))))
	}
	r.taken = &gateway.Route{
		MaxBody: p.MaxBody, Retry: newRetry(&p.Retry), Host: r.expanding(p.Host), NoLog: p.NoLog,
		Timeouts: gateway.Timeouts{Connect: p.Connect, Response: p.Read, Send: p.Send},
		Rate:     gateway.Rate{PerSecond: p.Limits.ResponseRate, After: p.Limits.ResponseRateAfter},
		Request:  r.edits(p.RequestHeaders), Response: r.edits(p.ResponseHeaders),
	}
	if p.Rewrite != "" {
		r.taken.Rewrite = r.rewritten
	}
	if p.Mirror != nil {
		r.taken.Mirror = &gateway.Mirror{To: r.expanding(p.Mirror.To), Host: p.Mirror.Host, NoBody: p.Mirror.NoBody}
	}
	if p.ErrorBackend != nil {
		r.taken.Instead = r.instead(backend(way{Backend: *p.ErrorBackend}))
	}
	r.editRequest(on)
	r.editResponse()
	if p.CORS != nil {
		r.cors = newCORS(p.CORS, r.taken)
	}
	if why := cmp.Or(p.Closed, r.backend.closed); why != "" {
		r.closed = refused(http.StatusServiceUnavailable, fmt.Sprintf("Ingress %s answers nobody: %s", of.From, why))
	}
	switch {
	case p.Redirect != nil:
		r.redirect = moved(p.Redirect.Code, r.expanding(p.Redirect.To))
	case p.Away():
		r.redirect = moved(http.StatusFound, r.rewritten)
	}
	return r
}

// editRequest says what changes of the heads that backends see.
func (r *route) editRequest(on *host) {
	p, edits := r.Policy, &r.taken.Request
	if p.Prefix != "" {
		edits.Set = append(edits.Set, gateway.Field{Name: "X-Forwarded-Prefix", Value: p.Prefix})
	}
	if p.BasicAuth != nil { // the password is no business of the backend
		edits.Remove = append(edits.Remove, "Authorization")
	}
	if on.proof != nil {
		edits.Set = append(edits.Set, on.proof.fields()...)
	}
	if r.external != nil {
		edits.Set = append(edits.Set, r.external.requestFields()...)
	}
}

// editResponse says what changes of the heads that clients see.
func (r *route) editResponse() {
	p, edits := r.Policy, &r.taken.Response
	edits.Change = r.renames()
	if r.external != nil {
		edits.Add = append(edits.Add, r.external.cookie())
	}
	if p.Affinity != nil {
		path := r.Match.Path
		if r.Match.Type == plan.MatchRegex {
			path = "/"
		}
		edits.Add = append(edits.Add, setCookie(p.Affinity, path))
	}
}

// rewritten appends what rewrite-target makes of a request, with its query.
func (r *route) rewritten(into []byte, ask *gateway.Request) []byte {
	at := len(into)
	into = append(into, r.Rewrite(text(ask.Path))...)
	if ask.Asked && bytes.IndexByte(into[at:], '?') >= 0 {
		return append(append(into, '&'), ask.Query...)
	}
	return appendQuery(into, ask)
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
			field.Fine = !edit.Always
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
	if ask.Secure {
		ask.Also = h.also
	}
	ask.Meter = h.meter
	if h.other != nil {
		return h.other, nil
	}
	if h.proof != nil && ask.Peer != nil {
		if no := h.proof.admit(ask); no != nil {
			return no, nil
		}
	}
	of, slash := r.table.Route(found, text(ask.Path))
	if of == nil {
		if h.root != nil && len(ask.Path) == 1 {
			return h.root, nil
		}
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
	case h.proof != nil && ask.Peer == nil && (p.ClientCert != nil || !challenged(ask.Path)) && h.proof.admit(ask) != nil:
		return h.proof.admit(ask), nil
	case h.root != nil && len(ask.Path) == 1:
		return h.root, nil
	case slash:
		return slashMissing, nil
	case to.redirect != nil:
		return to.redirect, nil
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
	if !to.within(ask) {
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
