package traffic

import (
	"cmp"
	"slices"
)

// Place is what requests are counted by.
type Place struct {
	Host      string `json:"host"` // of the rule; _: any, -: requests that no rule takes
	Path      string `json:"path,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Ingress   string `json:"ingress,omitempty"`
	Service   string `json:"service,omitempty"`
	Canary    bool   `json:"canary,omitempty"`
}

// Route are the requests of a place, in a period.
type Route struct {
	Place
	Requests uint64 `json:"requests"`
	Refused  uint64 `json:"refused"`  // of those, answered with 4xx
	Errors   uint64 `json:"errors"`   // of those, answered with 5xx
	Received uint64 `json:"received"` // bytes, with heads
	Sent     uint64 `json:"sent"`     // bytes, with heads
	// Took counts how many took up to each of the bounds of the report, and longer.
	Took []uint64 `json:"took,omitempty"`
	// P50 and P99 are seconds in which so many of a hundred were answered: estimates
	// from Took, made by Merge.
	P50 float64 `json:"p50Seconds"`
	P99 float64 `json:"p99Seconds"`
	// Total is how many requests there were since the gateways have begun.
	Total uint64 `json:"total"`
}

// Report is what one gateway has counted in a period, or several have.
type Report struct {
	Seconds float64   `json:"seconds"`
	Bounds  []float64 `json:"bounds"` // of Took, in seconds, ascending
	Routes  []Route   `json:"routes"` // those with most requests first; none without any
}

// Since is what was counted between two looks, both of them from the start of the
// gateway. A route that has begun anew counts from there.
func Since(before, after []Route) []Route {
	was := map[Place]*Route{}
	for i := range before {
		was[before[i].Place] = &before[i]
	}
	all := []Route{}
	for _, now := range after {
		now.Total = now.Requests
		now.Took = slices.Clone(now.Took)
		if old := was[now.Place]; old != nil && old.Requests <= now.Requests {
			now.Requests -= old.Requests
			now.Refused -= min(old.Refused, now.Refused)
			now.Errors -= min(old.Errors, now.Errors)
			now.Received -= min(old.Received, now.Received)
			now.Sent -= min(old.Sent, now.Sent)
			for i := range min(len(now.Took), len(old.Took)) {
				now.Took[i] -= min(old.Took[i], now.Took[i])
			}
		}
		if now.Requests > 0 {
			all = append(all, now)
		}
	}
	order(all)
	return all
}

// order puts those first that have most requests.
func order(all []Route) {
	slices.SortFunc(all, func(a, b Route) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(b.Total, a.Total), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Path, b.Path),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Ingress, b.Ingress), cmp.Compare(a.Service, b.Service))
	})
}

// Merge is the reports of gateways as one. A period is about as long everywhere:
// that of the sum is the longest. Gateways of other versions may have other bounds;
// of theirs, how long requests took is left out.
func Merge(reports ...*Report) *Report {
	sum := &Report{Routes: []Route{}}
	by := map[Place]*Route{}
	for _, r := range reports {
		sum.Seconds = max(sum.Seconds, r.Seconds)
		if sum.Bounds == nil {
			sum.Bounds = r.Bounds
		}
		for i := range r.Routes {
			from := &r.Routes[i]
			to := by[from.Place]
			if to == nil {
				to = &Route{Place: from.Place, Took: make([]uint64, len(sum.Bounds)+1)}
				by[from.Place] = to
			}
			to.Requests += from.Requests
			to.Refused += from.Refused
			to.Errors += from.Errors
			to.Received += from.Received
			to.Sent += from.Sent
			to.Total += from.Total
			if slices.Equal(r.Bounds, sum.Bounds) && len(from.Took) == len(to.Took) {
				for i, n := range from.Took {
					to.Took[i] += n
				}
			}
		}
	}
	for _, r := range by {
		r.P50, r.P99 = Quantile(sum.Bounds, r.Took, 0.5), Quantile(sum.Bounds, r.Took, 0.99)
		sum.Routes = append(sum.Routes, *r)
	}
	order(sum.Routes)
	return sum
}

// Quantile estimates a value that a share of all is not above, as Prometheus'
// histogram_quantile does: those between two bounds are taken to lie evenly. counts
// has one more than bounds, for what is beyond the last one, which is the estimate
// for those. 0: there is none.
func Quantile(bounds []float64, counts []uint64, share float64) float64 {
	all := uint64(0)
	for _, n := range counts {
		all += n
	}
	if all == 0 || len(bounds) == 0 || len(counts) != len(bounds)+1 {
		return 0
	}
	rank, below := share*float64(all), 0.0
	for i, n := range counts[:len(bounds)] {
		if below+float64(n) >= rank && n > 0 {
			from := 0.0
			if i > 0 {
				from = bounds[i-1]
			}
			return from + (bounds[i]-from)*(rank-below)/float64(n)
		}
		below += float64(n)
	}
	return bounds[len(bounds)-1]
}
