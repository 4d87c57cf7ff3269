package ingress

import (
	"cmp"
	"io"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/gateway"
)

// Listed is one route. It only grows.
type Listed struct {
	Host    string   `json:"host"` // * is all that have no rules of their own
	Path    string   `json:"path"`
	Type    string   `json:"type"`
	Backend string   `json:"backend"`
	Ingress string   `json:"ingress"`
	TLS     []string `json:"tls,omitempty"` // Secrets
	// Ordered says that one of them is ordered by ACME: the one of namespace
	// fairlead-certificates.
	Ordered bool   `json:"ordered,omitempty"`
	Closed  string `json:"closed,omitempty"`
}

// List says which hosts and paths lead where, in the order in which they are tried.
func List(snapshot *model.Snapshot) []Listed {
	table, _ := compute(snapshot)
	all := []Listed{}
	for _, host := range table.Hosts.All() {
		add := func(route *gateway.Route, path string) {
			made := Listed{
				Host: cmp.Or(host.Name, "*"), Path: path, Type: route.Match.Type.String(), Backend: route.Backend.String(),
				Ingress: route.From.String(), Closed: route.Policy.Closed, Ordered: host.Asked != nil,
			}
			for _, secret := range host.Certificates {
				made.TLS = append(made.TLS, secret.String())
			}
			all = append(all, made)
		}
		for _, route := range host.Routes {
			add(route, route.Match.Path)
		}
		if host.Default != nil {
			add(host.Default, "(default)")
		}
		if host.Redirect != "" {
			all = append(all, Listed{Host: host.Name, Path: "/", Type: gateway.MatchPrefix.String(), Backend: "308 to " + host.Redirect})
		}
	}
	slices.SortStableFunc(all, func(a, b Listed) int { return cmp.Compare(a.Host, b.Host) })
	return all
}

// ListText writes it for people.
func ListText(to io.Writer, all []Listed) error {
	rows := [][]string{{"HOST", "PATH", "TYPE", "BACKEND", "INGRESS", "TLS"}}
	for i := range all {
		l := &all[i]
		backend := l.Backend
		if l.Closed != "" {
			backend = "503 (closed)"
		}
		rows = append(rows, []string{l.Host, l.Path, l.Type, backend, cmp.Or(l.Ingress, "–"), cmp.Or(strings.Join(l.TLS, ","), "–")})
	}
	var b strings.Builder
	columns(&b, rows)
	_, err := io.WriteString(to, b.String())
	return err
}
