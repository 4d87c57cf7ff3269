package daemon

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/metric"
	"github.com/fairlead-net/fairlead/plan/certificate"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway/acme"
)

// trouble keeps certificates from being ordered.
type trouble struct{ what, remedy string }

// ordering counts what has become of orders.
type ordering [acme.Limited + 1]atomic.Uint64

// orders are those of this gateway, while it leads.
func (d *daemon) orders() *acme.Orders {
	return &acme.Orders{
		Store: d.Register, OfOne: kube.IsOfContent, UserAgent: "fairlead-gateway/" + d.Version, Log: d.Log,
		Look: func() (acme.View, <-chan struct{}) {
			is, changed := d.serving.latest()
			if is.snapshot == nil {
				return acme.View{State: &acme.State{}}, changed
			}
			return acme.View{
				Options: is.table.Options().ACME, Wanted: is.wanted, State: is.ordered, Gateways: d.gateways(is.snapshot),
			}, changed
		},
		Trouble: func(what, remedy string) {
			if is, _ := d.serving.latest(); is.trouble.what != what {
				d.serving.edit(func(s *served) { s.trouble = trouble{what, remedy} })
			}
		},
		Done: func(result acme.Result) { d.results[result].Add(1) },
	}
}

// gateways are those that clients may come to, by HTTP.
func (d *daemon) gateways(snapshot *model.Snapshot) (all []netip.AddrPort) {
	service := d.Register.Service()
	for _, slice := range snapshot.Slices.All() {
		if slice.Namespace != service.Namespace || slice.Service != service.Name {
			continue
		}
		for _, port := range slice.Ports {
			if port.Name != "http" {
				continue
			}
			for i := range slice.Endpoints {
				if endpoint := &slice.Endpoints[i]; endpoint.Ready {
					all = append(all, netip.AddrPortFrom(endpoint.Address, port.Port))
				}
			}
		}
	}
	return all
}

// wanted are the hosts for which certificates are ordered.
func wantedOf(table *plan.Table, c *certificates) (all []certificate.Wanted) {
	for _, host := range table.Wanted(c.has) {
		all = append(all, certificate.Wanted{Host: host.Name, Ingress: host.Asked.Ingress, Field: host.Asked.Field})
	}
	return all
}

// unordered says which hosts have no certificate though one is ordered, and why.
func (s *served) unordered(now time.Time) []model.Problem {
	if s.table == nil || s.ordered == nil {
		return nil
	}
	return certificate.Problems(s.wanted, &s.ordered.State, s.table.Options().ACME.Server, s.trouble.what, s.trouble.remedy, now)
}

// readOrders emits what has become of orders.
func (d *daemon) readOrders(emit metric.Emit) {
	for i := range d.results {
		emit("fairlead_gateway_certificate_orders_total", float64(d.results[i].Load()), acme.Result(i).String())
	}
	is, _ := d.serving.latest()
	if is.ordered == nil {
		return
	}
	held, now := 0, time.Now()
	for _, w := range is.wanted {
		if is.ordered.Held[w.Host].Until.After(now) {
			held++
		}
	}
	emit("fairlead_gateway_certificates_wanted", float64(held), "held")
	emit("fairlead_gateway_certificates_wanted", float64(len(is.wanted)-held), "missing")
}
