package probe

import (
	"cmp"
	"slices"
	"strings"
)

// State says how a way between two nodes does. A greater one is worse, but that
// something is broken counts more than that something else is not known.
type State int

// The states.
const (
	OK      State = iota
	Warn          // pods reach each other, and something is not as it should be
	Unknown       // it was not probed
	Failed
)

func (s State) String() string { return [...]string{"ok", "warning", "unknown", "failed"}[s] }

// MarshalText is String.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Asked is a node that was asked to probe others.
type Asked struct {
	Node   string
	Peers  []string // that it was to probe; it may be one of them
	Report *Report  // nil if it could not be asked
	Error  string   // why
	Next   string   // what to do then
}

// Pair is a way from one node to another, or from a node to its own pods.
type Pair struct {
	From  string  `json:"from"`
	To    string  `json:"to"`
	State State   `json:"state"`
	RTT   float64 `json:"rttSeconds,omitempty"` // between pods; between the nodes if those do not answer
}

// Finding is something that is not as it should be.
type Finding struct {
	State State   `json:"state"`
	Ways  []Route `json:"ways"`
	// Families are IPv4, IPv6 or both.
	Families []string `json:"families,omitempty"`
	What     string   `json:"what"`
	Why      string   `json:"why,omitempty"`
	Next     string   `json:"next,omitempty"`
}

// Route names a way by its ends.
type Route struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Judge says what the reports of nodes mean together: each way once, sorted, and
// what is wrong, the worst first.
func Judge(asked []Asked) (pairs []Pair, findings []Finding) {
	j := judge{reports: map[string]*Report{}}
	for _, a := range asked {
		j.reports[a.Node] = a.Report
	}
	for _, a := range asked {
		if a.Report == nil {
			j.find(Finding{State: Unknown, Ways: []Route{{a.Node, a.Node}},
				What: "the agent could not be asked", Why: a.Error, Next: a.Next})
		} else if a.Report.NoEndpoint != "" {
			j.find(Finding{State: Unknown, Ways: []Route{{a.Node, a.Node}},
				What: "pods of " + a.Node + " were not probed: its agent has no endpoint for that",
				Why:  a.Report.NoEndpoint, Next: "see what the node says: fairlead status"})
		}
		for _, peer := range a.Peers {
			before := len(j.findings)
			pair := Pair{From: a.Node, To: peer, State: Unknown}
			if a.Report != nil {
				j.way(a.Report, peer)
				pair.State, pair.RTT = worst(j.findings[before:]), rtt(a.Report, peer)
				if pair.State == OK && (j.blind(a.Node) || j.blind(peer)) {
					pair.State = Unknown
				}
			}
			pairs = append(pairs, pair)
		}
	}
	slices.SortFunc(pairs, func(a, b Pair) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return pairs, merge(j.findings)
}

type judge struct {
	reports  map[string]*Report // nil of a node that was not asked, or could not be
	findings []Finding
}

func (j *judge) find(f Finding) { j.findings = append(j.findings, f) }

// blind tells whether a node was asked and has no endpoint, or not so that it is
// known: then nothing can be said of its pods.
func (j *judge) blind(node string) bool {
	report, asked := j.reports[node]
	return asked && (report == nil || report.NoEndpoint != "")
}

func worst(findings []Finding) (state State) {
	for _, f := range findings {
		state = max(state, f.State)
	}
	return state
}

// rtt is that of the best answer of the path that matters most.
func rtt(r *Report, to string) (best float64) {
	for _, path := range Paths {
		for _, result := range r.Results {
			if result.Peer == to && result.Path == path && result.Kind == ICMP && result.OK && (best == 0 || result.RTT < best) {
				best = result.RTT
			}
		}
		if best > 0 {
			return best
		}
	}
	return 0
}

// merge makes one finding of those that differ in their ends and families alone;
// what to do is told for the first.
func merge(findings []Finding) (merged []Finding) {
	for _, f := range findings {
		at := slices.IndexFunc(merged, func(m Finding) bool {
			return m.State == f.State && m.What == f.What && m.Why == f.Why
		})
		if at < 0 {
			merged = append(merged, f)
			continue
		}
		merged[at].Ways = unite(merged[at].Ways, f.Ways)
		merged[at].Families = unite(merged[at].Families, f.Families)
	}
	// What a node has with its own pods is the cause of more, perhaps.
	within := func(f Finding) int {
		if f.Ways[0].From == f.Ways[0].To {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(merged, func(a, b Finding) int {
		return cmp.Or(int(b.State)-int(a.State), within(a)-within(b))
	})
	return merged
}

func unite[T comparable](a, b []T) []T {
	a = slices.Clone(a)
	for _, item := range b {
		if !slices.Contains(a, item) {
			a = append(a, item)
		}
	}
	return a
}

// Title names the ends of a finding: "node1 ↔ node3", "node1, node2 → node3".
func (f Finding) Title() string {
	var texts []string
	done := map[Route]bool{}
	for _, way := range f.Ways {
		back := Route{way.To, way.From}
		switch {
		case done[way]:
			continue
		case way.From == way.To:
			texts = append(texts, way.From)
		case slices.Contains(f.Ways, back):
			texts = append(texts, way.From+" ↔ "+way.To)
			done[back] = true
		default:
			texts = append(texts, way.From+" → "+way.To)
		}
		done[way] = true
	}
	const most = 6
	if more := len(texts) - most; more > 0 {
		return strings.Join(texts[:most], ", ") + " and " + plural(more, "more way")
	}
	return strings.Join(texts, ", ")
}
