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
	table     *plan.Table
	hosts     model.Map[string, *host]
	endpoints *plan.Endpoints
	parts     *parts
	challenge func(host, token string) string // see Sources
	strict    []gateway.Field                 // of Sources.StrictTransport
}

// Sources are what a plan names and does not have.
type Sources struct {
	Endpoints *plan.Endpoints
	// Secret returns what a Secret has, by key, and nil if there is none.
	Secret func(plan.SecretKey) map[string][]byte
	// Challenge returns what an authority is answered that asks a host for a token by
	// HTTP; empty: nothing of that is known. nil: nothing is known of any.
	Challenge func(host, token string) string
	// StrictTransport has browsers come by TLS from now on (RFC 6797): it is the value of
	// Strict-Transport-Security in all that hosts with a certificate answer by TLS, as
	// ingress-nginx does it. Of one that they do not trust browsers ignore it. Empty: it is
	// not sent. It is the same for all Routers that follow one another.
	StrictTransport string
	// Here is that of gateway.Settings.
	Here bool
}

// host is one of the plan, ready to be asked for.
type host struct {
	other   *gateway.Route  // what answers instead; nil: nothing
	root    *gateway.Route  // of requests to /; nil: as all
	also    []gateway.Field // of all that is answered by TLS
	proof   *proof          // nil: clients show no certificate
	through *backend        // who speaks TLS itself; nil: nobody
	routes  map[*plan.Route]*route
	of      *plan.Host
	meter   *gateway.Meter // of what no route takes
	holds
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
// is shared, and what it costs follows the hosts whose plan, endpoints or Secrets
// have changed. No Router is made of the same prev twice.
func New(prev *Router, table *plan.Table, from Sources) *Router {
	if prev == nil {
		prev = &Router{table: &plan.Table{}, endpoints: &plan.Endpoints{}, parts: newParts()}
	}
	r := &Router{table: table, hosts: prev.hosts, endpoints: from.Endpoints, parts: prev.parts, challenge: from.Challenge, strict: prev.strict}
	if r.strict == nil && from.StrictTransport != "" {
		r.strict = []gateway.Field{{Name: "Strict-Transport-Security", Value: from.StrictTransport}}
	}
	stale := r.parts.refresh(prev.endpoints, &from)
	var left []*host // whose parts are given up last, so that others may take them over
	replace := func(name string, of *plan.Host) {
		old, ok := r.hosts.Get(name)
		if ok {
			left = append(left, old)
		}
		if of == nil {
			r.hosts = r.hosts.Without(name)
			return
		}
		r.hosts = r.hosts.With(name, r.newHost(of, old, &from))
	}
	for change := range model.Diff(prev.table.Hosts, table.Hosts) {
		replace(change.Key, change.New)
	}
	if stale.any() {
		for name, h := range prev.hosts.All() {
			if of, _ := table.Hosts.Get(name); of == h.of && stale.touches(&h.holds) {
				replace(name, of)
			}
		}
	}
	for _, h := range left {
		r.parts.release(&h.holds)
	}
	return r
}

// newHost makes what is asked for of one host.
func (r *Router) newHost(of *plan.Host, old *host, from *Sources) *host {
	counts := countingOf(old)
	h := &host{of: of, other: otherOf(of), routes: make(map[*plan.Route]*route, len(of.Routes)+1)}
	recorded := *from
	recorded.Secret = func(key plan.SecretKey) map[string][]byte {
		return r.parts.secrets.hold(key, &h.secrets, func() map[string][]byte { return from.Secret(key) })
	}
	h.meter = counts.meter(hostNames(of))
	if of.TLS {
		h.also = r.strict
	}
	if of.AppRoot != "" {
		h.root = moved(http.StatusFound, func(into []byte, ask *gateway.Request) []byte {
			return append(appendOrigin(into, ask), of.AppRoot...)
		})
	}
	if cert := of.ClientCert; cert != nil {
		secret := recorded.Secret(cert.CA)
		h.proof = r.parts.proofs.hold(cert, &h.proofs, func() *proof { return newProof(cert, secret, nil) })
	}
	at := func(w way) *backend { return r.parts.backend(w, h, &recorded) }
	if of.Passthrough != nil {
		h.through, h.passes = at(way{Backend: *of.Passthrough}), 1
		r.parts.passing++
	}
	for _, route := range of.Routes {
		r.add(h, route, at, counts, &recorded)
	}
	if of.Default != nil {
		r.add(h, of.Default, at, counts, &recorded)
	}
	return h
}

func (r *Router) add(h *host, of *plan.Route, backend func(way) *backend, counts counting, from *Sources) {
	var asks *external
	if auth := of.Policy.ExternalAuth; auth != nil {
		asks = r.parts.external.hold(auth, &h.external, func() *external { return newExternal(auth, from.Here) })
	}
	made := newRoute(of, h, asks, backend)
	if auth := of.Policy.BasicAuth; auth != nil {
		secret := from.Secret(auth.Secret)
		made.users = r.parts.users.hold(*auth, &h.users, func() *users { return newUsers(auth, secret, nil) })
	}
	for _, key := range limitsOf(of.From, of.Policy.Limits) {
		made.limits = append(made.limits, r.parts.limits.hold(key, &h.limits, func() *limit { return newLimit(key) }))
	}
	if of.Policy.Limits.Connections > 0 {
		made.crowd = r.parts.crowds.hold(of.From, &h.crowds, func() *crowd { return &crowd{} })
	}
	made.taken = r.parts.alike(made.taken)
	made.meter = counts.meter(routeNames(of))
	for i, c := range of.Canaries {
		made.canaries[i].meter = counts.meter(canaryNames(of, c))
	}
	h.routes[of] = made
}

// routeOf finds a route of the plan: it may be the one that takes what no host does.
func (r *Router) routeOf(h *host, of *plan.Route) *route {
	if to := h.routes[of]; to != nil {
		return to
	}
	all, _ := r.hosts.Get("")
	return all.routes[of]
}

// otherOf is what answers for a host that has another name; nil: it answers itself.
func otherOf(of *plan.Host) *gateway.Route {
	if of.Redirect == "" {
		return nil
	}
	return moved(http.StatusPermanentRedirect, func(into []byte, r *gateway.Request) []byte {
		return appendTarget(append(append(append(into, scheme(r)...), "://"...), of.Redirect...), r)
	})
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
	toHTTPS = moved(http.StatusPermanentRedirect, func(into []byte, r *gateway.Request) []byte {
		return appendTarget(append(append(into, "https://"...), r.Host...), r)
	})
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
		MaxBody: p.MaxBody, Retry: newRetry(&p.Retry), Host: r.expanding(p.Host),
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
	r.editRequest(on)
	r.editResponse()
	if p.ErrorBackend != nil {
		r.taken.Instead = r.instead(backend(way{Backend: *p.ErrorBackend}))
	}
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
		path := plan.EscapePath(r.Match.Path)
		if r.Match.Type == plan.MatchRegex {
			path = "/"
		}
		edits.Add = append(edits.Add, setCookie(p.Affinity, path))
	}
}

// rewritten appends what rewrite-target makes of a request, with its query.
func (r *route) rewritten(into []byte, ask *gateway.Request) []byte {
	at := len(into)
	into = append(into, r.Rewrite(text(ask.Decoded))...)
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
	if r.challenge != nil && challenged(ask.Decoded) {
		if answer := r.challenge(string(ask.Host), string(ask.Decoded[len(challengePath):])); answer != "" {
			return &gateway.Route{Answer: &gateway.Answer{Status: http.StatusOK, Body: []byte(answer)}}, nil
		}
	}
	found := r.table.Find(text(ask.Host))
	if found == nil {
		return nil, nil
	}
	h, _ := r.hosts.Get(found.Name)
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
	of, slash := r.table.Route(found, text(ask.Decoded))
	if of == nil {
		if h.root != nil && len(ask.Decoded) == 1 {
			return h.root, nil
		}
		return nil, nil
	}
	to := r.routeOf(h, of)
	ask.Meter, ask.Quiet = to.meter, of.Policy.NoLog
	if no := to.early(h, ask, slash); no != nil {
		return no, nil
	}
	return to.take(ask)
}

// take is what becomes of a request that nothing of the host stands in the way of.
func (to *route) take(ask *gateway.Request) (*gateway.Route, *gateway.Backend) {
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

// early returns the answer to a request for which nobody need be asked who sends it;
// nil: there is none.
func (r *route) early(h *host, ask *gateway.Request, slash bool) *gateway.Route {
	p := r.Policy
	switch {
	case r.closed != nil:
		return r.closed
	case !ask.Secure && (p.ForceHTTPS || p.RedirectHTTPS && h.of.TLS) && !challenged(ask.Decoded):
		return toHTTPS
	case h.proof != nil && ask.Peer == nil && (p.ClientCert != nil || !challenged(ask.Decoded)) && h.proof.admit(ask) != nil:
		return h.proof.admit(ask)
	case h.root != nil && len(ask.Decoded) == 1:
		return h.root
	case slash:
		return slashMissing
	case r.redirect != nil:
		return r.redirect
	}
	return nil
}

// challenged tells whether a certificate authority asks by HTTP for a proof (RFC
// 8555, section 8.3).
func challenged(path []byte) bool {
	return strings.HasPrefix(text(path), challengePath)
}

const challengePath = "/.well-known/acme-challenge/"

// text is bytes as a string, for whoever does not keep it.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
