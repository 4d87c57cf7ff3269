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
	backend *gateway.Backend
}

func newCanary(of *plan.Canary, backend *gateway.Backend) *canary {
	return &canary{of, strings.ToLower(of.Header), backend}
}

// takes tells whether a request is the canary's: as its header says, then its
// cookie, and then by chance.
func (c *canary) takes(r *gateway.Request) bool {
	if c.header != "" {
		switch v, ok := r.Get(c.header); {
		case !ok:
		case c.Value != "":
			if string(v) == c.Value {
				return true
			}
		case c.Pattern != nil:
			if c.Pattern.Match(v) {
				return true
			}
		case string(v) == "always":
			return true
		case string(v) == "never":
			return false
		}
	}
	if c.Cookie != "" {
		switch string(cookie(r, c.Cookie)) {
		case "always":
			return true
		case "never":
			return false
		}
	}
	return c.Weight > 0 && rand.IntN(c.Total) < c.Weight
}
