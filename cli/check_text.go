package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/observe/probe"
)

func printCheck(to io.Writer, output *format, result checkOutput) error {
	if output.structured() {
		return output.print(to, result)
	}
	colours := paletteOf(to)
	if result.Error != "" {
		_, err := fmt.Fprintf(to, "%s: %s\n  next: %s\n", colours.doubt("unknown"), result.Error, result.Next)
		return err
	}
	fmt.Fprintln(to, headline(result, colours))
	printAgentless(to, result.Agentless)
	if result.Nodes <= fewNodes {
		fmt.Fprintln(to)
		if err := matrix(result.Pairs, colours).write(to); err != nil {
			return err
		}
	}
	for _, finding := range result.Findings {
		fmt.Fprintf(to, "\n%s: %s%s\n  what: %s\n", paintState(colours, finding.State, finding.State.String()),
			colours.bold(finding.Title()), families(finding), finding.What)
		if finding.Why != "" {
			fmt.Fprintf(to, "  why:  %s\n", finding.Why)
		}
		if finding.Next != "" {
			fmt.Fprintf(to, "  next: %s\n", finding.Next)
		}
	}
	if len(result.Problems) > 0 {
		fmt.Fprintf(to, "\nThe nodes themselves report:\n")
	}
	for _, problem := range result.Problems {
		fmt.Fprintf(to, "\n%s\n  what: %s\n", strings.TrimSpace(problem.Object+" "+problem.Field), problem.Message)
		if problem.Remedy != "" {
			fmt.Fprintf(to, "  next: %s\n", problem.Remedy)
		}
	}
	if output.name == inWide {
		fmt.Fprintln(to)
		return everyPath(result.Reports, colours).write(to)
	}
	return nil
}

// headline says all in a line.
func headline(result checkOutput, colours palette) string {
	count := map[probe.State]int{}
	for _, pair := range result.Pairs {
		count[pair.State]++
	}
	text := map[probe.State]string{
		probe.OK:      "packets get from every node to every other, and between their pods",
		probe.Warn:    "packets get from every node to every other, and between their pods, with remarks",
		probe.Unknown: "not all nodes could be checked; what was checked is well",
		probe.Failed:  fmt.Sprintf("%d of %d ways between nodes and pods are broken", count[probe.Failed], len(result.Pairs)),
	}[result.State]
	if result.State == probe.Unknown && len(result.Reports) == 0 {
		text = "no node could be checked"
	}
	state := result.State
	if state == probe.Warn { // for exit codes and people alike, it works
		state = probe.OK
	}
	scope := fmt.Sprintf("%d nodes", result.Nodes)
	if result.Peers < result.Nodes-1 {
		scope += fmt.Sprintf(", %d peers of each", result.Peers)
	}
	return fmt.Sprintf("%s: %s (%s, %.1f s)", paintState(colours, result.State, state.String()), text, scope, result.Seconds)
}

func paintState(colours palette, state probe.State, text string) string {
	switch state {
	case probe.OK:
		return colours.good(text)
	case probe.Failed:
		return colours.bad(text)
	default:
		return colours.doubt(text)
	}
}

// families are told only if one of two is concerned.
func families(f probe.Finding) string {
	if len(f.Families) != 1 {
		return ""
	}
	return " (" + f.Families[0] + ")"
}

// matrix has a row for each node that sent and a column for each that it sent
// to.
func matrix(pairs []probe.Pair, colours palette) *table {
	var names []string
	cells := map[probe.Route]string{}
	for _, pair := range pairs {
		if !slices.Contains(names, pair.From) {
			names = append(names, pair.From)
		}
		cells[probe.Route{From: pair.From, To: pair.To}] = cell(pair)
	}
	t := &table{paint: func(_ int, text string) string {
		switch {
		case strings.HasPrefix(text, "FAILED"):
			return colours.bad(text)
		case strings.HasPrefix(text, "?"), strings.HasSuffix(text, "!"):
			return colours.doubt(text)
		default:
			return text
		}
	}}
	t.add(append([]string{"FROM \\ TO"}, names...)...)
	for _, from := range names {
		row := []string{from}
		for _, to := range names {
			row = append(row, cells[probe.Route{From: from, To: to}])
		}
		t.add(row...)
	}
	return t
}

func cell(pair probe.Pair) string {
	switch pair.State {
	case probe.Failed:
		return "FAILED"
	case probe.Unknown:
		return "?"
	}
	text := milliseconds(pair.RTT)
	if pair.State == probe.Warn {
		text += " !"
	}
	return text
}

func milliseconds(seconds float64) string { return fmt.Sprintf("%.2f ms", seconds*1e3) }

// everyPath has a row for each path in each family.
func everyPath(reports []*probe.Report, colours palette) *table {
	t := &table{paint: func(column int, text string) string {
		if column > 3 && text == "lost" {
			return colours.bad(text)
		}
		return text
	}}
	t.add("FROM", "TO", "PATH", "FAMILY", "ICMP", "UDP", "TCP", "MTU")
	for _, report := range reports {
		rows := map[probe.Key]int{}
		for _, r := range report.Results {
			key := probe.Key{Peer: r.Peer, Path: r.Path, Family: r.Family}
			if _, ok := rows[key]; !ok {
				rows[key] = len(t.rows)
				t.add(report.Node, r.Peer, string(r.Path), r.Family, "-", "-", "-", "-")
			}
			column := map[probe.Kind]int{probe.ICMP: 4, probe.UDP: 5, probe.TCP: 6, probe.MTU: 7}[r.Kind]
			t.rows[rows[key]][column] = outcome(r)
		}
	}
	return t
}

func outcome(r probe.Result) string {
	switch {
	case r.Kind == probe.MTU && r.Found > 0 && r.Found < r.Planned:
		return fmt.Sprintf("%d of %d", r.Found, r.Planned)
	case !r.OK:
		return "lost"
	case r.Kind == probe.MTU:
		return fmt.Sprint(r.Found)
	default:
		return milliseconds(r.RTT)
	}
}
