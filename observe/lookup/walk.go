package lookup

import (
	"context"
	"slices"
	"strings"
)

// Lookup is what came of looking for a name. Its JSON only grows.
type Lookup struct {
	Name   string   `json:"name"`
	Types  []string `json:"types"`
	Client string   `json:"client"`        // address
	Pod    string   `json:"pod,omitempty"` // namespace/name, as the server knows it
	Node   string   `json:"node,omitempty"`
	Path
	Completion bool     `json:"completion"` // it was on
	Notes      []string `json:"notes,omitempty"`

	Queries []Query `json:"queries"`
	Found   bool    `json:"found"`
	// Seconds is for how long the program has waited. Queries for one name are put
	// at the same time.
	Seconds float64 `json:"seconds"`
	// Without is how many queries it takes if the server completes no name, as far
	// as that is known; else 0.
	Without int `json:"queriesWithoutCompletion,omitempty"`
}

// Query is one of a resolver, and its answer.
type Query struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Rcode   string   `json:"rcode"`             // empty: there was no answer
	Records []Record `json:"records,omitempty"` // of the answer
	Seconds float64  `json:"seconds"`
	// Completed is the name that was found in the place of the one that was asked
	// for, since a resolver would have come to it.
	Completed string `json:"completed,omitempty"`
	Steps     []Step `json:"steps"`
}

// Record is one of an answer.
type Record struct {
	Name string `json:"name"`
	Type string `json:"type"`
	TTL  uint32 `json:"ttl"`
	Data string `json:"data"`
}

// Step is one name that the server has looked for.
type Step struct {
	Name     string   `json:"name"`
	By       string   `json:"by"` // cluster, cache, stale, upstream, server or nobody
	Upstream string   `json:"upstream,omitempty"`
	Zone     string   `json:"stubDomain,omitempty"`
	Rcode    string   `json:"rcode"` // of this name
	Seconds  float64  `json:"seconds"`
	Details  []Detail `json:"details,omitempty"` // what was done, of names of the outside
}

// Detail is something that was done for a step.
type Detail struct {
	After    float64 `json:"after"` // seconds since the step began
	Seconds  float64 `json:"seconds,omitempty"`
	Upstream string  `json:"upstream,omitempty"`
	Text     string  `json:"text"`
}

// Walk looks for a name as a resolver does: one candidate after the other, until
// one has something of a type that is wanted. Ask puts one query.
func Walk(ctx context.Context, l *Lookup, ask func(ctx context.Context, name, kind string) Query) {
	candidates := l.Path.Candidates(l.Name)
	l.Queries = []Query{}
	for i, candidate := range candidates {
		longest, completed := 0.0, ""
		for _, kind := range l.Types {
			if ctx.Err() != nil {
				l.Notes = append(l.Notes, "it took too long: the last names were not asked for")
				return
			}
			query := ask(ctx, candidate, kind)
			l.Queries = append(l.Queries, query)
			longest = max(longest, query.Seconds)
			l.Found = l.Found || slices.ContainsFunc(query.Records, func(r Record) bool { return r.Type == kind })
			if query.Completed != "" {
				completed = query.Completed
			}
		}
		l.Seconds += longest
		if !l.Found {
			continue
		}
		if at := slices.IndexFunc(candidates, func(c string) bool { return strings.EqualFold(c, completed) }); at > i {
			l.Without = (at + 1) * len(l.Types)
		}
		return
	}
}
