package routing

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/fairlead-net/fairlead/servers/gateway"
)

// instead is who answers in the place of a backend: with custom-http-errors and
// default-backend. It is told what happened as ingress-nginx does.
func (r *route) instead(backend *backend) *gateway.Instead {
	field := func(name string, value func(into []byte, ask *gateway.Request) []byte) gateway.Field {
		return gateway.Field{Name: name, Expand: value}
	}
	return &gateway.Instead{
		Codes: r.Policy.ErrorCodes, Backend: backend.Backend,
		Route: &gateway.Route{
			Method: http.MethodGet, Timeouts: r.taken.Timeouts,
			Rewrite: func(into []byte, _ *gateway.Request) []byte { return append(into, '/') },
			Request: gateway.Edits{Remove: r.taken.Request.Remove, Set: append(slices.Clone(r.taken.Request.Set), []gateway.Field{
				field("X-Code", func(into []byte, ask *gateway.Request) []byte { return strconv.AppendInt(into, int64(ask.Status), 10) }),
				field("X-Format", func(into []byte, ask *gateway.Request) []byte {
					accept, _ := ask.Get("accept")
					return append(into, accept...)
				}),
				field("X-Original-URI", appendTarget),
				{Name: "X-Namespace", Value: r.From.Namespace}, {Name: "X-Ingress-Name", Value: r.From.Name},
				{Name: "X-Service-Name", Value: r.Backend.Service.Name}, {Name: "X-Service-Port", Value: r.Backend.PortText()},
			}...)},
		},
	}
}

// without returns who answers where a backend has no endpoint, or nil.
func (r *route) without(ask *gateway.Request, backend *backend) *gateway.Instead {
	if len(backend.Endpoints) > 0 || backend.Name != "" || r.taken.Instead == nil {
		return nil
	}
	ask.Status, ask.Prefer = http.StatusServiceUnavailable, 0
	return r.taken.Instead
}
