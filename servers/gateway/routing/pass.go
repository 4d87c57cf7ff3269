package routing

import "github.com/fairlead-net/fairlead/servers/gateway"

// Passes is what gateway.Table wants: who speaks TLS with clients himself. It is nil
// where nobody does.
func (r *Router) Passes() func(name string) *gateway.Backend {
	if !r.passing {
		return nil
	}
	return func(name string) *gateway.Backend {
		host := r.table.Find(name)
		if host == nil || r.hosts[host].through == nil {
			return nil
		}
		return r.hosts[host].through.Backend
	}
}
