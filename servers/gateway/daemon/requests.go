package daemon

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-net/fairlead/servers/gateway"
)

// requests are the metrics of routes, as a prometheus.Collector. Names and labels
// are those of ingress-nginx, so that what was made for it goes on. A route has
// series once there was a request.
type requests struct{ *daemon }

// labels of a request. The host is that of the rule, _ for rules without a host, and
// - for requests that no rule takes.
var (
	placeLabels   = []string{"host", "path", "namespace", "ingress", "service", "canary"}
	requestLabels = append([]string{"method", "status"}, placeLabels...)
)

func requestDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("nginx_ingress_controller_"+name, help, requestLabels, nil)
}

var (
	requestCount      = requestDesc("requests", "Requests of clients that were answered; with status 499, clients that were gone before.")
	requestDurations  = requestDesc("request_duration_seconds", "From the first byte of a request to the last of its answer.")
	responseDurations = requestDesc("response_duration_seconds", "From when an endpoint was asked to the last byte of its answer.")
	requestSizes      = requestDesc("request_size", "Bytes of requests with their heads.")
	responseSizes     = requestDesc("response_size", "Bytes of answers with their heads.")
	connectDurations  = prometheus.NewDesc("nginx_ingress_controller_connect_duration_seconds", "How long connections to endpoints took to be made.", placeLabels, nil)
)

// Describe implements prometheus.Collector.
func (requests) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{requestCount, requestDurations, responseDurations, requestSizes, responseSizes, connectDurations} {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (r requests) Collect(to chan<- prometheus.Metric) {
	for names, meters := range r.meters() {
		collect(to, meters, names)
	}
}

// meters are all that count, by what is told of them: ports are not.
func (d *daemon) meters() map[gateway.Names][]*gateway.Meter {
	all := map[gateway.Names][]*gateway.Meter{{Host: "-"}: {d.server.Others()}}
	if router := d.routed.Load(); router != nil {
		for meter := range router.Meters() {
			names := meter.Names
			names.Port = ""
			all[names] = append(all[names], meter)
		}
	}
	return all
}

func collect(to chan<- prometheus.Metric, meters []*gateway.Meter, names gateway.Names) {
	canary := ""
	if names.Canary {
		canary = names.Service
	}
	place := []string{names.Host, names.Path, names.Namespace, names.Ingress, names.Service, canary}
	for i := range place { // a manifest may have what is no UTF-8
		place[i] = strings.ToValidUTF8(place[i], "\ufffd")
	}
	histogram := func(desc *prometheus.Desc, of *gateway.Histogram, labels []string) {
		to <- prometheus.MustNewConstHistogram(desc, of.Count, of.Sum, of.Buckets, labels...)
	}
	for _, s := range gateway.SeriesOf(meters...) {
		labels := append([]string{s.Method, s.Status}, place...)
		to <- prometheus.MustNewConstMetric(requestCount, prometheus.CounterValue, float64(s.Took.Count), labels...)
		histogram(requestDurations, &s.Took, labels)
		histogram(requestSizes, &s.RequestSize, labels)
		histogram(responseSizes, &s.AnswerSize, labels)
		if s.Answered.Count > 0 {
			histogram(responseDurations, &s.Answered, labels)
		}
	}
	if connects := gateway.ConnectsOf(meters...); connects.Count > 0 {
		histogram(connectDurations, &connects, place)
	}
}
