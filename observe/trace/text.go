package trace

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Style is how Text marks what it writes. The zero value writes no colours.
type Style struct {
	Colour bool // of an ANSI terminal (ECMA-48)
}

// The marks of lines and results, and their colours.
var marks = map[Effect]struct {
	mark   string
	colour int
}{
	"":      {"✓", 32},
	Breaks:  {"✗", 31},
	Unclear: {"?", 33},
	Harms:   {"!", 33},
}

const dim = 2

func (s Style) paint(code int, text string) string {
	if !s.Colour || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, text)
}

// Text writes a path for people: a line for each interface, what is wrong below
// it, and the result. Back is the way of the answer; nil if it is not known. It
// is shown whole if it does not arrive, if something is wrong on it, or if both
// are wanted.
func Text(to io.Writer, path, back *Path, both bool, style Style) error {
	var b strings.Builder
	writePath(&b, path, "arrives", style)
	if back != nil {
		switch {
		case both || back.Outcome != Arrives || back.adds(path):
			b.WriteString("\n")
			writePath(&b, back, "the answer arrives", style)
		default:
			fmt.Fprintf(&b, "%s the answer arrives, too%s%s%s\n", style.mark(""), back.unfollowed(), capacity(back), backText(path))
		}
	}
	_, err := io.WriteString(to, b.String())
	return err
}

func (s Style) mark(effect Effect) string {
	m := marks[effect]
	return s.paint(m.colour, m.mark)
}

// adds tells whether something is wrong here that is not on the other path.
func (p *Path) adds(other *Path) bool {
	for _, line := range p.Lines {
		for _, finding := range line.Findings {
			known := func(l Line) bool { return slices.Contains(l.Findings, finding) }
			if !slices.ContainsFunc(other.Lines, known) {
				return true
			}
		}
	}
	return slices.ContainsFunc(p.Firewalls, func(f Firewall) bool {
		return !slices.ContainsFunc(other.Firewalls, func(o Firewall) bool { return o.Node == f.Node })
	})
}

// harmed tells whether something is wrong though it arrives.
func (p *Path) harmed() bool {
	return len(p.Reports) > 0 || slices.ContainsFunc(p.Lines, func(l Line) bool { return len(l.Findings) > 0 })
}

func writePath(b *strings.Builder, path *Path, arrives string, style Style) {
	fmt.Fprintf(b, "%s %s → %s\n\n", familyText(path), endText(path.From), endText(path.To))
	rows := [][]string{{"WHERE", "DEVICE", "MTU", "WAY"}}
	for _, line := range path.Lines {
		mtu := ""
		if line.MTU != 0 {
			mtu = fmt.Sprint(line.MTU)
		}
		rows = append(rows, []string{line.Where, line.Device, mtu, line.Way})
	}
	widths := make([]int, 4)
	for _, row := range rows {
		for i, cell := range row[:3] {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for i, row := range rows {
		mark, text := " ", strings.TrimRight(fmt.Sprintf("%-*s  %-*s  %*s  %s", widths[0], row[0], widths[1], row[1], widths[2], row[2], row[3]), " ")
		if i == 0 {
			fmt.Fprintf(b, "  %s  %s\n", mark, style.paint(dim, text))
			continue
		}
		line := &path.Lines[i-1]
		fmt.Fprintf(b, "  %s  %s\n", style.mark(line.effect()), text)
		for _, finding := range line.Findings {
			writeFinding(b, finding, style)
		}
	}
	b.WriteString("\n")
	for _, report := range path.Reports {
		fmt.Fprintf(b, "%s the agent of %s reports %s\n", style.mark(Harms), report.Node, report.Problem)
		if report.Next != "" {
			fmt.Fprintf(b, "       %s  %s\n", style.paint(dim, "next  "), report.Next)
		}
	}
	for _, firewall := range path.Firewalls {
		writeFirewall(b, firewall, style)
	}
	if path.Service != nil {
		if others := path.Service.others(); others != "" {
			fmt.Fprintf(b, "  another connection may go to %s (--backend follows it)\n", others)
		}
	}
	fmt.Fprintf(b, "%s\n", result(path, arrives, style))
}

func writeFinding(b *strings.Builder, f Finding, style Style) {
	for _, part := range [][2]string{{"what", f.What}, {"plan", f.Plan}, {"kernel", f.Kernel}, {"next", f.Next}} {
		if part[1] == "" {
			continue
		}
		text := part[1]
		if part[0] == "what" {
			text = style.paint(marks[f.Effect].colour, text)
		}
		fmt.Fprintf(b, "       %s  %s\n", style.paint(dim, fmt.Sprintf("%-6s", part[0])), text)
	}
}

// writeFirewall names what is not followed, and how to look at it.
func writeFirewall(b *strings.Builder, f Firewall, style Style) {
	note := func(what string) { fmt.Fprintf(b, "%s on %s, %s\n", style.mark(Harms), f.Node, what) }
	look := func(command string) {
		fmt.Fprintf(b, "       %s  look at them on %s: %s\n", style.paint(dim, "next  "), f.Node, command)
	}
	if len(f.Chains) > 0 {
		note("chains of other programs drop some packets; they are not followed")
	}
	for _, chain := range f.Chains {
		look("nft list chain " + chain)
	}
	if len(f.Legacy) > 0 {
		note("iptables-legacy has tables, which may drop some packets; they are not followed")
	}
	for _, command := range f.Legacy {
		look(command)
	}
	if f.Error != "" {
		note("which chains of other programs drop packets is not known: " + f.Error)
		look("nft list ruleset")
	}
}

// unfollowed is what an answer that arrives depends on besides.
func (p *Path) unfollowed() string {
	if len(p.Firewalls) == 0 {
		return ""
	}
	return ", if what is named above lets it pass"
}

// result is the last line.
func result(path *Path, arrives string, style Style) string {
	last := path.Lines[len(path.Lines)-1]
	switch path.Outcome {
	case Arrives, Leaves:
		effect, what := Effect(""), arrives
		if path.Outcome == Leaves {
			what = fmt.Sprintf("leaves the cluster by %s of %s", last.Device, last.Where)
		}
		if path.harmed() {
			effect = Harms
			what += ", but see above"
		} else {
			what += path.unfollowed()
		}
		return style.mark(effect) + " " + what + capacity(path) + translation(path)
	case Unknown:
		return style.mark(Unclear) + " cannot tell: " + path.first(Unclear)
	default:
		negated := strings.Replace(arrives, "arrives", "does not arrive", 1)
		return style.mark(Breaks) + " " + negated + ": " + path.first(Breaks)
	}
}

// Why says why it does not arrive, or why that cannot be told; empty if it does.
func (p *Path) Why() string {
	switch p.Outcome {
	case Stops:
		return p.first(Breaks)
	case Unknown:
		return p.first(Unclear)
	default:
		return ""
	}
}

// first is what the first finding of an effect says.
func (p *Path) first(effect Effect) string {
	for _, line := range p.Lines {
		for _, finding := range line.Findings {
			if finding.Effect == effect {
				return finding.What
			}
		}
	}
	return ""
}

func capacity(path *Path) string {
	if path.MTU == 0 {
		return ""
	}
	return fmt.Sprintf("; packets of up to %d bytes fit", path.MTU)
}

func translation(path *Path) string {
	if led := path.Service; led != nil {
		text := "; Service " + led.Service + " led it to "
		if led.Service == "" {
			text = "; a Service led it to "
		}
		if led.End.Address.IsValid() && led.End.Name != led.To.Addr().String() {
			text += fmt.Sprintf("%s (%s)", led.End.Name, led.To)
		} else {
			text += led.To.String()
		}
		if path.As.Address.IsValid() {
			text += fmt.Sprintf(", which sees it come from %s", path.As.Address)
		}
		return text
	}
	switch {
	case !path.As.Address.IsValid():
		return ""
	case path.As.Pod:
		return fmt.Sprintf("; the port leads to pod %s (%s)", path.As.Name, path.As.Address)
	default:
		return fmt.Sprintf("; seen there as %s", path.As.Address)
	}
}

// backText says where the answer gets the address of the Service back.
func backText(path *Path) string {
	if path.Service == nil {
		return ""
	}
	return fmt.Sprintf("; %s makes it come from %s again", path.Service.Node, path.Service.Address)
}

func familyText(path *Path) string {
	if path.To.Address.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// endText is such as "default/a1 (10.244.0.5 on node1)".
func endText(end End) string {
	address := ""
	if end.Address.IsValid() && end.Address.String() != end.Name {
		address = end.Address.String()
	}
	if end.Pod && end.Node != "" {
		address = strings.TrimSpace(address + " on " + end.Node)
	}
	if address == "" {
		return end.Name
	}
	return end.Name + " (" + address + ")"
}
