package lookup

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Style is how Text marks what it writes. The zero value writes no colours.
type Style struct {
	Good, Bad, Doubt, Bold func(string) string
}

func (s Style) of(paint func(string) string, text string) string {
	if paint == nil {
		return text
	}
	return paint(text)
}

// Text writes a lookup for people: each query with what its server did for it, and
// what came of all.
func Text(to io.Writer, l *Lookup, details bool, style Style) error {
	var b strings.Builder
	who := l.Client
	if l.Pod != "" {
		who = fmt.Sprintf("pod %s (%s)", l.Pod, l.Client)
	}
	fmt.Fprintf(&b, "%s on %s looks for %s: %s\n", who, l.Node, style.of(style.Bold, l.Name), strings.Join(l.Types, ", "))
	fmt.Fprintf(&b, "search %s; ndots %d; completion %s\n", orNone(strings.Join(l.Search, " ")), l.NDots, map[bool]string{true: "on", false: "off"}[l.Completion])
	for _, note := range l.Notes {
		fmt.Fprintf(&b, "%s %s\n", style.of(style.Doubt, "!"), note)
	}
	names := 0
	for i := range l.Queries {
		names = max(names, utf8.RuneCountInString(l.Queries[i].Name))
	}
	for i := range l.Queries {
		if i == 0 || details || len(l.Queries[i].Steps) > 1 || len(l.Queries[i-1].Steps) > 1 {
			fmt.Fprintln(&b)
		}
		writeQuery(&b, i+1, &l.Queries[i], names, details, style)
	}
	fmt.Fprintln(&b)
	writeResult(&b, l, style)
	_, err := io.WriteString(to, b.String())
	return err
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// writeQuery writes a query and below it, if more was done than to look it up,
// what. Names have so many places.
func writeQuery(b *strings.Builder, number int, q *Query, names int, details bool, style Style) {
	mark := style.of(style.Bad, "✗")
	switch {
	case q.Rcode == "":
	case hasType(q):
		mark = style.of(style.Good, "✓")
	case q.Rcode == "NXDOMAIN" || q.Rcode == "NOERROR":
		mark = "·"
	}
	said := q.Rcode
	switch {
	case said == "":
		said = "no answer"
	case said == "NOERROR" && !hasType(q):
		said = "NOERROR, but no " + q.Type
	}
	gap := strings.Repeat(" ", names-utf8.RuneCountInString(q.Name))
	fmt.Fprintf(b, "%s %2d  %-4s  %s%s  %-8s  %s", mark, number, q.Type, style.of(style.Bold, q.Name), gap, said, took(q.Seconds))
	if len(q.Steps) == 1 && !details {
		fmt.Fprintf(b, "  %s", q.Steps[0].who())
	}
	fmt.Fprintln(b)
	if len(q.Steps) > 1 || details {
		writeSteps(b, q.Steps, details)
	}
	if len(q.Records) > 0 {
		fmt.Fprintf(b, "          = %s\n", strings.Join(recordTexts(q.Records), ", "))
	}
}

func writeSteps(b *strings.Builder, steps []Step, details bool) {
	names, by := 0, 0
	for i := range steps {
		names, by = max(names, utf8.RuneCountInString(steps[i].Name)), max(by, utf8.RuneCountInString(steps[i].who()))
	}
	for i := range steps {
		s := &steps[i]
		line := fmt.Sprintf("            %-*s  %-*s  %-8s", names, s.Name, by, s.who(), s.Rcode)
		if s.Seconds > 0 {
			line += "  " + took(s.Seconds)
		}
		fmt.Fprintln(b, strings.TrimRight(line, " "))
		if !details {
			continue
		}
		for _, d := range s.Details {
			fmt.Fprintf(b, "              %s\n", strings.TrimSpace(d.Upstream+" "+d.Text))
		}
	}
}

// who is who has answered, for people.
func (s *Step) who() string {
	switch s.By {
	case "cluster":
		return "names of the cluster"
	case "cache":
		return "cache"
	case "stale":
		return "cache, its time is over"
	case "upstream":
		if s.Zone != "" {
			return fmt.Sprintf("%s, asked about %s", s.Upstream, s.Zone)
		}
		return "upstream " + s.Upstream
	case "server":
		return "the server itself"
	}
	return "nobody"
}

func writeResult(b *strings.Builder, l *Lookup, style Style) {
	queries := fmt.Sprintf("%d queries, %s", len(l.Queries), took(l.Seconds))
	if len(l.Queries) == 1 {
		queries = "1 query, " + took(l.Seconds)
	}
	if !l.Found {
		fmt.Fprintf(b, "%s not found: %s\n", style.of(style.Bad, "✗"), queries)
		return
	}
	var data []string
	for i := range l.Queries {
		for _, record := range l.Queries[i].Records {
			if record.Type == l.Queries[i].Type {
				data = append(data, record.Data)
			}
		}
	}
	fmt.Fprintf(b, "%s found %s: %s", style.of(style.Good, "✓"), strings.Join(firstOf(data, 4), ", "), queries)
	if l.Without > len(l.Queries) {
		fmt.Fprintf(b, "; without completion %d queries (--no-completion shows them)", l.Without)
	}
	fmt.Fprintln(b)
}

func hasType(q *Query) bool {
	for _, record := range q.Records {
		if record.Type == q.Type {
			return true
		}
	}
	return false
}

// recordTexts are records for people: those that lead on to another name, then the
// others.
func recordTexts(records []Record) (texts []string) {
	for _, record := range records {
		texts = append(texts, record.Type+" "+record.Data)
	}
	return firstOf(texts, 6)
}

func firstOf(texts []string, most int) []string {
	if len(texts) > most {
		return append(texts[:most:most], fmt.Sprintf("and %d more", len(texts)-most))
	}
	return texts
}

// took is a time such as 0.04 ms.
func took(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", seconds*1e3)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", seconds*1e3)
	}
	return fmt.Sprintf("%.1f s", seconds)
}
