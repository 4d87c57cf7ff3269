package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// newHost makes what becomes of requests to a name, from all that have a say in it,
// the oldest first.
func newHost(name string, drafts []*draft) *Host {
	h := &Host{Name: name}
	by := map[matchKey]*Route{}
	rulers := slices.DeleteFunc(slices.Clone(drafts), func(d *draft) bool { return d.hosts[name] != ruling && d.hosts[name] != guest })
	mains, canaries := []*draft(nil), []*draft(nil)
	for _, d := range rulers {
		if d.settings.canary.on {
			canaries = append(canaries, d)
		} else {
			mains = append(mains, d)
		}
	}
	h.absent = len(mains) == 0
	expressive := map[string]bool{} // namespaces
	for _, d := range mains {
		if d.settings.regex || d.settings.Rewrite != "" {
			expressive[d.ingress.Namespace] = true
		}
	}
	for rank, d := range mains {
		h.take(d, rank, expressive, by)
	}
	for _, d := range canaries {
		h.attach(d, expressive[d.ingress.Namespace], by)
	}
	h.ask(mains)
	h.order()
	sortRoutes(h.Routes)
	if len(expressive) == 0 || !h.shared() {
		h.index = newIndex(h.Routes)
		return h
	}
	// Each namespace has its own: expressions of others are none of its business, as
	// they are with ingress-nginx.
	h.index = newIndexes(h.Routes)
	slices.SortStableFunc(h.Routes, func(a, b *Route) int { return cmp.Compare(b.Match.reach(), a.Match.reach()) })
	return h
}

// shared tells whether several namespaces have paths of the host.
func (h *Host) shared() bool {
	return slices.ContainsFunc(h.Routes, func(r *Route) bool { return r.From.Namespace != h.Routes[0].From.Namespace })
}

// take adds what an Ingress says of the host.
func (h *Host) take(d *draft, rank int, expressive map[string]bool, by map[matchKey]*Route) {
	policy := h.prove(d)
	for i := range d.paths {
		c := &d.paths[i]
		if c.host != h.Name {
			continue
		}
		match, err := matchOf(c.path, expressive[d.ingress.Namespace])
		if err != nil {
			h.misread(d, c, err)
			if d.policy.guards() && !errors.Is(err, errAboveRoot) {
				h.Routes = append(h.Routes, shut(h.Name, d, c, rank, err))
			}
			continue
		}
		if other := h.covers(d, &match); other != nil {
			h.wrong(d, c.field, "PathTaken", fmt.Sprintf("path %s of host %q begins as path %s of Ingress %s does, which is older and of another namespace: the expression takes nothing of it",
				c.path.Path, h.Name, other.Match.Path, other.From), "have the expression begin with more text, or make both Ingresses in one namespace")
			continue
		}
		if other := by[match.key()]; other != nil {
			h.wrong(d, c.field, "PathTaken", fmt.Sprintf("path %s of host %q is that of Ingress %s, which is older", c.path.Path, h.Name, other.From),
				"remove the path from one of the two")
			continue
		}
		route := &Route{
			Host: h.Name, Match: match, From: d.ingress.IngressKey, Field: c.field, Backend: d.backend(c.path.Backend), Policy: policy, rank: rank,
		}
		h.Routes, by[match.key()] = append(h.Routes, route), route
	}
	if b := d.ingress.Default; b != nil && b.Resource == "" && h.Default == nil {
		h.Default = &Route{
			Host: h.Name, Match: Match{Type: MatchPrefix, Path: "/"}, From: d.ingress.IngressKey, Field: "spec.defaultBackend",
			Backend: d.backend(*b), Policy: policy,
		}
	}
	if own := h.owner(d); h.AppRoot == "" && own {
		h.AppRoot = d.policy.AppRoot
	}
	h.secure(d)
}

// covers returns the route of another namespace, which is older, that has all that an
// expression could match; nil: there is none.
func (h *Host) covers(d *draft, match *Match) *Route {
	if match.Type != MatchRegex {
		return nil
	}
	at := slices.IndexFunc(h.Routes, func(r *Route) bool {
		return r.From.Namespace != d.ingress.Namespace && (r.Match.Type == MatchPrefix || r.Match.Type == MatchText) &&
			strings.EqualFold(strings.TrimRight(r.Match.Path, "/"), strings.TrimRight(match.literal, "/"))
	})
	if at < 0 {
		return nil
	}
	return h.Routes[at]
}

// prove has the clients of the host show a certificate, if an Ingress says so, and
// returns its policy: closed, if an older one wants another certificate.
func (h *Host) prove(d *draft) *Policy {
	cert := d.policy.ClientCert
	if h.ClientCert == nil {
		h.ClientCert = cert
	}
	if cert == nil || cert.equal(h.ClientCert) {
		return d.policy
	}
	why := fmt.Sprintf("an older Ingress asks the clients of host %q for another certificate, and it is for all of the host", h.Name)
	h.wrong(d, "metadata.annotations["+prefix+"auth-tls-secret]", "OtherProof", why+"; until then all requests to this Ingress are answered with 503",
		"say the same in all Ingresses of the host, or in one of them only")
	closed := *d.policy
	closed.Closed = why
	return &closed
}

// misread says that a path is none.
func (h *Host) misread(d *draft, c *claim, err error) {
	if errors.Is(err, errAboveRoot) {
		h.wrong(d, c.field+".path", "NoPath", fmt.Sprintf("%q: %v, and no request has such a one", clip(c.path.Path), err), "write it without ..")
		return
	}
	h.wrong(d, c.field+".path", "NoExpression", fmt.Sprintf("%q: %v", clip(c.path.Path), err),
		"write the expression in RE2 (https://github.com/google/re2/wiki/Syntax); requests to it go where they would without it, or are answered with 503 if the Ingress protects it")
}

// shut is the route of a path that is protected, and whose expression is none: what
// it may have meant is not to go by the rules of others.
func shut(host string, d *draft, c *claim, rank int, err error) *Route {
	closed := *d.policy
	closed.Closed = fmt.Sprintf("path %q, which is protected, is not understood: %v", clip(c.path.Path), err)
	literal := literalOf(c.path.Path)
	return &Route{
		Host: host, From: d.ingress.IngressKey, Field: c.field, Backend: d.backend(c.path.Backend), Policy: &closed, rank: rank,
		Match: Match{Type: MatchRegex, Path: c.path.Path, Expression: regexp.MustCompile("(?i)^" + regexp.QuoteMeta(literal)), literal: literal},
	}
}

// attach adds canaries to the routes that they are of.
func (h *Host) attach(d *draft, regex bool, by map[matchKey]*Route) {
	for i := range d.paths {
		c := &d.paths[i]
		if c.host != h.Name {
			continue
		}
		match, err := matchOf(c.path, regex)
		main := by[match.key()]
		if err != nil || main == nil {
			h.wrong(d, c.field, "NoMain", fmt.Sprintf("no Ingress but canaries has path %s of host %q", c.path.Path, h.Name),
				"make one with the same host, path and pathType, and without the annotation canary")
			continue
		}
		if d.ingress.Namespace != main.From.Namespace {
			h.wrong(d, c.field, "NotYours", fmt.Sprintf("path %s of host %q is of Ingress %s, and only its namespace may have canaries of it", c.path.Path, h.Name, main.From),
				"make the canary in namespace "+main.From.Namespace)
			continue
		}
		s := &d.settings.canary
		main.Canaries = append(main.Canaries, &Canary{
			Backend: d.backend(c.path.Backend), From: d.ingress.IngressKey,
			Header: s.header, Value: s.value, Pattern: s.pattern, Cookie: s.cookie, Weight: min(s.weight, s.total), Total: s.total,
		})
	}
}

// owner tells whether an Ingress is in the namespace of the oldest one that has paths
// of the host: what is for all of a host is not for others to say.
func (h *Host) owner(d *draft) bool {
	if len(h.Routes) > 0 {
		return h.Routes[0].From.Namespace == d.ingress.Namespace
	}
	return h.Default == nil || h.Default.From.Namespace == d.ingress.Namespace
}

// secure adds the certificates that an Ingress has for the host.
func (h *Host) secure(d *draft) {
	for _, tls := range d.ingress.TLS {
		if !means(&tls, h.Name) {
			continue
		}
		h.TLS = true
		secret := SecretKey{Namespace: d.ingress.Namespace, Name: tls.Secret}
		if tls.Secret != "" && !slices.Contains(h.Certificates, secret) {
			h.Certificates = append(h.Certificates, secret)
		}
	}
	if d.settings.passthrough && h.Passthrough == nil && h.owner(d) {
		for _, route := range h.Routes {
			if route.From == d.ingress.IngressKey && (route.Match.Path == "/" || route.Match.Path == "") {
				h.Passthrough = &route.Backend
			}
		}
	}
}

// means tells whether an entry of spec.tls is for a host.
func means(tls *model.IngressTLS, host string) bool {
	return len(tls.Hosts) == 0 || slices.ContainsFunc(tls.Hosts, func(name string) bool { return covers(name, host) })
}

// covers tells whether a name of TLS means a host.
func covers(name, host string) bool {
	if name == host {
		return true
	}
	if len(name) < 3 || name[:2] != "*." {
		return false
	}
	for i := range host {
		if host[i] == '.' {
			return i > 0 && host[i:] == name[1:]
		}
	}
	return false
}

// matchKey is what no two routes of a host have.
type matchKey struct {
	MatchType
	path string
}

func (m *Match) key() matchKey {
	if m.Type == MatchPrefix { // a slash at its end says nothing
		return matchKey{m.Type, strings.TrimRight(m.Path, "/")}
	}
	return matchKey{m.Type, m.Path}
}

func matchOf(path model.IngressPath, regex bool) (Match, error) {
	if regex {
		return regexMatch(path.Path)
	}
	normal, err := NormalPath(path.Path)
	match := Match{Path: normal}
	switch path.Type {
	case model.PathExact:
		match.Type = MatchExact
	case model.PathPrefix:
		match.Type = MatchPrefix
	default:
		match.Type = MatchText
	}
	return match, err
}

func (h *Host) wrong(d *draft, field, reason, message, remedy string) {
	h.problems = append(h.problems, problemOf(d.ingress, field, reason, message, remedy))
}
