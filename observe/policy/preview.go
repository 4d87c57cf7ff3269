package policy

import (
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/policy"
)

// Edit is a change of policies: those that are applied, or deleted.
type Edit struct {
	Policies        []*model.Policy
	ClusterPolicies []*model.ClusterPolicy
	Delete          bool
}

// Preview is what a change of policies would do to new connections. It only
// grows.
type Preview struct {
	Edits []Edited `json:"edits"` // in the order that they were given
	// Isolated and Freed are workloads that come to be isolated, or do not stay so.
	Isolated []Isolation `json:"isolated,omitempty"`
	Freed    []Isolation `json:"freed,omitempty"`
	Changes  []Change    `json:"changes"`
	Notes    []string    `json:"notes,omitempty"`

	workloads []*Workload
}

// What becomes of a policy.
const (
	Added     = "added"
	Replaced  = "replaced"
	Deleted   = "deleted"
	Unchanged = "unchanged"
)

// Edited is what becomes of a policy.
type Edited struct {
	Policy string `json:"policy"` // KIND NAMESPACE/NAME
	Does   string `json:"does"`
	Pods   int    `json:"pods"` // that it selects
}

// Isolation is of workloads in one direction.
type Isolation struct {
	Workload  string `json:"workload"`
	Direction string `json:"direction"`
}

// Change is connections of which something else becomes.
type Change struct {
	From    string      `json:"from"`
	To      string      `json:"to"`
	Family  string      `json:"family,omitempty"` // empty: in all families that both have
	Ports   []PortRange `json:"ports"`
	Becomes string      `json:"becomes"` // allowed or denied
	By      string      `json:"by"`      // who denies it: from now on, or until now
	// Rule is what allows it from now on, at the end that denied it; empty: no
	// rule has to.
	Rule string `json:"rule,omitempty"`
	Some bool   `json:"some,omitempty"` // not for all pods of both
}

// apply makes the snapshot that an edit leads to.
func (e *Edit) apply(from *model.Snapshot) (*model.Snapshot, []Edited, error) {
	next := *from
	var all []Edited
	note := func(kind, name string, had, same bool, pods int) error {
		edited := Edited{Policy: kind + " " + name, Does: Added, Pods: pods}
		switch {
		case e.Delete && !had:
			return &Untold{fmt.Sprintf("there is no %s %s to be deleted", kind, name), "kubectl get " + strings.ToLower(kind) + " -A"}
		case e.Delete:
			edited.Does = Deleted
		case same:
			edited.Does = Unchanged
		case had:
			edited.Does = Replaced
		}
		all = append(all, edited)
		return nil
	}
	for _, p := range e.Policies {
		old, had := next.Policies.Get(p.PolicyKey)
		if err := note("NetworkPolicy", p.String(), had, had && old.Equal(p), selected(from, p)); err != nil {
			return nil, nil, err
		}
		if next.Policies = next.Policies.With(p.PolicyKey, p); e.Delete {
			next.Policies = next.Policies.Without(p.PolicyKey)
		}
	}
	for _, p := range e.ClusterPolicies {
		old, had := next.ClusterPolicies.Get(p.Name)
		if err := note("ClusterNetworkPolicy", p.Name, had, had && old.Equal(p), subjects(from, p)); err != nil {
			return nil, nil, err
		}
		if next.ClusterPolicies = next.ClusterPolicies.With(p.Name, p); e.Delete {
			next.ClusterPolicies = next.ClusterPolicies.Without(p.Name)
		}
	}
	return &next, all, nil
}

// selected is how many pods a policy is for.
func selected(s *model.Snapshot, p *model.Policy) (n int) {
	for _, pod := range s.Pods.All() {
		if connected(pod) && pod.Namespace == p.Namespace && p.Pods.Matches(pod.Labels) {
			n++
		}
	}
	return n
}

func subjects(s *model.Snapshot, p *model.ClusterPolicy) (n int) {
	for _, pod := range s.Pods.All() {
		if connected(pod) && p.Pods.Matches(pod.Labels) && p.Namespaces.Matches(labelsOf(s, pod.Namespace)) {
			n++
		}
	}
	return n
}

// PreviewOf says what a change would do: to connections from workload to
// workload, by port.
func PreviewOf(snapshot *model.Snapshot, edit Edit) (*Preview, error) {
	next, edited, err := edit.apply(snapshot)
	if err != nil {
		return nil, err
	}
	s, err := surveyOf(snapshot, next)
	if err != nil {
		return nil, err
	}
	p := &Preview{Edits: edited, Changes: []Change{}, Notes: s.notes(), workloads: s.workloads}
	p.isolation(s)
	for _, from := range s.workloads {
		for _, to := range s.workloads {
			if !from.service && (from.namespace != "" || to.namespace != "") {
				p.Changes = append(p.Changes, s.changes(from, to)...)
			}
		}
	}
	return p, nil
}

// isolation finds who comes to be isolated.
func (p *Preview) isolation(s *survey) {
	for _, w := range s.workloads {
		for _, d := range model.Directions {
			var before, after bool
			for _, u := range w.units {
				if u.like == nil {
					continue
				}
				before = before || len(isolating(s.worlds[0].snapshot, u.like, d)) > 0
				after = after || len(isolating(s.worlds[1].snapshot, u.like, d)) > 0
			}
			of := Isolation{w.Name, d.String()}
			switch {
			case !before && after:
				p.Isolated = append(p.Isolated, of)
			case before && !after:
				p.Freed = append(p.Freed, of)
			}
		}
	}
}

// turn is what becomes of connections, whose say that is, and at which ports.
type turn struct{ becomes, by, rule, ports string }

// turns are those of units of two workloads, each with the ranges of ports and
// how many pairs of units it is of, by family.
type turns struct {
	order  []turn
	ranges map[turn][]PortRange
	pairs  map[turn][len(model.Families)]int
	all    [len(model.Families)]int
}

// changes are those between two workloads.
func (s *survey) changes(from, to *Workload) (all []Change) {
	t := turns{ranges: map[turn][]PortRange{}, pairs: map[turn][len(model.Families)]int{}}
	for _, family := range model.Families {
		for _, u := range from.units {
			for _, v := range to.units {
				if apart(u, v, family) {
					t.all[family]++
					s.compare(&t, u, v, family)
				}
			}
		}
	}
	for _, of := range t.order {
		c := Change{From: from.Name, To: to.Name, Ports: t.ranges[of], Becomes: of.becomes, By: of.by, Rule: of.rule}
		pairs := t.pairs[of]
		for _, family := range model.Families {
			other := model.Families[1-family]
			if pairs[family] > 0 && pairs[other] == 0 && t.all[other] > 0 {
				c.Family = family.String()
			}
			c.Some = c.Some || pairs[family] > 0 && pairs[family] < t.all[family]
		}
		all = append(all, c)
	}
	return all
}

// compare adds what becomes of connections between two units.
func (s *survey) compare(t *turns, from, to *unit, family model.Family) {
	before, after := s.pairOf(0, from, to, family), s.pairOf(1, from, to, family)
	if same(before.egress, after.egress) && same(before.ingress, after.ingress) {
		return
	}
	found := map[turn][]PortRange{}
	var order []turn
	for _, at := range stretchesOf(before.egress, before.ingress, after.egress, after.ingress) {
		d, denied := before.denied(at)
		e, denies := after.denied(at)
		if denied == denies {
			continue
		}
		of := turn{becomes: Denied}
		if denies {
			of.by = s.byText(1, e, at.decide(after.side(e)).By, from, to)
		} else {
			of.becomes, of.by = Allowed, s.byText(0, d, at.decide(before.side(d)).By, from, to)
			of.rule = s.accepting(d, at, from, to, family)
		}
		if found[of] == nil {
			order = append(order, of)
		}
		found[of] = join(found[of], at)
	}
	for _, of := range order {
		ranges := found[of]
		of.ports = rangesText(ranges)
		pairs := t.pairs[of]
		if pairs == [len(model.Families)]int{} {
			t.order = append(t.order, of)
		}
		pairs[family]++
		t.pairs[of], t.ranges[of] = pairs, ranges
	}
}

func same(a, b *plan.Ports) bool {
	return a == b || a != nil && b != nil && a.Equal(b)
}

func (p pair) side(d model.Direction) *plan.Ports {
	if d == model.Egress {
		return p.egress
	}
	return p.ingress
}

// denied tells whether one of the ends denies ports, and which: egress comes
// first.
func (p pair) denied(at stretch) (model.Direction, bool) {
	if !at.decide(p.egress).Accept {
		return model.Egress, true
	}
	return model.Ingress, !at.decide(p.ingress).Accept
}

// byText says who denies in one of the worlds.
func (s *survey) byText(world int, d model.Direction, by plan.Rule, from, to *unit) string {
	at := to
	if d == model.Egress {
		at = from
	}
	if rule, _ := ruleOf(s.worlds[world].snapshot, d, by); rule != nil {
		return fmt.Sprintf("%s, %s", d, rule)
	}
	return fmt.Sprintf("%s, no rule of %s", d, some(isolating(s.worlds[world].snapshot, at.like, d), ", "))
}

// accepting is the rule that allows at one end what is denied no more.
func (s *survey) accepting(d model.Direction, at stretch, from, to *unit, family model.Family) string {
	own, peer := to, from
	if d == model.Egress {
		own, peer = from, to
	}
	if !peer.example[family].IsValid() {
		return ""
	}
	why := s.worlds[1].plan.Explain(plan.Subject{Direction: d, Address: first(own.like.Addresses, family)}, peer.example[family], at.protocol, at.from)
	if why.Accepted == nil {
		return ""
	}
	rule, _ := ruleOf(s.worlds[1].snapshot, d, *why.Accepted)
	return rule.String()
}

// Text writes it for people.
func (p *Preview) Text(to io.Writer, style Style) error {
	var b strings.Builder
	for _, e := range p.Edits {
		fmt.Fprintf(&b, "%s: %s; it selects %s\n", e.Policy, e.Does, counted(e.Pods, "pod"))
	}
	names := namer(p.workloads)
	isolations(&b, "comes to be isolated", p.Isolated, names)
	isolations(&b, "is isolated no more", p.Freed, names)
	p.write(&b, Denied, "will be "+style.verdict(Denied), names)
	p.write(&b, Allowed, "will be "+style.verdict(Allowed), names)
	if len(p.Changes) == 0 {
		b.WriteString("\nno connection between pods, or with other addresses, would be judged otherwise\n")
	}
	_, err := io.WriteString(to, b.String())
	return err
}

func isolations(b *strings.Builder, what string, all []Isolation, names func([]string, string) string) {
	for _, d := range model.Directions {
		var of []string
		for _, i := range all {
			if i.Direction == d.String() {
				of = append(of, i.Workload)
			}
		}
		if of != nil {
			fmt.Fprintf(b, "%s in %s: %s\n", what, d, names(of, ""))
		}
	}
}

// write writes the changes to a verdict: whoever is told the same of the same is
// in one line.
func (p *Preview) write(b *strings.Builder, becomes, title string, names func([]string, string) string) {
	type line struct{ to, ports, by, rule string }
	from := map[line][]string{}
	var order []line
	for _, c := range p.Changes {
		if c.Becomes != becomes {
			continue
		}
		l := line{c.To, rangesText(c.Ports), c.By, c.Rule}
		if c.Family != "" {
			l.ports += ", " + c.Family
		}
		if c.Some {
			l.ports += " (some pods)"
		}
		if from[l] == nil {
			order = append(order, l)
		}
		from[l] = append(from[l], c.From)
	}
	type whole struct{ from, ports, by, rule string }
	to := map[whole][]string{}
	var lines []whole
	for _, l := range order {
		w := whole{names(from[l], l.to), l.ports, l.by, l.rule}
		if to[w] == nil {
			lines = append(lines, w)
		}
		to[w] = append(to[w], l.to)
	}
	for i, w := range lines {
		if i == 0 {
			fmt.Fprintf(b, "\n%s\n", title)
		}
		until := ""
		if becomes == Allowed {
			until = "until now denied by "
		}
		fmt.Fprintf(b, "  %s → %s: %s\n    %s%s\n", w.from, names(to[w], ""), w.ports, until, w.by)
		if w.rule != "" {
			fmt.Fprintf(b, "    now allowed by %s\n", w.rule)
		}
	}
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
