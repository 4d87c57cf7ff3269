package routing

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway/htpasswd"
)

// users are those of a Secret.
type users struct {
	*htpasswd.Users
	secret map[string][]byte
	wrong  []error        // lines that are not understood
	ask    *gateway.Route // of who has not said who he is
	closed *gateway.Route // of all, since there are no users; nil: there are
}

// newUsers reads a Secret. One that is as it was stays what it is.
func newUsers(auth *plan.BasicAuth, secret map[string][]byte, old *users) *users {
	if old != nil && maps.EqualFunc(old.secret, secret, bytes.Equal) {
		return old
	}
	u := &users{secret: secret}
	if auth.ByKey {
		u.Users, _ = htpasswd.Parse(nil)
		for _, name := range slices.Sorted(maps.Keys(secret)) {
			if err := u.Add(name, strings.TrimSpace(string(secret[name]))); err != nil {
				u.wrong = append(u.wrong, fmt.Errorf("key %s: %w", name, err))
			}
		}
	} else {
		u.Users, u.wrong = htpasswd.Parse(secret["auth"])
	}
	if u.Len() == 0 {
		u.closed = refused(http.StatusServiceUnavailable, fmt.Sprintf("Secret %s has no users, so nobody may", auth.Secret))
	}
	realm := auth.Realm
	if realm == "" {
		realm = "Authentication Required"
	}
	u.ask = refused(http.StatusUnauthorized, "say who you are, with a name and a password")
	u.ask.Answer.Fields = []gateway.Field{{Name: "WWW-Authenticate", Value: fmt.Sprintf("Basic realm=%q, charset=\"UTF-8\"", realm)}}
	return u
}

// knows tells whether a request says the name and the password of a user.
func (u *users) knows(ask *gateway.Request) bool {
	field, _ := ask.Get("authorization")
	kind, encoded, ok := bytes.Cut(field, []byte(" "))
	if !ok || !strings.EqualFold(text(kind), "Basic") {
		return false
	}
	plain, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(encoded)))
	if err != nil {
		return false
	}
	name, password, ok := strings.Cut(string(plain), ":")
	return ok && u.Check(name, password)
}

// admit returns the answer to who may not; nil: he may.
func (r *route) admit(ask *gateway.Request) *gateway.Route {
	p := r.Policy
	within := func(prefix netip.Prefix) bool { return prefix.Contains(ask.Client) }
	listed := len(p.Allow) == 0 || slices.ContainsFunc(p.Allow, within)
	switch {
	case slices.ContainsFunc(p.Deny, within):
		return forbidden
	case p.AnyAuth && len(p.Allow)+b2i(r.users != nil)+b2i(r.external != nil) > 0:
		return r.admitAny(ask, len(p.Allow) > 0 && listed)
	case !listed:
		return forbidden
	}
	if r.users != nil {
		if no := r.users.admit(ask); no != nil {
			return no
		}
	}
	if r.external != nil {
		return r.external.admit(r, ask)
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// admitAny is admit where one of all suffices.
func (r *route) admitAny(ask *gateway.Request, listed bool) (no *gateway.Route) {
	if listed {
		return nil
	}
	no = forbidden
	if r.users != nil {
		if no = r.users.admit(ask); no == nil {
			return nil
		}
	}
	if r.external != nil {
		said := r.external.admit(r, ask)
		if r.users != nil && said != nil && said.Answer.Status == http.StatusUnauthorized { // he may do either
			both := *said.Answer
			both.Fields = append(slices.Clip(both.Fields), no.Answer.Fields...)
			return &gateway.Route{Answer: &both}
		}
		return said
	}
	return no
}

func (u *users) admit(ask *gateway.Request) *gateway.Route {
	switch {
	case u.closed != nil:
		return u.closed
	case !u.knows(ask):
		return u.ask
	}
	return nil
}
