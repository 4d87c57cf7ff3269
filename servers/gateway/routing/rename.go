package routing

import (
	"bytes"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// renames are the changes of Location and Set-Cookie that a policy wants: what a
// backend says of itself, as clients see it.
func (r *route) renames() (all []gateway.Change) {
	p := r.Policy
	if p.RedirectFrom != nil {
		from, to := r.expanding(p.RedirectFrom), r.expanding(p.RedirectTo)
		all = append(all, gateway.Change{Name: "Location", To: func(into, value []byte, ask *gateway.Request) []byte {
			if rest, ok := bytes.CutPrefix(value, from(nil, ask)); ok {
				return append(to(into, ask), rest...)
			}
			return append(into, value...)
		}})
	}
	if len(p.CookiePath)+len(p.CookieDomain) > 0 {
		all = append(all, gateway.Change{Name: "Set-Cookie", To: func(into, value []byte, _ *gateway.Request) []byte {
			return appendCookie(into, value, p)
		}})
	}
	return all
}

// appendCookie appends a cookie with another path or domain: of the path its
// beginning is replaced, the domain whole.
func appendCookie(into, value []byte, p *plan.Policy) []byte {
	first := true
	for attribute := range bytes.SplitSeq(value, []byte(";")) {
		if !first {
			into = append(into, ';')
		}
		name, is, _ := bytes.Cut(attribute, []byte("="))
		switch {
		case first:
			into = append(into, attribute...)
		case bytes.EqualFold(bytes.TrimSpace(name), []byte("path")):
			into = append(append(append(into, name...), '='), renamed(is, p.CookiePath, bytes.HasPrefix)...)
		case bytes.EqualFold(bytes.TrimSpace(name), []byte("domain")):
			into = append(append(append(into, name...), '='), renamed(undotted(is), p.CookieDomain, isDomain)...)
		default:
			into = append(into, attribute...)
		}
		first = false
	}
	return into
}

// isDomain compares domains of cookies: a dot at the beginning says nothing (RFC 6265,
// section 5.2.3).
func isDomain(value, from []byte) bool { return bytes.EqualFold(value, undotted(from)) }

func undotted(domain []byte) []byte { return bytes.TrimPrefix(domain, []byte(".")) }

func renamed(value []byte, all []plan.Rename, is func(value, from []byte) bool) []byte {
	for _, r := range all {
		if is(value, []byte(r.From)) {
			return append([]byte(r.To), value[min(len(r.From), len(value)):]...)
		}
	}
	return value
}
