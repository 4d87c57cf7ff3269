package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/observe/lookup"
	plandns "github.com/fairlead-net/fairlead/plan/dns"
	"github.com/fairlead-net/fairlead/servers/dns"
)

// traceTime bounds all queries of a trace together.
const traceTime = 30 * time.Second

// serveTrace looks for a name as a client would, and says what was done.
func (d *daemon) serveTrace(w http.ResponseWriter, r *http.Request) {
	question, err := lookup.ReadQuestion(r.URL.Query())
	for _, kind := range question.Types {
		if err == nil && !askable(kind) {
			err = fmt.Errorf("type: %q is none of DNS that can be asked for, such as A, AAAA, SRV, TXT or MX", kind)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), traceTime)
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(d.trace(ctx, question))
}

// askable tells whether a word is a type of records, and no other sort of query.
func askable(kind string) bool {
	number, ok := miekg.StringToType[kind]
	return ok && !slices.Contains([]uint16{miekg.TypeNone, miekg.TypeANY, miekg.TypeAXFR, miekg.TypeIXFR, miekg.TypeOPT, miekg.TypeTKEY, miekg.TypeTSIG, miekg.TypeMAILA, miekg.TypeMAILB}, number)
}

func (d *daemon) trace(ctx context.Context, q lookup.Question) *lookup.Lookup {
	served := d.served.Load()
	l := &lookup.Lookup{
		Name: q.Name, Types: q.Types, Client: q.Client.String(), Node: d.node(), Queries: []lookup.Query{},
		Completion: served.Complete && !q.NoCompletion,
	}
	if served.Zone == nil {
		l.Notes = append(l.Notes, "the server does not know the names of the cluster yet: it answers everything with SERVFAIL until the agent has told it")
		return l
	}
	cluster := lookup.Cluster{Zone: served.Zone.Origin.String()}
	for _, domain := range served.Search {
		cluster.Search = append(cluster.Search, domain.String())
	}
	if pod, ok := served.Pods.Get(q.Client); ok {
		cluster.Namespace, l.Pod = pod.Namespace, pod.Namespace+"/"+pod.Name
	}
	l.Path = lookup.PathOf(q.Resolver, cluster)
	l.Notes = append(l.Notes, d.notes(served, &q, l)...)
	lookup.Walk(ctx, l, func(ctx context.Context, name, kind string) lookup.Query { return d.try(ctx, &q, name, kind) })
	return l
}

// node is the node's name, as the agent says.
func (d *daemon) node() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.Serving.Node
}

// notes say where it may be otherwise than what follows.
func (d *daemon) notes(served *dns.Served, q *lookup.Question, l *lookup.Lookup) (all []string) {
	d.mu.Lock()
	at := d.listens(d.state)
	d.mu.Unlock()
	if q.Resolver.None && len(q.Resolver.Nameservers) > 0 {
		first, err := netip.ParseAddr(q.Resolver.Nameservers[0])
		if err != nil || !slices.ContainsFunc(at, func(own netip.AddrPort) bool { return own.Addr() == first }) {
			all = append(all, fmt.Sprintf("its resolver asks %s first (dnsPolicy None), and not the cluster's server: this is what would come of asking here", q.Resolver.Nameservers[0]))
		}
	}
	if l.Pod == "" {
		all = append(all, "the server does not know the client as a pod of this node, so that it completes no names for it; it knows pods that were connected by Fairlead")
	}
	if served.Old {
		all = append(all, "the names of the cluster are from before the node booted: what they lack is answered with SERVFAIL")
	}
	return all
}

// try puts one query, as the server would answer it.
func (d *daemon) try(ctx context.Context, q *lookup.Question, name, kind string) lookup.Query {
	result := lookup.Query{Name: name, Type: kind, Steps: []lookup.Step{}}
	message, err := new(miekg.Msg).SetQuestion(name, miekg.StringToType[kind]).Pack()
	if err != nil {
		return result
	}
	began := time.Now()
	reply := d.server.Try(&dns.Trial{
		Message: message, Client: q.Client, NoCompletion: q.NoCompletion,
		Seen: func(name plandns.Name, exists bool) {
			rcode := "NXDOMAIN"
			if exists {
				rcode = "NOERROR"
			}
			result.Steps = append(result.Steps, lookup.Step{Name: name.String(), By: string(dns.ByCluster), Rcode: rcode})
		},
		Find: func(of dns.Question) []byte {
			answer, step := d.find(ctx, of, q.Anew)
			result.Steps = append(result.Steps, step)
			return answer
		},
	})
	result.Seconds = time.Since(began).Seconds()
	answer := new(miekg.Msg)
	if reply == nil || answer.Unpack(reply) != nil {
		return result
	}
	result.Rcode = rcodeText(answer.Rcode)
	for _, rr := range answer.Answer {
		head := rr.Header()
		result.Records = append(result.Records, lookup.Record{
			Name: head.Name, Type: miekg.Type(head.Rrtype).String(), TTL: head.Ttl,
			Data: strings.TrimPrefix(rr.String(), head.String()),
		})
	}
	if first := result.Records; len(first) > 1 && first[0].Type == "CNAME" && len(result.Steps) > 1 && result.Steps[0].Rcode == "NXDOMAIN" {
		result.Completed = first[0].Data
	}
	return result
}

// find asks the outside, and says what was done.
func (d *daemon) find(ctx context.Context, of dns.Question, anew bool) ([]byte, lookup.Step) {
	var source dns.Source
	of.Source = &source
	began := time.Now()
	answer, details := d.forward.Trace(ctx, of, anew)
	step := lookup.Step{
		Name: of.Name.String(), By: string(source.By), Upstream: source.Upstream, Zone: source.Zone,
		Seconds: time.Since(began).Seconds(), Rcode: "SERVFAIL",
	}
	head := new(miekg.Msg)
	if head.Unpack(answer) == nil {
		step.Rcode = rcodeText(head.Rcode)
	}
	for _, detail := range details {
		step.Details = append(step.Details, lookup.Detail{After: detail.At.Seconds(), Seconds: detail.Took.Seconds(), Upstream: detail.Upstream, Text: detail.Text})
	}
	return answer, step
}

func rcodeText(rcode int) string {
	if text := miekg.RcodeToString[rcode]; text != "" {
		return text
	}
	return fmt.Sprintf("rcode %d", rcode)
}
