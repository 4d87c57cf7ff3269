package forward

import (
	"strconv"
	"sync/atomic"
	"time"
)

// upstreamCounts are of one upstream, since it is asked.
type upstreamCounts struct {
	durations      [rcodes]Histogram
	failures       atomic.Uint64 // queries without an answer of use
	healthFailures atomic.Uint64 // probes without one
	broken         atomic.Uint64 // times that it was found to be down
}

// rcodes are told apart up to REFUSED; all others count as one.
const rcodes = 7

func (c *upstreamCounts) took(rcode uint16, took time.Duration) {
	c.durations[min(rcode, rcodes-1)].observe(took)
}

// rcodeText is an rcode as CoreDNS's metrics have it.
func rcodeText(rcode uint16) string {
	names := [...]string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"}
	if int(rcode) < len(names) {
		return names[rcode]
	}
	if rcode == rcodes-1 {
		return "other"
	}
	return "RCODE" + strconv.Itoa(int(rcode))
}

// Bounds are those of histograms, in seconds, as CoreDNS has them for upstreams.
var bounds = [...]float64{0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096}

// Histogram counts durations. It may be read while it is written.
type Histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64
	sum     atomic.Int64
}

func (h *Histogram) observe(took time.Duration) {
	at := 0
	for at < len(bounds) && took.Seconds() > bounds[at] {
		at++
	}
	h.buckets[at].Add(1)
	h.sum.Add(int64(took))
}

// Read returns how many durations there were, their sum in seconds, and how many
// were at most as long as each bound, as Prometheus wants it.
func (h *Histogram) Read() (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(bounds))
	for i := range bounds {
		count += h.buckets[i].Load()
		buckets[bounds[i]] = count
	}
	return count + h.buckets[len(bounds)].Load(), time.Duration(h.sum.Load()).Seconds(), buckets
}

// counts are of the whole.
type counts struct {
	rejected  atomic.Uint64 // for the number of queries that wait
	prefetch  atomic.Uint64
	merged    atomic.Uint64 // queries that waited for another one's answer
	noBackend atomic.Uint64 // queries that there was no upstream for
}

// Metric describes what Read emits.
type Metric struct {
	Name, Help string
	Labels     []string
	Counter    bool // else a gauge
}

// Metrics are all that Read emits, with CoreDNS's names where they mean the same.
// Its label server is left out: there is one.
func Metrics() []Metric {
	to := []string{"proxy_name", "to"}
	return []Metric{
		{"coredns_cache_hits_total", "Answers from the cache.", []string{"type"}, true},
		{"coredns_cache_misses_total", "Questions that the cache had no answer to.", nil, true},
		{"coredns_cache_requests_total", "Questions put to the cache.", nil, true},
		{"coredns_cache_served_stale_total", "Answers given after their end, since no upstream had answered.", nil, true},
		{"coredns_cache_prefetch_total", "Answers renewed before their end.", nil, true},
		{"coredns_cache_evictions_total", "Answers that had to go for others.", []string{"type"}, true},
		{"coredns_cache_entries", "Answers in the cache.", []string{"type"}, false},
		{"fairlead_dns_cache_bytes", "What the cache takes.", nil, false},
		{"fairlead_dns_cache_limit_bytes", "What the cache may take.", nil, false},
		{"coredns_forward_max_concurrent_rejects_total", "Queries that failed since too many waited.", nil, true},
		{"fairlead_dns_forward_merged_total", "Queries that waited for the answer to another one.", nil, true},
		{"fairlead_dns_forward_without_upstream_total", "Queries that there was no upstream for.", nil, true},
		{"fairlead_dns_forward_waiting", "Queries that wait for upstreams.", nil, false},
		{"fairlead_dns_forward_questions", "Questions that upstreams are being asked.", nil, false},
		{"coredns_forward_healthcheck_broken_total", "Times that an upstream was found not to answer.", []string{"to"}, true},
		{"coredns_proxy_healthcheck_failures_total", "Probes without an answer.", to, true},
		{"coredns_proxy_conn_cache_hits_total", "Queries sent on a connection that was open.", append(to, "proto"), true},
		{"coredns_proxy_conn_cache_misses_total", "Connections opened.", append(to, "proto"), true},
		{"fairlead_dns_upstream_failures_total", "Queries without an answer of use.", []string{"to"}, true},
		{"fairlead_dns_upstream_up", "1 for an upstream that answers and does not lead back here.", []string{"to"}, false},
		{"fairlead_dns_upstream_rtt_seconds", "How long its answers take, smoothed.", []string{"to"}, false},
	}
}

// Read emits the value of each series.
func (f *Forwarder) Read(emit func(name string, value float64, labels ...string)) {
	f.cache.read(emit)
	calls, waiting := f.flights.count()
	emit("coredns_cache_prefetch_total", float64(f.counts.prefetch.Load()))
	emit("coredns_forward_max_concurrent_rejects_total", float64(f.counts.rejected.Load()))
	emit("fairlead_dns_forward_merged_total", float64(f.counts.merged.Load()))
	emit("fairlead_dns_forward_without_upstream_total", float64(f.counts.noBackend.Load()))
	emit("fairlead_dns_forward_waiting", float64(waiting))
	emit("fairlead_dns_forward_questions", float64(calls))
	for _, u := range f.routes.Load().upstreams {
		to := u.to.String()
		s := u.standing()
		up := 1.
		if s.down || s.looping {
			up = 0
		}
		hits, misses := u.transport.reused()
		emit("coredns_forward_healthcheck_broken_total", float64(u.counts.broken.Load()), to)
		emit("coredns_proxy_healthcheck_failures_total", float64(u.counts.healthFailures.Load()), "forward", to)
		emit("coredns_proxy_conn_cache_hits_total", float64(hits), "forward", to, u.proto())
		emit("coredns_proxy_conn_cache_misses_total", float64(misses), "forward", to, u.proto())
		emit("fairlead_dns_upstream_failures_total", float64(u.counts.failures.Load()), to)
		emit("fairlead_dns_upstream_up", up, to)
		emit("fairlead_dns_upstream_rtt_seconds", s.rtt.mean.Seconds(), to)
	}
}

// proto is how it keeps connections, by CoreDNS's words.
func (u *upstream) proto() string {
	switch u.to.Transport {
	case "":
		return "tcp"
	case "tls":
		return "tcp-tls"
	}
	return string(u.to.Transport)
}

// Durations emits the histograms of coredns_proxy_request_duration_seconds, whose
// labels are proxy_name ("forward"), to and rcode.
func (f *Forwarder) Durations(emit func(h *Histogram, labels ...string)) {
	for _, u := range f.routes.Load().upstreams {
		for rcode := range u.counts.durations {
			emit(&u.counts.durations[rcode], "forward", u.to.String(), rcodeText(uint16(rcode)))
		}
	}
}

// read emits what the cache counts.
func (c *cache) read(emit func(name string, value float64, labels ...string)) {
	var hits, evicted [kinds]uint64
	var entries [kinds]int
	var misses, stale uint64
	var bytes, most int
	for i := range c.shards {
		s := &c.shards[i]
		misses += s.counts.misses.Load()
		stale += s.counts.stale.Load()
		s.mu.Lock()
		for k := range kinds {
			hits[k] += s.counts.hits[k].Load()
			entries[k] += s.entries[k]
			evicted[k] += s.evicted[k]
		}
		bytes += s.bytes
		most += s.most
		s.mu.Unlock()
	}
	for k := range kinds {
		emit("coredns_cache_hits_total", float64(hits[k]), k.String())
		emit("coredns_cache_entries", float64(entries[k]), k.String())
		emit("coredns_cache_evictions_total", float64(evicted[k]), k.String())
	}
	emit("coredns_cache_misses_total", float64(misses))
	emit("coredns_cache_requests_total", float64(misses+hits[success]+hits[denial]))
	emit("coredns_cache_served_stale_total", float64(stale))
	emit("fairlead_dns_cache_bytes", float64(bytes))
	emit("fairlead_dns_cache_limit_bytes", float64(most))
}
