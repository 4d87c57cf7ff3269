package daemon

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-net/fairlead/servers/gateway"
)

// pages serves the metrics: a few of the process, and then those of routes, whose names
// and labels are those of ingress-nginx, so that what was made for it goes on. A route
// has series once there was a request.
//
// Those of thousands of routes are 100 MB, so they are written as they are read, in the
// text format of Prometheus, and no registry has them in memory.
type pages struct {
	*daemon
	process http.Handler // writes the others in the same format, if that is asked for
}

// ServeHTTP implements http.Handler.
func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // there is such a level
		defer z.Close()
		w = zipped{w, z}
	}
	asked := r.Clone(r.Context())
	asked.Header.Set("Accept", "text/plain;version=0.0.4")
	p.process.ServeHTTP(w, asked)
	out := bufio.NewWriter(w)
	p.writeRequests(out)
	_ = out.Flush() // who asks is gone
}

// zipped is an answer that is compressed.
type zipped struct {
	http.ResponseWriter
	to io.Writer
}

func (z zipped) Write(b []byte) (int, error) { return z.to.Write(b) }

// counted is what is counted together, since the same is told of it.
type counted struct {
	// The labels in their order, those of a method and a status aside. The host is that of
	// the rule, _ for rules without a host, and - for requests that no rule takes.
	first, second string
	meters        []*gateway.Meter
}

// family is a metric of requests.
type family struct {
	name, help string
	histogram  func(*gateway.Series) *gateway.Histogram // nil: it is a counter
}

const familyPrefix = "nginx_ingress_controller_"

var families = []family{
	{"requests", "Requests of clients that were answered; with status 499, clients that were gone before.", nil},
	{"request_duration_seconds", "From the first byte of a request to the last of its answer.", func(s *gateway.Series) *gateway.Histogram { return &s.Took }},
	{"response_duration_seconds", "From when an endpoint was asked to the last byte of its answer.", func(s *gateway.Series) *gateway.Histogram { return &s.Answered }},
	{"request_size", "Bytes of requests with their heads.", func(s *gateway.Series) *gateway.Histogram { return &s.RequestSize }},
	{"response_size", "Bytes of answers with their heads.", func(s *gateway.Series) *gateway.Histogram { return &s.AnswerSize }},
}

var connects = family{name: "connect_duration_seconds", help: "How long connections to endpoints took to be made."}

// meters are all that have counted something, by what is told of them: ports are not.
func (d *daemon) meters() map[gateway.Names][]*gateway.Meter {
	all := map[gateway.Names][]*gateway.Meter{{Host: "-"}: {d.server.Others()}}
	if router := d.routed.Load(); router != nil {
		for meter := range router.Meters() {
			if !meter.Counts() {
				continue
			}
			names := meter.Names
			names.Port = ""
			all[names] = append(all[names], meter)
		}
	}
	return all
}

// writeRequests writes the metrics of requests.
func (d *daemon) writeRequests(out *bufio.Writer) {
	var all []counted
	for names, meters := range d.meters() {
		if slices.ContainsFunc(meters, (*gateway.Meter).Counts) {
			all = append(all, newCounted(names, meters))
		}
	}
	slices.SortFunc(all, func(a, b counted) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.second, b.second)) })
	for _, f := range families {
		f.begin(out, f.histogram != nil)
		for i := range all {
			for _, s := range gateway.SeriesOf(all[i].meters...) {
				labels := all[i].labels(`,method="`+s.Method+`"`, `,status="`+s.Status+`"`)
				if f.histogram == nil {
					line(out, f.name, labels, "", strconv.FormatUint(s.Took.Count, 10))
				} else if h := f.histogram(&s); h.Count > 0 {
					f.write(out, labels, h)
				}
			}
		}
	}
	connects.begin(out, true)
	for i := range all {
		if h := gateway.ConnectsOf(all[i].meters...); h.Count > 0 {
			connects.write(out, all[i].labels("", ""), &h)
		}
	}
}

func newCounted(names gateway.Names, meters []*gateway.Meter) counted {
	canary := ""
	if names.Canary {
		canary = names.Service
	}
	return counted{
		first:  label("canary", canary) + "," + label("host", names.Host) + "," + label("ingress", names.Ingress),
		second: "," + label("namespace", names.Namespace) + "," + label("path", names.Path) + "," + label("service", names.Service),
		meters: meters,
	}
}

func (c *counted) labels(method, status string) string { return c.first + method + c.second + status }

var escaped = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// label writes one. A manifest may have what is no UTF-8.
func label(name, value string) string {
	return name + `="` + escaped.Replace(strings.ToValidUTF8(value, "\ufffd")) + `"`
}

func (f *family) begin(out *bufio.Writer, histogram bool) {
	kind := "counter"
	if histogram {
		kind = "histogram"
	}
	for _, text := range []string{"# HELP ", familyPrefix, f.name, " ", f.help, "\n# TYPE ", familyPrefix, f.name, " ", kind, "\n"} {
		_, _ = out.WriteString(text)
	}
}

func (f *family) write(out *bufio.Writer, labels string, h *gateway.Histogram) {
	for i, bound := range h.Bounds {
		line(out, f.name+"_bucket", labels, strconv.FormatFloat(bound, 'g', -1, 64), strconv.FormatUint(h.UpTo[i], 10))
	}
	line(out, f.name+"_bucket", labels, "+Inf", strconv.FormatUint(h.Count, 10))
	line(out, f.name+"_sum", labels, "", strconv.FormatFloat(h.Sum, 'g', -1, 64))
	line(out, f.name+"_count", labels, "", strconv.FormatUint(h.Count, 10))
}

// line writes one. Its errors are those of the writer, which keeps them.
func line(out *bufio.Writer, name, labels, bound, value string) {
	for _, text := range [...]string{familyPrefix, name, "{", labels} {
		_, _ = out.WriteString(text)
	}
	if bound != "" {
		for _, text := range [...]string{`,le="`, bound, `"`} {
			_, _ = out.WriteString(text)
		}
	}
	for _, text := range [...]string{"} ", value, "\n"} {
		_, _ = out.WriteString(text)
	}
}
