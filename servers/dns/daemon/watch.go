package daemon

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/observe/asker"
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
		Debug: map[string]http.HandlerFunc{"clients": d.serveClients, "top": d.serveTop, "trace": d.serveTrace},
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

// clients are all that have asked, those with most queries first. A pod of two
// addresses is one.
func (d *daemon) clients() []asker.Asker {
	type key struct{ namespace, pod string }
	by := map[key]*asker.Asker{}
	add := func(c *dns.Client, addresses ...netip.Addr) {
		k := key{c.Namespace, c.Name}
		if by[k] == nil {
			by[k] = &asker.Asker{Namespace: c.Namespace, Pod: c.Name}
		}
		by[k].Addresses = append(by[k].Addresses, addresses...)
		by[k].Queries += c.Queries.Load()
		by[k].Outside += c.Outside.Load()
		by[k].Nxdomain += c.Negative.Load()
		by[k].Refused += c.Refused.Load()
		by[k].Bytes += c.Bytes.Load()
	}
	_, _, _, totals := d.server.Counts()
	add(totals.Others)
	for addr, client := range d.served.Load().Pods.All() {
		add(client, addr)
	}
	all := []asker.Asker{}
	for _, client := range by {
		if client.Queries > 0 {
			slices.SortFunc(client.Addresses, netip.Addr.Compare)
			all = append(all, *client)
		}
	}
	asker.Sort(all)
	return all
}

func (d *daemon) serveClients(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(d.clients())
}

// The period that is looked at, if the question does not say it, and the longest.
const (
	topTime    = time.Second
	maxTopTime = 30 * time.Second
	mostNames  = 50 // that are told
)

// serveTop says who asks most in a period that begins now.
func (d *daemon) serveTop(w http.ResponseWriter, r *http.Request) {
	period := topTime
	if text := r.URL.Query().Get("over"); text != "" {
		var err error
		if period, err = time.ParseDuration(text); err != nil || period <= 0 || period > maxTopTime {
			http.Error(w, fmt.Sprintf("over: %q is no time of up to %s, such as 2s", text, maxTopTime), http.StatusBadRequest)
			return
		}
	}
	before, began, stop := d.clients(), time.Now(), d.server.WatchNames()
	select {
	case <-time.After(period):
	case <-r.Context().Done():
	}
	report := asker.Report{Seconds: time.Since(began).Seconds(), Askers: asker.Since(before, d.clients()), Names: []asker.Name{}}
	for _, n := range stop() {
		report.Names = append(report.Names, asker.Name{Name: n.Name.String(), Type: n.Type, Queries: n.Count})
	}
	asker.SortNames(report.Names)
	report.Names = report.Names[:min(len(report.Names), mostNames)]
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(report)
}
