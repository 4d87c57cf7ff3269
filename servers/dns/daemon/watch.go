package daemon

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/observe/httpd"
	"github.com/fairlead-net/fairlead/servers/dns"
)

// watch serves health and metrics.
func (d *daemon) watch() *httpd.Server {
	return &httpd.Server{
		Address: d.HealthAddress, MetricsAddress: d.MetricsAddress,
		// Whether it answers, the agent asks where clients do.
		Health: func() error { return nil },
		Ready:  d.ready, Metrics: d.handler(), Log: d.Log,
		Debug: map[string]http.HandlerFunc{"clients": d.serveClients, "trace": d.serveTrace},
	}
}

// ready tells whether all that is asked here is answered, and rightly.
func (d *daemon) ready() (text string, ready bool) {
	var lines strings.Builder
	ready = true
	check := func(done bool, what string, args ...any) {
		state := "ok"
		if !done {
			state, ready = "waiting", false
		}
		fmt.Fprintf(&lines, "%-8s %s\n", state, fmt.Sprintf(what, args...))
	}
	served := d.served.Load()
	check(served.Zone != nil, "names of the cluster are known, of revision %d", served.Revision)
	check(!served.Old, "they are of this boot of the node")
	open, missing := d.server.Listening()
	check(len(open) > 0 && len(missing) == 0, "queries are answered at %v; not at %v", open, missing)
	// It goes on without the agent, so this is no reason to send clients elsewhere.
	if d.receiver.Connected() {
		fmt.Fprintln(&lines, "ok       the agent tells what changes")
	} else {
		fmt.Fprintln(&lines, "note     there is no agent to tell what changes")
	}
	return lines.String(), ready
}

// Client is what one client has asked since the server knows it.
type Client struct {
	Namespace string `json:"namespace,omitempty"` // empty: all that are no pods of this node
	Pod       string `json:"pod,omitempty"`
	Queries   uint64 `json:"queries"`
	Outside   uint64 `json:"outside"`
	Nxdomain  uint64 `json:"nxdomain"`
	Refused   uint64 `json:"refused"`
}

// clients are all that have asked, those with most queries first. A pod of two
// addresses is one.
func (d *daemon) clients() (all []Client) {
	type key struct{ namespace, pod string }
	by := map[key]*Client{}
	add := func(c *dns.Client) {
		k := key{c.Namespace, c.Name}
		if by[k] == nil {
			by[k] = &Client{Namespace: c.Namespace, Pod: c.Name}
		}
		by[k].Queries += c.Queries.Load()
		by[k].Outside += c.Outside.Load()
		by[k].Nxdomain += c.Negative.Load()
		by[k].Refused += c.Refused.Load()
	}
	_, _, _, totals := d.server.Counts()
	add(totals.Others)
	for _, client := range d.served.Load().Pods.All() {
		add(client)
	}
	for _, client := range by {
		if client.Queries > 0 {
			all = append(all, *client)
		}
	}
	slices.SortFunc(all, func(a, b Client) int {
		return cmp.Or(cmp.Compare(b.Queries, a.Queries), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	return all
}

func (d *daemon) serveClients(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(d.clients())
}
