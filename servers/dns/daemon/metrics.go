package daemon

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/metric"
	"github.com/fairlead-net/fairlead/servers/dns"
	"github.com/fairlead-net/fairlead/servers/dns/forward"
)

// handler serves the metrics.
func (d *daemon) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		metric.Build(d.Version),
		metric.Read(serverReadings(), d.readServer),
		metric.Read(forwardReadings(), func(emit metric.Emit) error {
			d.forward.Read(emit)
			return nil
		}),
		histograms{d},
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, Registry: registry})
}

// serverReadings are of the server. Where CoreDNS's names mean the same they are
// CoreDNS's; its labels server and view are left out, since there is one of each.
func serverReadings() []metric.Reading {
	client := []string{"namespace", "pod"}
	return []metric.Reading{
		{Name: "coredns_dns_requests_total", Help: "Queries that were answered. The zone is the cluster's domain, arpa. for names of the cluster's addresses, and . for all else.", Labels: []string{"zone", "proto", "family", "type"}, Counter: true},
		{Name: "coredns_dns_responses_total", Help: "Answers, by what they say.", Labels: []string{"zone", "rcode"}, Counter: true},
		{Name: "fairlead_dns_completed_total", Help: "First queries of a search that were answered as the last of it would have been.", Counter: true},
		{Name: "fairlead_dns_truncated_total", Help: "Answers that were too long for UDP.", Counter: true},
		{Name: "fairlead_dns_ignored_total", Help: "Messages that were no queries, and were not answered.", Counter: true},
		{Name: "fairlead_dns_strangers_total", Help: "Queries from outside of the cluster, which were not answered.", Counter: true},
		{Name: "fairlead_dns_lost_answers_total", Help: "Answers that the kernel did not take.", Counter: true},
		{Name: "fairlead_dns_pending", Help: "Queries for which others are being asked."},
		{Name: "fairlead_dns_connections", Help: "TCP connections of clients."},
		{Name: "fairlead_dns_client_connections_total", Help: "TCP connections that each pod of this node has opened; without a name: all others.", Labels: client, Counter: true},
		{Name: "fairlead_dns_client_queries_total", Help: "Queries of each pod of this node; without a name: of all others.", Labels: client, Counter: true},
		{Name: "fairlead_dns_client_outside_total", Help: "Queries of each pod of this node for names that are not the cluster's.", Labels: client, Counter: true},
		{Name: "fairlead_dns_client_nxdomain_total", Help: "Queries of each pod of this node for names that there are not.", Labels: client, Counter: true},
		{Name: "fairlead_dns_client_refused_total", Help: "Queries of each pod of this node that failed since it had too many under way.", Labels: client, Counter: true},
		{Name: "fairlead_dns_querylog_lines_total", Help: "Queries that were logged.", Counter: true},
		{Name: "fairlead_dns_querylog_lost_total", Help: "Queries that were to be logged, and were not: they were too many, or nobody read the log.", Counter: true},
		{Name: "fairlead_dns_revision", Help: "Revision of the agent's snapshot that is served."},
		{Name: "fairlead_dns_agent_connected", Help: "1 if the agent of this node tells what changes."},
		{Name: "fairlead_dns_early_answers_total", Help: "Answers that were given before packets to their addresses passed, though a policy allows the name: the agent did not say so in time.", Counter: true},
		{Name: "fairlead_dns_serving", Help: "1 for an address that is listened at, 0 for one that should be.", Labels: []string{"address"}},
		{Name: "fairlead_dns_uptime_seconds", Help: "How long the server runs."},
	}
}

func (d *daemon) readServer(emit metric.Emit) error {
	requests, responses, _, totals := d.server.Counts()
	for _, r := range requests {
		emit("coredns_dns_requests_total", float64(r.Count), r.Zone, r.Proto, r.Family, r.Type)
	}
	for _, r := range responses {
		emit("coredns_dns_responses_total", float64(r.Count), r.Zone, r.Rcode)
	}
	emit("fairlead_dns_completed_total", float64(totals.Completed))
	emit("fairlead_dns_truncated_total", float64(totals.Truncated))
	emit("fairlead_dns_ignored_total", float64(totals.Ignored))
	emit("fairlead_dns_strangers_total", float64(totals.Strangers))
	emit("fairlead_dns_lost_answers_total", float64(totals.Lost))
	emit("fairlead_dns_pending", float64(totals.Pending))
	emit("fairlead_dns_connections", float64(totals.Connections))
	for of, count := range d.connections(totals.Others) {
		emit("fairlead_dns_client_connections_total", float64(count), of.Namespace, of.Name)
	}
	for _, c := range d.clients() {
		emit("fairlead_dns_client_queries_total", float64(c.Queries), c.Namespace, c.Pod)
		emit("fairlead_dns_client_outside_total", float64(c.Outside), c.Namespace, c.Pod)
		emit("fairlead_dns_client_nxdomain_total", float64(c.Nxdomain), c.Namespace, c.Pod)
		emit("fairlead_dns_client_refused_total", float64(c.Refused), c.Namespace, c.Pod)
	}
	written, lost := d.queries.Counts()
	emit("fairlead_dns_querylog_lines_total", float64(written))
	emit("fairlead_dns_querylog_lost_total", float64(lost))
	emit("fairlead_dns_revision", float64(d.served.Load().Revision))
	emit("fairlead_dns_early_answers_total", float64(d.receiver.Late()))
	emit("fairlead_dns_agent_connected", metric.Bool(d.receiver.Connected()))
	open, missing := d.server.Listening()
	for _, at := range open {
		emit("fairlead_dns_serving", 1, at.String())
	}
	for _, at := range missing {
		emit("fairlead_dns_serving", 0, at.String())
	}
	emit("fairlead_dns_uptime_seconds", time.Since(d.began).Seconds())
	return nil
}

// connections counts the TCP connections of clients that have opened any. A pod of
// two addresses is one.
func (d *daemon) connections(others *dns.Client) map[model.PodKey]uint64 {
	by := map[model.PodKey]uint64{}
	add := func(c *dns.Client) {
		if count := c.Connections.Load(); count > 0 {
			by[model.PodKey{Namespace: c.Namespace, Name: c.Name}] += count
		}
	}
	add(others)
	for _, client := range d.served.Load().Pods.All() {
		add(client)
	}
	return by
}

// forwardReadings are of the forwarder.
func forwardReadings() (all []metric.Reading) {
	for _, m := range forward.Metrics() {
		all = append(all, metric.Reading{Name: m.Name, Help: m.Help, Labels: m.Labels, Counter: m.Counter})
	}
	return all
}

// histograms are those of the daemon, as a prometheus.Collector.
type histograms struct{ *daemon }

// The histograms.
var (
	requestDurations = prometheus.NewDesc("coredns_dns_request_duration_seconds", "How long it took to answer.", []string{"zone"}, nil)
	proxyDurations   = prometheus.NewDesc("coredns_proxy_request_duration_seconds", "How long upstreams took to answer.", []string{"proxy_name", "to", "rcode"}, nil)
)

// Describe implements prometheus.Collector.
func (histograms) Describe(to chan<- *prometheus.Desc) {
	to <- requestDurations
	to <- proxyDurations
}

// Collect implements prometheus.Collector.
func (h histograms) Collect(to chan<- prometheus.Metric) {
	_, _, durations, _ := h.server.Counts()
	for _, d := range durations {
		to <- prometheus.MustNewConstHistogram(requestDurations, d.Count, d.Sum, d.Buckets, d.Zone)
	}
	h.forward.Durations(func(of *forward.Histogram, labels ...string) {
		if count, sum, buckets := of.Read(); count > 0 {
			to <- prometheus.MustNewConstHistogram(proxyDurations, count, sum, buckets, labels...)
		}
	})
}
