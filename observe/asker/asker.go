package asker

import (
	"cmp"
	"net/netip"
	"slices"
)

// Asker is who asks, and how much in a period.
type Asker struct {
	Node      string       `json:"node,omitempty"`
	Namespace string       `json:"namespace,omitempty"` // empty: all that are no pods of the node
	Pod       string       `json:"pod,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`

	Queries  uint64 `json:"queries"`         // that were answered, one way or another
	Outside  uint64 `json:"outside"`         // of those, for names that are not the cluster's
	Nxdomain uint64 `json:"nxdomain"`        // of those, for names that there are not
	Refused  uint64 `json:"refused"`         // of those, that failed since too many were under way
	Bytes    uint64 `json:"bytes"`           // of queries and answers, without headers of IP
	Total    uint64 `json:"total,omitempty"` // queries since the server knows it
}

// Name is a name that is asked for.
type Name struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Queries uint64 `json:"queries"` // in the period, as estimated from a part of them
}

// Report is what one server has counted in a period, or several have.
type Report struct {
	Seconds float64 `json:"seconds"`
	Askers  []Asker `json:"askers"` // those with most queries first; none without any
	Names   []Name  `json:"names"`  // likewise, some of them
}

// Since is what was asked between two looks at the counters, all of them from the
// start of the server. One that has begun anew counts from there.
func Since(before, after []Asker) []Asker {
	type key struct{ namespace, pod string }
	was := map[key]*Asker{}
	for i := range before {
		was[key{before[i].Namespace, before[i].Pod}] = &before[i]
	}
	all := []Asker{}
	for _, now := range after {
		now.Total = now.Queries
		if old := was[key{now.Namespace, now.Pod}]; old != nil && old.Queries <= now.Queries {
			now.Queries -= old.Queries
			now.Outside -= min(old.Outside, now.Outside)
			now.Nxdomain -= min(old.Nxdomain, now.Nxdomain)
			now.Refused -= min(old.Refused, now.Refused)
			now.Bytes -= min(old.Bytes, now.Bytes)
		}
		if now.Queries > 0 {
			all = append(all, now)
		}
	}
	Sort(all)
	return all
}

// Sort puts those first that have asked most.
func Sort(all []Asker) {
	slices.SortFunc(all, func(a, b Asker) int {
		return cmp.Or(cmp.Compare(b.Queries, a.Queries), cmp.Compare(b.Total, a.Total),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Node, b.Node))
	})
}

// Merge is the reports of nodes, by their names, as one. A period is about as long
// everywhere: that of the sum is the longest.
func Merge(reports map[string]*Report) *Report {
	sum := &Report{Askers: []Asker{}, Names: []Name{}}
	type key struct{ name, kind string }
	names := map[key]uint64{}
	for node, r := range reports {
		sum.Seconds = max(sum.Seconds, r.Seconds)
		for _, a := range r.Askers {
			a.Node = node
			sum.Askers = append(sum.Askers, a)
		}
		for _, n := range r.Names {
			names[key{n.Name, n.Type}] += n.Queries
		}
	}
	for k, queries := range names {
		sum.Names = append(sum.Names, Name{k.name, k.kind, queries})
	}
	Sort(sum.Askers)
	SortNames(sum.Names)
	return sum
}

// SortNames puts those first that are asked for most.
func SortNames(all []Name) {
	slices.SortFunc(all, func(a, b Name) int {
		return cmp.Or(cmp.Compare(b.Queries, a.Queries), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type))
	})
}
