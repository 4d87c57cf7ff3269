package routing

import (
	"bytes"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// renames are the changes of Location and Set-Cookie that a policy wants: what a
// backend says of itself, as clients see it.
func renames(p *plan.Policy) (all []gateway.Change) {
	if p.RedirectFrom != nil {
		from, to := []byte(p.RedirectFrom.From), p.RedirectFrom.To
		all = append(all, gateway.Change{Name: "Location", To: func(into, value []byte, _ *gateway.Request) []byte {
			if rest, ok := bytes.CutPrefix(value, from); ok {
				return append(append(into, to...), rest...)
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
			into = append(append(append(into, name...), '='), renamed(is, p.CookieDomain, bytes.EqualFold)...)
		default:
			into = append(into, attribute...)
		}
		first = false
	}
	return into
}

func renamed(value []byte, all []plan.Rename, is func(value, from []byte) bool) []byte {
	for _, r := range all {
		if is(value, []byte(r.From)) {
			return append([]byte(r.To), value[len(r.From):]...)
		}
	}
	return value
}
