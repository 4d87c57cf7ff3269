package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/observe/service"
)

func printService(to io.Writer, show serviceShowOutput) error {
	colours := paletteOf(to)
	if show.Error != "" {
		_, err := fmt.Fprintf(to, "%s: %s\n  next: %s\n", colours.doubt("unknown"), show.Error, show.Next)
		return err
	}
	s := show.Service
	fmt.Fprintf(to, "%s, %s\n", colours.bold("Service "+s.Namespace+"/"+s.Name), s.Type)
	if s.Unserved != "" {
		_, err := fmt.Fprintf(to, "  Fairlead has nothing to do for it: %s\n", s.Unserved)
		return err
	}
	if s.Affinity != 0 {
		fmt.Fprintf(to, "  a client stays with its endpoint for %s after its last new connection (sessionAffinity: ClientIP)\n", time.Duration(s.Affinity)*time.Second)
	}
	for _, policy := range s.Policies {
		fmt.Fprintf(to, "  %s\n", policy)
	}
	for _, remark := range s.Remarks {
		fmt.Fprintf(to, "  %s\n", colours.doubt(remark))
	}
	view := "seen from " + show.Report.Node
	if show.Chosen {
		view += " (--node shows another one)"
	}
	fmt.Fprintf(to, "  %s\n", view)
	if show.Silence != "" {
		fmt.Fprintf(to, "  %s %s\n  so this is what it should be, by what the API server knows\n", colours.doubt("?"), show.Silence)
	}
	for i := range show.Report.Ports {
		if err := printPort(to, colours, show, &show.Report.Ports[i]); err != nil {
			return err
		}
	}
	printDiffering(to, show.Others)
	if len(show.Problems) > 0 {
		fmt.Fprintf(to, "\n%s\n", colours.bad(count(len(show.Problems), "problem")))
		printProblems(to, colours, show.Problems)
	}
	return nil
}

func printPort(to io.Writer, colours palette, show serviceShowOutput, port *service.Port) error {
	fmt.Fprintf(to, "\n%s\n", colours.bold(strings.TrimSpace(fmt.Sprintf("%s %d/%s, %s", port.Name, port.Port, port.Protocol, port.Family))))
	vips := &table{}
	heading := []string{"  ADDRESS", "KIND", "PODS, NODE", "OTHERS", "ENDPOINTS SEE"}
	if show.Report.Kernel {
		heading = append(heading, "OPEN", "KERNEL")
	}
	vips.add(heading...)
	for i := range port.VIPs {
		vips.add(vipRow(&port.VIPs[i], show.Report.Kernel)...)
	}
	vips.paint = func(_ int, cell string) string {
		switch {
		case strings.HasPrefix(cell, "✗") || strings.HasPrefix(cell, "taken by"):
			return colours.bad(cell)
		case cell == "refused" || cell == "dropped":
			return colours.doubt(cell)
		case cell == "✓":
			return colours.good(cell)
		}
		return cell
	}
	if err := vips.write(to); err != nil {
		return err
	}
	printRemarks(to, colours, show.Report.Node, port)
	if len(port.Endpoints) == 0 {
		return nil
	}
	fmt.Fprintln(to)
	local := len(show.Service.Policies) > 0
	endpoints := &table{}
	heading = []string{"  ENDPOINT", "NODE", "POD", "USED"}
	if local {
		heading = append(heading, "IF LOCAL")
	}
	if show.Report.Kernel {
		heading = append(heading, "OPEN")
	}
	endpoints.add(append(heading, "WHY")...)
	for i := range port.Endpoints {
		endpoints.add(endpointRow(&port.Endpoints[i], local, show.Report.Kernel)...)
	}
	return endpoints.write(to)
}

func vipRow(v *service.VIP, kernel bool) []string {
	if v.TakenBy != "" {
		return []string{"  " + v.Address.String(), v.Kind, "taken by " + v.TakenBy}
	}
	row := []string{"  " + v.Address.String(), v.Kind, v.Inside.String(), v.Outside.String(), sourceText(v)}
	if kernel {
		state := "✓"
		if v.Differs != "" {
			state = "✗ " + v.Differs
		}
		row = append(row, strconv.Itoa(v.Connections), state)
	}
	return row
}

// sourceText is whose address endpoints see.
func sourceText(v *service.VIP) string {
	switch v.Masquerade {
	case "outside":
		return "pods; else the node"
	case "node":
		return "the client"
	default:
		return "the node"
	}
}

// printRemarks says below the addresses what does not fit into a column.
func printRemarks(to io.Writer, colours palette, node string, port *service.Port) {
	said := map[string]bool{}
	say := func(text string) {
		if !said[text] {
			fmt.Fprintf(to, "    %s\n", text)
		}
		said[text] = true
	}
	for i := range port.VIPs {
		v := &port.VIPs[i]
		for _, answer := range []service.Answer{v.Inside, v.Outside} {
			if answer.Why != "" {
				say(fmt.Sprintf("%s: %s", colours.doubt(answer.String()), answer.Why))
			}
		}
		if v.Ranges != nil {
			say(fmt.Sprintf("%s: dropped, but for clients in %s (loadBalancerSourceRanges)", v.Address, commas(v.Ranges)))
		}
		if v.Differs != "" {
			say(fmt.Sprintf("%s: the kernel of %s is not as planned; the agent puts it right within a second. If it does not: fairlead status %s", v.Address, node, node))
		}
	}
	for _, former := range port.Former {
		say(fmt.Sprintf("%s to %s, which is no endpoint any more", verb(former.Connections, "connection goes on", "connections go on"), former.Address))
	}
}

func endpointRow(e *service.Endpoint, local, kernel bool) []string {
	words := map[bool]string{true: "yes", false: "no"}
	_, pod, _ := strings.Cut(e.Pod, "/")
	row := []string{"  " + e.Address.String(), orNone(e.Node), orNone(pod), words[e.Cluster]}
	if local {
		row = append(row, words[e.Local])
	}
	if kernel {
		row = append(row, strconv.Itoa(e.Connections))
	}
	return append(row, e.Why)
}

func printDiffering(to io.Writer, others []differingOutput) {
	const most = 8
	for i, other := range others {
		if i == 0 {
			fmt.Fprintln(to, "\nother nodes give other answers")
		}
		names := other.Nodes
		if more := len(names) - most; more > 0 {
			names = append(names[:most:most], fmt.Sprintf("%d more", more))
		}
		fmt.Fprintf(to, "  %s\n", strings.Join(names, ", "))
		for _, answer := range other.Answers {
			fmt.Fprintf(to, "    %s\n", answer)
		}
	}
}
