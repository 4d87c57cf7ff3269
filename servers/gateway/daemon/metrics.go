package daemon

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fairlead-net/fairlead/observe/metric"
	"github.com/fairlead-net/fairlead/servers/gateway"
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
			{Name: "fairlead_gateway_http3_connections_total", Help: "Connections of HTTP/3 that were served.", Counter: true},
			{Name: "fairlead_gateway_health_checks_total", Help: "Questions to endpoints how they are.", Labels: []string{"result"}, Counter: true},
			{Name: "fairlead_gateway_health_checked_endpoints", Help: "Endpoints that are asked how they are, by what is thought of them.", Labels: []string{"state"}},
			{Name: "fairlead_gateway_nameless_total", Help: "Connections of load balancers that did not begin with the PROXY protocol, and should have.", Counter: true},
			{Name: "fairlead_gateway_access_log_lines_total", Help: "Requests that were logged.", Counter: true},
			{Name: "fairlead_gateway_access_log_lost_total", Help: "Requests that were to be logged, and were not: nobody read the log in time.", Counter: true},
			{Name: "fairlead_gateway_certificate_orders_total", Help: "Attempts of this gateway to order a certificate, by what has come of them: issued, failed, or limited by the authority.", Labels: []string{"result"}, Counter: true},
			{Name: "fairlead_gateway_certificates_wanted", Help: "Hosts for which certificates are ordered, by what they have: a good one (held), or none (missing).", Labels: []string{"state"}},
			{Name: "fairlead_gateway_revision", Help: "Revision of the snapshot that is served; 0: none yet."},
			{Name: "nginx_ingress_controller_nginx_process_connections", Help: "Connections of clients: all (active), those that wait for a request, and those that have one.", Labels: []string{"state"}},
			{Name: "nginx_ingress_controller_nginx_process_connections_total", Help: "Connections of clients that were accepted, and of those the ones that were served.", Labels: []string{"state"}, Counter: true},
			{Name: "nginx_ingress_controller_nginx_process_requests_total", Help: "Requests that were answered.", Counter: true},
			{Name: "nginx_ingress_controller_ssl_expire_time_seconds", Help: "When the certificate of a host ends, as Unix time.", Labels: []string{"host", "namespace", "secret_name"}},
		}, d.read),
	)
	return &pages{d, promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, Registry: registry, DisableCompression: true})}
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
	emit("fairlead_gateway_http3_connections_total", float64(counts.HTTP3))
	emit("fairlead_gateway_health_checks_total", float64(counts.Checks-min(counts.Ailing, counts.Checks)), "passed")
	emit("fairlead_gateway_health_checks_total", float64(counts.Ailing), "failed")
	emit("fairlead_gateway_health_checked_endpoints", float64(counts.Checked-counts.Sick), "healthy")
	emit("fairlead_gateway_health_checked_endpoints", float64(counts.Sick), "unhealthy")
	emit("fairlead_gateway_nameless_total", float64(counts.Nameless))
	emit("fairlead_gateway_upgrades_total", float64(counts.Upgrades))
	d.readOrders(emit)
	emit("fairlead_gateway_revision", float64(d.serves.Load()))
	if d.access != nil {
		written, lost := d.access.Counts()
		emit("fairlead_gateway_access_log_lines_total", float64(written))
		emit("fairlead_gateway_access_log_lost_total", float64(lost))
	}
	d.readNginx(emit, &counts)
	return nil
}

// readNginx emits what ingress-nginx tells of its process.
func (d *daemon) readNginx(emit metric.Emit, counts *gateway.Counts) {
	const connections = "nginx_ingress_controller_nginx_process_connections"
	emit(connections, float64(counts.Clients), "active")
	emit(connections, float64(counts.Waiting), "waiting")
	emit(connections, float64(max(counts.Clients-counts.Waiting, 0)), "writing")
	emit(connections+"_total", float64(counts.Accepted+counts.Refused), "accepted")
	emit(connections+"_total", float64(counts.Accepted), "handled")
	all := uint64(0)
	for _, n := range counts.Requests {
		all += n
	}
	emit("nginx_ingress_controller_nginx_process_requests_total", float64(all))
	if known := d.secured.Load(); known != nil {
		for _, e := range known.expiries() {
			emit("nginx_ingress_controller_ssl_expire_time_seconds", float64(e.at.Unix()), e.host, e.secret.Namespace, e.secret.Name)
		}
	}
}
