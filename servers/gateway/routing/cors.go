package routing

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// cors is what browsers are told of other origins (the Fetch standard, section
// 3.2).
type cors struct {
	*plan.CORS
	preflight *gateway.Route // the answer to OPTIONS
	taken     *gateway.Route // for all other requests
}

func newCORS(of *plan.CORS, taken *gateway.Route) *cors {
	c := &cors{CORS: of}
	fields := []gateway.Field{{Name: "Access-Control-Allow-Origin", Expand: func(into []byte, r *gateway.Request) []byte {
		if slices.Contains(of.Origins, "*") {
			return append(into, '*')
		}
		origin, _ := r.Get("origin")
		return append(into, origin...)
	}}}
	if !slices.Contains(of.Origins, "*") {
		fields = append(fields, gateway.Field{Name: "Vary", Value: "Origin"})
	}
	if !of.NoCredentials {
		fields = append(fields, gateway.Field{Name: "Access-Control-Allow-Credentials", Value: "true"})
	}
	fields = append(fields, gateway.Field{Name: "Access-Control-Allow-Methods", Value: of.Methods}, gateway.Field{Name: "Access-Control-Allow-Headers", Value: of.Headers})
	if of.Expose != "" {
		fields = append(fields, gateway.Field{Name: "Access-Control-Expose-Headers", Value: of.Expose})
	}
	fields = append(fields, gateway.Field{Name: "Access-Control-Max-Age", Value: strconv.Itoa(of.MaxAge)})
	c.preflight = &gateway.Route{Answer: &gateway.Answer{Status: http.StatusNoContent, Fields: fields}}
	with := *taken
	for _, field := range fields {
		if field.Name == "Vary" {
			with.Response.Add = append(slices.Clip(with.Response.Add), field)
		} else {
			with.Response.Set = append(slices.Clip(with.Response.Set), field)
		}
	}
	c.taken = &with
	return c
}

// knows tells whether an origin is one of those that may call. One that is written
// otherwise than browsers do is none.
func (c *cors) knows(origin []byte) bool {
	if len(origin) == 0 {
		return false
	}
	return slices.ContainsFunc(c.Origins, func(may string) bool {
		if may == "*" || strings.EqualFold(may, text(origin)) {
			return true
		}
		scheme, domain, ok := strings.Cut(may, "://*.")
		if !ok {
			return false
		}
		rest, ok := strings.CutPrefix(text(origin), scheme+"://")
		label, parent, dotted := strings.Cut(rest, ".")
		return ok && dotted && label != "" && isLabel(label) && strings.EqualFold(parent, domain)
	})
}

func isLabel(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0
}
