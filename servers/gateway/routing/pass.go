package routing

import "github.com/fairlead-net/fairlead/servers/gateway"

// Passes is what gateway.Table wants: who speaks TLS with clients himself. It is nil
// where nobody does.
func (r *Router) Passes() func(name string) *gateway.Backend {
	if r.parts.passing == 0 {
		return nil
	}
	return func(name string) *gateway.Backend {
		found := r.table.Find(name)
		if found == nil {
			return nil
		}
		if h, _ := r.hosts.Get(found.Name); h.through != nil {
			return h.through.Backend
		}
		return nil
	}
}
