package policy

import (
	"fmt"
	"io"
	"strings"
)

// Style is how texts mark what they say. The zero value writes no colours.
type Style struct {
	Colour bool // of an ANSI terminal (ECMA-48)
}

const (
	red   = 31
	green = 32
)

func (s Style) paint(code int, text string) string {
	if !s.Colour {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, text)
}

// verdict colours one.
func (s Style) verdict(text string) string {
	if text == Denied {
		return s.paint(red, text)
	}
	return s.paint(green, text)
}

// Text writes an explanation for people. Ways of which the same is said are
// written once.
func (e *Explanation) Text(to io.Writer, style Style) error {
	var b strings.Builder
	for _, group := range e.alike() {
		first := group[0]
		fmt.Fprintf(&b, "%s → %s: %s\n", e.From.title(), e.target(first), style.verdict(first.Verdict))
		for _, c := range group {
			seen := ""
			if c.SeenAs != nil {
				seen = fmt.Sprintf(", seen as %s, an address of the node", c.SeenAs)
			}
			fmt.Fprintf(&b, "  %s → %s%s\n", c.Source, c.destination(), seen)
		}
		writeSide(&b, "egress of "+e.From.Name, "to", &first.Egress, style)
		writeSide(&b, "ingress of "+first.To, "from", &first.Ingress, style)
		b.WriteString("\n")
	}
	for _, note := range e.Notes {
		fmt.Fprintf(&b, "note: %s\n\n", note)
	}
	_, err := io.WriteString(to, strings.TrimSuffix(b.String(), "\n"))
	return err
}

func (e End) title() string {
	switch {
	case e.HostNetwork:
		return fmt.Sprintf("%s (on the network of %s)", e.Name, e.Node)
	case e.Kind == OfNode:
		return "node " + e.Name
	}
	return e.Name
}

// target names who is called, and at which port.
func (e *Explanation) target(c Connection) string {
	port := c.Protocol
	if c.Destination.Port() != 0 {
		port = fmt.Sprintf("%d/%s", c.Destination.Port(), c.Protocol)
	}
	if e.To.Kind == OfService {
		return fmt.Sprintf("svc/%s → %s, %s", e.To.Name, c.To, port)
	}
	return e.To.title() + ", " + port
}

func (c *Connection) destination() string {
	if c.Destination.Port() == 0 {
		return c.Destination.Addr().String()
	}
	return c.Destination.String()
}

// alike are connections that differ in nothing but addresses, together.
func (e *Explanation) alike() (groups [][]Connection) {
	at := map[string]int{}
	for _, c := range e.Connections {
		key := c.To + " " + c.Protocol + " " + fmt.Sprint(c.Destination.Port()) + c.Egress.key() + c.Ingress.key()
		n, known := at[key]
		if !known {
			n = len(groups)
			at[key], groups = n, append(groups, nil)
		}
		groups[n] = append(groups[n], c)
	}
	return groups
}

func (s *Side) key() string {
	var b strings.Builder
	writeSide(&b, "", "", s, Style{})
	return b.String()
}

// writeSide writes what one end's policies say; word is to or from.
func writeSide(b *strings.Builder, title, word string, s *Side, style Style) {
	fmt.Fprintf(b, "\n  %s: %s\n", title, style.verdict(s.Verdict))
	switch {
	case s.Exempt != "":
		fmt.Fprintf(b, "    %s\n", s.Exempt)
	case s.Unknown:
		b.WriteString("    the pod is not known yet, and may do nothing until it is\n")
	case s.By != nil:
		fmt.Fprintf(b, "    by %s\n      %s\n", s.By, s.By.says(word))
	case s.Verdict == Denied:
		fmt.Fprintf(b, "    by default: no rule of %s allows it\n", policies(s.IsolatedBy))
	default:
		b.WriteString("    no policy forbids it\n")
	}
	if s.Nearest != nil {
		fmt.Fprintf(b, "    nearest allow: %s: %s\n      %s\n", s.Nearest, s.Differs, s.Nearest.says(word))
		if s.Peer != "" {
			fmt.Fprintf(b, "      this is %s\n", s.Peer)
		}
	}
}

// policies names those that isolate a pod.
func policies(names []string) string {
	switch len(names) {
	case 0:
		return "its policies"
	case 1:
		return "NetworkPolicy " + names[0] + ", which isolates the pod,"
	}
	return "NetworkPolicies " + strings.Join(names, ", ") + ", which isolate the pod,"
}

// says is what a rule says of whom.
func (r *Rule) says(word string) string {
	return fmt.Sprintf("%s %s %s, at %s", r.Action, word, r.Peers, r.Ports)
}
