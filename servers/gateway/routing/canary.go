package routing

import (
	"math/rand/v2"
	"strings"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// canary takes some requests of a route.
type canary struct {
	*plan.Canary
	header  string // in lower case
	backend *backend
	meter   *gateway.Meter
}

func newCanary(of *plan.Canary, backend *backend) *canary {
	return &canary{Canary: of, header: strings.ToLower(of.Header), backend: backend}
}

// asked tells whether a request chooses the canary, or chooses not to, by its
// header or its cookie.
func (c *canary) asked(r *gateway.Request) (decided, takes bool) {
	if c.header != "" {
		switch v, ok := r.Get(c.header); {
		case !ok:
		case c.Value != "":
			if string(v) == c.Value {
				return true, true
			}
		case c.Pattern != nil:
			if c.Pattern.Match(v) {
				return true, true
			}
		case string(v) == "always":
			return true, true
		case string(v) == "never":
			return true, false
		}
	}
	if c.Cookie != "" {
		switch string(cookie(r, c.Cookie)) {
		case "always":
			return true, true
		case "never":
			return true, false
		}
	}
	return false, false
}

// drawn tells whether one that did not choose is the canary's by chance.
func (c *canary) drawn() bool { return c.Weight > 0 && rand.IntN(c.Total) < c.Weight }

// chosen returns the backend that takes a request, and the place in it of the
// endpoint that the client has a cookie of, counted from 1; 0: it has none. Who has
// one stays, unless he asks for another.
func (r *route) chosen(ask *gateway.Request) (*backend, int) {
	kept := r.kept(ask)
	open := r.canaries[:0:0]
	for _, c := range r.canaries {
		decided, takes := c.asked(ask)
		if takes {
			return c.backend, c.backend.place(kept)
		}
		if !decided {
			open = append(open, c)
		}
	}
	if kept != 0 && (r.Policy.Affinity == nil || !r.Policy.Affinity.NoCanary) {
		for _, c := range open {
			if at := c.backend.place(kept); at > 0 {
				return c.backend, at
			}
		}
		if at := r.backend.place(kept); at > 0 {
			return r.backend, at
		}
	}
	for _, c := range open {
		if c.drawn() {
			return c.backend, c.backend.place(kept)
		}
	}
	return r.backend, r.backend.place(kept)
}
