package ingress

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/gateway"
)

// Lint is what Fairlead will make of Ingresses. It only grows.
type Lint struct {
	Ingresses []Linted `json:"ingresses"` // sorted by namespace and name
	Counts    Counts   `json:"counts"`
}

// Counts are of all Ingresses.
type Counts struct {
	Ingresses int `json:"ingresses"`
	// Whole are those that do here what they did; Partly those of which something is
	// not honoured; Closed those that answer 503 for it; Others are of other classes.
	Whole  int `json:"whole"`
	Partly int `json:"partly"`
	Closed int `json:"closed"`
	Others int `json:"others"`

	Annotations map[string]int `json:"annotations"` // by what becomes of them
}

// Linted is what becomes of one Ingress.
type Linted struct {
	Ingress     string       `json:"ingress"` // NAMESPACE/NAME
	Class       string       `json:"class,omitempty"`
	Served      bool         `json:"served"`
	Closed      bool         `json:"closed,omitempty"` // all requests are answered with 503
	Hosts       []string     `json:"hosts,omitempty"`
	Paths       int          `json:"paths"`
	Annotations []Annotation `json:"annotations,omitempty"`
	Problems    []Problem    `json:"problems,omitempty"` // beside those of annotations
}

// Annotation is what becomes of one.
type Annotation struct {
	Name   string `json:"name"` // behind nginx.ingress.kubernetes.io/
	Value  string `json:"value"`
	Does   string `json:"does"` // honoured, not needed, refused or unknown
	Why    string `json:"why,omitempty"`
	Closes bool   `json:"closes,omitempty"`
}

// Problem is something to mend.
type Problem struct {
	Field   string `json:"field"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// LintOf says what becomes of each Ingress of a snapshot. Unread are problems of
// reading it. Without services it does not matter whether backends are there.
func LintOf(snapshot *model.Snapshot, unread []model.Problem, services bool) *Lint {
	table, problems := compute(snapshot)
	of := map[model.IngressKey][]Problem{}
	for _, p := range append(slices.Clone(unread), problems...) {
		if !services && p.Reason == "NoBackend" {
			continue
		}
		key := model.IngressKey{Namespace: p.Namespace, Name: p.Name}
		of[key] = append(of[key], Problem{p.Field, p.Reason, p.Message, p.Remedy})
	}
	lint := &Lint{Ingresses: []Linted{}, Counts: Counts{Annotations: map[string]int{}}}
	for key, ingress := range snapshot.Ingresses.All() {
		lint.add(ingress, table.Serves(key), of[key])
	}
	slices.SortFunc(lint.Ingresses, func(a, b Linted) int { return cmp.Compare(a.Ingress, b.Ingress) })
	return lint
}

func (l *Lint) add(ingress *model.HTTPIngress, served bool, problems []Problem) {
	made := Linted{Ingress: ingress.String(), Class: ingress.Class, Served: served}
	for _, rule := range ingress.Rules {
		host := cmp.Or(rule.Host, "*")
		if !slices.Contains(made.Hosts, host) {
			made.Hosts = append(made.Hosts, host)
		}
		made.Paths += len(rule.Paths)
	}
	l.Counts.Ingresses++
	if !served {
		l.Counts.Others++
		l.Ingresses = append(l.Ingresses, made)
		return
	}
	told := map[string]bool{}
	lacking := 0
	for _, v := range gateway.Verdicts(ingress) {
		made.Annotations = append(made.Annotations, Annotation{v.Name(), v.Annotation.Value, v.Support.String(), v.Why, v.Closes})
		l.Counts.Annotations[v.Support.String()]++
		if v.Why != "" {
			told["metadata.annotations["+v.Annotation.Key+"]"] = true
		}
		if v.Support == gateway.Refused {
			lacking++
		}
		made.Closed = made.Closed || v.Closes
	}
	for _, p := range problems {
		if !told[p.Field] {
			made.Problems = append(made.Problems, p)
			lacking++
			made.Closed = made.Closed || p.Reason == "NotHonoured" && strings.Contains(p.Remedy, "503")
		}
	}
	switch {
	case made.Closed:
		l.Counts.Closed++
	case lacking > 0:
		l.Counts.Partly++
	default:
		l.Counts.Whole++
	}
	l.Ingresses = append(l.Ingresses, made)
}

// Text writes it for people. Annotations that are honoured are counted, unless all
// are wanted.
func (l *Lint) Text(to io.Writer, all bool, style Style) error {
	var b strings.Builder
	for i := range l.Ingresses {
		l.Ingresses[i].text(&b, all, style)
	}
	c := l.Counts
	fmt.Fprintf(&b, "%s: %s as they are", count(c.Ingresses, "Ingress", "Ingresses"), style.paint(green, fmt.Sprint(c.Whole)))
	for _, part := range []struct {
		n      int
		colour string
		text   string
	}{
		{c.Partly, yellow, "with something that is not honoured"}, {c.Closed, red, "closed, with status 503, until they are mended"}, {c.Others, "", "of other classes"},
	} {
		if part.n > 0 {
			fmt.Fprintf(&b, ", %s %s", style.paint(part.colour, fmt.Sprint(part.n)), part.text)
		}
	}
	fmt.Fprintf(&b, "\n")
	if sum := c.Annotations; len(sum) > 0 {
		total, parts := 0, []string(nil)
		for s := gateway.Honoured; s <= gateway.Unknown; s++ {
			if n := sum[s.String()]; n > 0 {
				total += n
				parts = append(parts, fmt.Sprintf("%d %s", n, s))
			}
		}
		fmt.Fprintf(&b, "%s: %s\n", count(total, "annotation", "annotations"), strings.Join(parts, ", "))
	}
	_, err := io.WriteString(to, b.String())
	return err
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (i *Linted) text(b *strings.Builder, all bool, style Style) {
	state := style.paint(green, "as it is")
	switch {
	case !i.Served:
		state = fmt.Sprintf("not served: class %q is another controller's", i.Class)
	case i.Closed:
		state = style.paint(red, "closed: all requests are answered with 503")
	case len(i.Problems) > 0 || slices.ContainsFunc(i.Annotations, func(a Annotation) bool { return a.Does == gateway.Refused.String() }):
		state = style.paint(yellow, "not all is honoured")
	}
	fmt.Fprintf(b, "%s  %s, %s: %s\n", i.Ingress, strings.Join(i.Hosts, " "), count(i.Paths, "path", "paths"), state)
	honoured := 0
	for _, a := range i.Annotations {
		mark, why := style.paint(green, "✓"), ""
		switch a.Does {
		case gateway.Honoured.String():
			if honoured++; !all {
				continue
			}
			why = clip(a.Value)
		case gateway.Needless.String():
			mark, why = "–", "not needed: "+a.Why
		case gateway.Refused.String():
			mark, why = style.paint(red, "✗"), a.Why
		case gateway.Unknown.String():
			mark, why = style.paint(yellow, "?"), a.Why
		}
		fmt.Fprintf(b, "  %s %s  %s\n", mark, a.Name, why)
	}
	if honoured > 0 && !all {
		fmt.Fprintf(b, "  %s %s honoured\n", style.paint(green, "✓"), count(honoured, "annotation", "annotations"))
	}
	for _, p := range i.Problems {
		fmt.Fprintf(b, "  %s %s: %s\n    → %s\n", style.paint(yellow, "!"), p.Field, p.Message, p.Remedy)
	}
	b.WriteString("\n")
}

// clip shortens a value.
func clip(text string) string {
	text, _, cut := strings.Cut(text, "\n")
	if runes := []rune(text); len(runes) > 60 {
		text, cut = string(runes[:60]), true
	}
	if cut {
		text += "…"
	}
	return text
}
