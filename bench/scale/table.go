package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"
)

// row is one line of a table: what was measured, in the words of a reader, and
// what is wanted of it in a cluster of 1,000 nodes.
type row struct {
	name   string
	wanted string // empty: nothing
	of     func(figures) string
}

var rows = []row{
	{"first lists, on the wire", "", func(f figures) string { return megabytes(f.List) }},
	{"start of the process to the last route", "5 s", func(f figures) string { return seconds(f.First) }},
	{"start of the process to ready", "5 s; with Services 3 s", func(f figures) string { return seconds(f.Ready) }},
	{"processor time of the agent until then", "", func(f figures) string { return seconds(f.StartCPU) }},
	{fmt.Sprintf("start, %d pods connected and no policy in the kernel", localPods), "5 s", func(f figures) string { return secondsOf(f.Connected) }},
	{"memory (RSS), median at rest", "60 MB; with Services 80, with policies 120", func(f figures) string { return megabytes(f.Resident) }},
	{"of it, most", "the same", func(f figures) string { return megabytes(f.MostResident) }},
	{"of it, not of files, median", "", func(f figures) string { return megabytes(f.Anonymous) }},
	{"peak of memory, start", "110 MB; with Services 140, with policies 200", func(f figures) string { return megabytes(f.FirstPeak) }},
	{"peak of memory, after all that is below", "the same", func(f figures) string { return megabytes(f.Peak) }},
	{"CPU at rest (heartbeats of nodes), of a core", "1 %", func(f figures) string { return percent(f.RestCPU) }},
	{fmt.Sprintf("CPU with %d changes of pods a second", churn), "", func(f figures) string { return percent(f.ChurnCPU) }},
	{"one node, from the event to the kernel: median", "20 ms", func(f figures) string { return milliseconds(quantile(f.Nodes, 0.5)) }},
	{"one node, 95th percentile", "20 ms", func(f figures) string { return milliseconds(quantile(f.Nodes, 0.95)) }},
	{"one endpoint, from the event to the kernel: median", "10 ms", func(f figures) string { return millisecondsOf(f.Endpoints, 0.5) }},
	{"one endpoint, 99th percentile", "10 ms", func(f figures) string { return millisecondsOf(f.Endpoints, 0.99) }},
	{"a label of a pod of the node, from the event to the kernel: median", "10 ms", func(f figures) string { return millisecondsOf(f.Labels[0], 0.5) }},
	{"a label of a pod of the node, 99th percentile", "10 ms", func(f figures) string { return millisecondsOf(f.Labels[0], 0.99) }},
	{"a label of a pod elsewhere: median", "10 ms", func(f figures) string { return millisecondsOf(f.Labels[1], 0.5) }},
	{"a label of a pod elsewhere, 99th percentile", "10 ms", func(f figures) string { return millisecondsOf(f.Labels[1], 0.99) }},
	{"ADD of a pod that policies restrict: median", "", func(f figures) string { return millisecondsOf(f.Adds[0], 0.5) }},
	{"ADD of a pod that no policy chooses: median", "", func(f figures) string { return millisecondsOf(f.Adds[1], 0.5) }},
	{"what policies add to ADD, of the medians", "5 ms", shareOfAdd},
	{fmt.Sprintf("%d nodes that join at once", joining), "", func(f figures) string { return seconds(f.Join) }},
	{"connections lost and 410 Gone, to the next change seen", "", func(f figures) string { return seconds(f.Relist) }},
	{"restart, the kernel as it was, to ready", "", func(f figures) string { return seconds(f.Restart) }},
	{"processor time of the agent until then", "", func(f figures) string { return seconds(f.RestartCPU) }},
}

// print writes a table with a column for each size of cluster; each cell is the
// median of its runs, and their range.
func printFigures(to io.Writer, sizes []task, runs [][]figures) {
	fmt.Fprint(to, "| | wanted |")
	for i, size := range sizes {
		fmt.Fprintf(to, " %s (%d runs) |", size, len(runs[i]))
	}
	fmt.Fprint(to, "\n|---|---|")
	for range sizes {
		fmt.Fprint(to, "---|")
	}
	for _, r := range rows {
		fmt.Fprintf(to, "\n| %s | %s |", r.name, r.wanted)
		for _, of := range runs {
			fmt.Fprintf(to, " %s |", r.cell(of))
		}
	}
	fmt.Fprintln(to)
}

// cell sorts by what is printed, which is padded to sort as numbers do.
func (r row) cell(runs []figures) string {
	var all []string
	for _, f := range runs {
		all = append(all, r.of(f))
	}
	slices.SortFunc(all, func(a, b string) int { return compareNumbers(a, b) })
	middle := all[len(all)/2]
	if all[0] == all[len(all)-1] {
		return middle
	}
	return fmt.Sprintf("%s (%s–%s)", middle, all[0], all[len(all)-1])
}

func compareNumbers(a, b string) int {
	var x, y float64
	_, _ = fmt.Sscan(a, &x)
	_, _ = fmt.Sscan(b, &y)
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	default:
		return 0
	}
}

func printStorms(to io.Writer, agents int, all []storm) {
	fmt.Fprintf(to, "\n| %d agents | connections: all, most in a second | watches resumed | lists | all watches back after |\n|---|---|---|---|---|\n", agents)
	for _, s := range all {
		fmt.Fprintf(to, "| %s | %s | %s | %s | %s |\n", s.Name, s.Connects, s.Resumes, s.Lists, seconds(s.Back))
	}
}

func megabytes(bytes int64) string        { return fmt.Sprintf("%.0f MB", float64(bytes)/1e6) }
func seconds(d time.Duration) string      { return fmt.Sprintf("%.2f s", d.Seconds()) }
func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
func percent(share float64) string        { return fmt.Sprintf("%.2f %%", 100*share) }

// secondsOf is of what may not have been measured.
func secondsOf(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return seconds(d)
}

func shareOfAdd(f figures) string {
	if len(f.Adds[0]) == 0 {
		return "–"
	}
	return milliseconds(quantile(f.Adds[0], 0.5) - quantile(f.Adds[1], 0.5))
}

// millisecondsOf is of what may not have been measured.
func millisecondsOf(of []time.Duration, q float64) string {
	if len(of) == 0 {
		return "–"
	}
	return milliseconds(quantile(of, q))
}

func quantile[T cmp.Ordered](of []T, q float64) T {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
