package daemon

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/fairlead-net/fairlead/observe/traffic"
	"github.com/fairlead-net/fairlead/servers/gateway"
)

// The period that is looked at, if the question does not say it, and the longest.
const (
	topTime    = time.Second
	maxTopTime = 30 * time.Second
)

// serveTop says what went through in a period that begins now.
func (d *daemon) serveTop(w http.ResponseWriter, r *http.Request) {
	period := topTime
	if text := r.URL.Query().Get("over"); text != "" {
		var err error
		if period, err = time.ParseDuration(text); err != nil || period <= 0 || period > maxTopTime {
			http.Error(w, fmt.Sprintf("over: %q is no time of up to %s, such as 2s", text, maxTopTime), http.StatusBadRequest)
			return
		}
	}
	before, _ := d.traffic()
	began := time.Now()
	select {
	case <-time.After(period):
	case <-r.Context().Done():
	}
	after, bounds := d.traffic()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(traffic.Report{Seconds: time.Since(began).Seconds(), Bounds: bounds, Routes: traffic.Since(before, after)})
}

// traffic is all that was counted since the start, and the bounds of how long it
// took.
func (d *daemon) traffic() (all []traffic.Route, bounds []float64) {
	for names, meters := range d.meters() {
		route := traffic.Route{Place: traffic.Place{
			Host: names.Host, Path: names.Path, Namespace: names.Namespace, Ingress: names.Ingress, Service: names.Service, Canary: names.Canary,
		}}
		for _, s := range gateway.SeriesOf(meters...) {
			route.Requests += s.Took.Count
			switch s.Status[0] {
			case '4':
				route.Refused += s.Took.Count
			case '5':
				route.Errors += s.Took.Count
			}
			route.Received += uint64(s.RequestSize.Sum)
			route.Sent += uint64(s.AnswerSize.Sum)
			if bounds == nil {
				bounds = s.Took.Bounds
			}
			if route.Took == nil {
				route.Took = make([]uint64, len(bounds)+1)
			}
			below := uint64(0)
			for i, n := range s.Took.UpTo {
				route.Took[i] += n - below
				below = n
			}
			route.Took[len(bounds)] += s.Took.Count - below
		}
		if route.Requests > 0 {
			all = append(all, route)
		}
	}
	return all, bounds
}
