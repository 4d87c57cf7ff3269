package daemon

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fairlead-net/fairlead/observe/metric"
)

// handler serves the metrics.
func (d *daemon) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		metric.Build(d.Version),
		metric.Read([]metric.Reading{
			{Name: "fairlead_gateway_clients", Help: "Connections of clients."},
			{Name: "fairlead_gateway_refused_total", Help: "Connections beyond what the server takes.", Counter: true},
			{Name: "fairlead_gateway_requests_total", Help: "Requests that were answered, by the first digit of the status; none: the client was gone.", Labels: []string{"status"}, Counter: true},
			{Name: "fairlead_gateway_retries_total", Help: "Requests that were sent to another endpoint, or once more.", Counter: true},
			{Name: "fairlead_gateway_dials_total", Help: "Connections to endpoints.", Counter: true},
			{Name: "fairlead_gateway_unreached_total", Help: "Connections to endpoints that failed.", Counter: true},
			{Name: "fairlead_gateway_upgrades_total", Help: "Connections that became something else, such as WebSockets.", Counter: true},
			{Name: "fairlead_gateway_revision", Help: "Revision of the snapshot that is served; 0: none yet."},
		}, d.read),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, Registry: registry})
}

func (d *daemon) read(emit metric.Emit) error {
	counts := d.server.Counts()
	emit("fairlead_gateway_clients", float64(counts.Clients))
	emit("fairlead_gateway_refused_total", float64(counts.Refused))
	for digit, n := range counts.Requests {
		status := [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}[digit]
		emit("fairlead_gateway_requests_total", float64(n), status)
	}
	emit("fairlead_gateway_retries_total", float64(counts.Retries))
	emit("fairlead_gateway_dials_total", float64(counts.Dials))
	emit("fairlead_gateway_unreached_total", float64(counts.Unreached))
	emit("fairlead_gateway_upgrades_total", float64(counts.Upgrades))
	emit("fairlead_gateway_revision", float64(d.serves.Load()))
	return nil
}
