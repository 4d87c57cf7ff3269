package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/policy"
)

// Matrix says who reaches whom. It only grows.
type Matrix struct {
	Workloads []*Workload `json:"workloads"`
	// Reach is from whom to whom and at which ports; what is not in it is denied.
	Reach []Reach  `json:"reach"`
	Notes []string `json:"notes,omitempty"`
}

// Reach is what one workload may call of another.
type Reach struct {
	From   string      `json:"from"`
	To     string      `json:"to"`
	Family string      `json:"family,omitempty"` // empty: in all families that both have
	Ports  []PortRange `json:"ports"`
	Some   bool        `json:"some,omitempty"` // not all pods of both; then Ports are those of any
}

// MatrixQuery is what somebody wants to see.
type MatrixQuery struct {
	Namespace string // from or to it; empty: all
	Port      *Port  // only this one; nil: all
}

// MatrixOf looks at all pairs of workloads.
func MatrixOf(snapshot *model.Snapshot, q MatrixQuery) (*Matrix, error) {
	if q.Namespace != "" {
		_, known := snapshot.Namespaces.Get(q.Namespace)
		for key := range snapshot.Pods.All() {
			known = known || key.Namespace == q.Namespace
		}
		if !known {
			return nil, &Untold{fmt.Sprintf("there is no namespace %s", q.Namespace), "kubectl get namespaces; -A looks at all"}
		}
	}
	if q.Port != nil && q.Port.Name != "" {
		return nil, &Untold{fmt.Sprintf("port %s is a name, which each pod may give another number", q.Port.Name), "give its number"}
	}
	s, err := surveyOf(snapshot)
	if err != nil {
		return nil, err
	}
	m := &Matrix{Reach: []Reach{}}
	memo := map[pair][]PortRange{}
	seen := map[*Workload]bool{}
	for _, from := range s.workloads {
		for _, to := range s.workloads {
			if from.service || from.namespace == "" && to.namespace == "" || q.Namespace != "" && from.namespace != q.Namespace && to.namespace != q.Namespace {
				continue
			}
			seen[from], seen[to] = true, true
			m.Reach = append(m.Reach, s.reach(from, to, q.Port, memo)...)
		}
	}
	for _, w := range s.workloads {
		if seen[w] {
			m.Workloads = append(m.Workloads, w)
		}
	}
	m.Notes = s.notes()
	return m, nil
}

// notes say what a survey leaves out.
func (s *survey) notes() []string {
	notes := []string{"nodes, and pods of the host network with them, reach the pods of their own node; for all others they are addresses"}
	if s.unranged > 0 {
		notes = append(notes, fmt.Sprintf("%d more groups of addresses are told apart by policies", s.unranged))
	}
	return notes
}

// reach merges what units say that do not differ.
func (s *survey) reach(from, to *Workload, port *Port, memo map[pair][]PortRange) (all []Reach) {
	var of [len(model.Families)]tally
	for _, family := range model.Families {
		for _, u := range from.units {
			for _, v := range to.units {
				if !apart(u, v, family) {
					continue
				}
				p := s.pairOf(0, u, v, family)
				ranges, known := memo[p]
				if !known {
					ranges = p.allowed()
					memo[p] = ranges
				}
				of[family].add(only(ranges, port))
			}
		}
	}
	both := of[model.IPv4]
	for _, ranges := range of[model.IPv6].ranges {
		both.add(ranges)
	}
	if len(both.ranges) <= 1 {
		of = [len(model.Families)]tally{both, {}}
	}
	for _, family := range model.Families {
		r := Reach{From: from.Name, To: to.Name, Ports: of[family].union(), Some: len(of[family].ranges) > 1}
		if len(both.ranges) > 1 {
			r.Family = family.String()
		}
		if len(r.Ports) > 0 {
			all = append(all, r)
		}
	}
	return all
}

// only keeps of ranges what has a port; nil: all.
func only(ranges []PortRange, port *Port) (kept []PortRange) {
	if port == nil {
		return ranges
	}
	for _, r := range ranges {
		if r.Protocol == protocolName(cmp.Or(port.Protocol, model.TCP)) && r.From <= port.Number && port.Number <= r.To {
			kept = append(kept, PortRange{r.Protocol, port.Number, port.Number})
		}
	}
	return kept
}

// tally is what units say, each different answer once.
type tally struct{ ranges [][]PortRange }

func (t *tally) add(ranges []PortRange) {
	if !slices.ContainsFunc(t.ranges, func(known []PortRange) bool { return slices.Equal(known, ranges) }) {
		t.ranges = append(slices.Clip(t.ranges), ranges)
	}
}

// union are ports that any of them allows.
func (t *tally) union() (ranges []PortRange) {
	if len(t.ranges) <= 1 {
		for _, only := range t.ranges {
			ranges = only
		}
		return ranges
	}
	var all []*plan.Ports
	for _, of := range t.ranges {
		ports := &plan.Ports{}
		for _, r := range of {
			protocol := icmp
			if r.Protocol != protocolName(icmp) {
				protocol, _ = model.ParseProtocol(r.Protocol)
			}
			ports.Ranges = append(ports.Ranges, plan.PortRange{Protocol: protocol, From: r.From, To: r.To, Decision: plan.Decision{Accept: true}})
		}
		all = append(all, ports)
	}
	for _, s := range stretchesOf(all...) {
		if slices.ContainsFunc(all, func(ports *plan.Ports) bool { return s.decide(ports).Accept }) {
			ranges = join(ranges, s)
		}
	}
	return ranges
}

// Rows are the lines of a table: from whom, to whom, and at which ports.
// Whoever may call the same is in one line, and whoever is called the same.
func (m *Matrix) Rows() (rows [][3]string) {
	type line struct{ from, ports string }
	to := map[line][]string{}
	var order []line
	for _, r := range m.Reach {
		l := line{r.From, rangesText(r.Ports)}
		if r.Family != "" {
			l.ports += ", " + r.Family
		}
		if r.Some {
			l.ports += " (some pods)"
		}
		if to[l] == nil {
			order = append(order, l)
		}
		to[l] = append(to[l], r.To)
	}
	names := namer(m.Workloads)
	from, single := map[[2]string][]string{}, map[[2]string]string{}
	var keys [][2]string
	for _, l := range order {
		key := [2]string{names(to[l], l.from), l.ports}
		if from[key] == nil {
			keys = append(keys, key)
		}
		from[key] = append(from[key], l.from)
		if len(to[l]) == 1 {
			single[key] = to[l][0]
		}
	}
	for _, key := range keys {
		rows = append(rows, [3]string{names(from[key], single[key]), key[0], key[1]})
	}
	return rows
}

// namer shortens lists of workloads: all of a namespace are NAMESPACE/*, and all
// that are pods, all pods. Who is at the other end may be missing, since it may
// be a pod that would call itself.
func namer(all []*Workload) func(names []string, end string) string {
	of := map[string]*Workload{}
	for _, w := range all {
		of[w.Name] = w
	}
	return func(names []string, end string) string {
		missing, pods := map[string]bool{}, 0 // by namespace; empty: of all
		for _, w := range all {
			if w.namespace != "" && !slices.Contains(names, w.Name) && (w.Name != end || w.Pods > 1) {
				missing[w.namespace], missing[""] = true, true
			}
			if w.namespace != "" {
				pods++
			}
		}
		var texts []string
		for _, name := range names {
			switch w := of[name]; {
			case w == nil || w.namespace == "":
			case !missing[""] && pods > 2:
				name = "all pods"
			case !missing[w.namespace] && len(inNamespace(names, of, w.namespace)) > 1:
				name = w.namespace + "/*"
			}
			if !slices.Contains(texts, name) {
				texts = append(texts, name)
			}
		}
		return strings.Join(texts, ", ")
	}
}

// inNamespace are those of a namespace.
func inNamespace(names []string, of map[string]*Workload, namespace string) (found []string) {
	for _, name := range names {
		if of[name] != nil && of[name].namespace == namespace {
			found = append(found, name)
		}
	}
	return found
}
