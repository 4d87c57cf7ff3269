package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// outcome is what became of the chosen specs.
type outcome struct {
	choice    choice
	passed    []report
	failed    []report // also what surrounds the specs, such as the start of the suite
	declined  []report // that left themselves out while they ran
	neverRan  []string
	inSubject map[string][2]int // passed, all; by the first word of the name
}

// tally sorts the reports of a run.
func tally(chosen choice, only *regexp.Regexp, reports []report) outcome {
	o := outcome{choice: chosen, inSubject: map[string][2]int{}}
	missing := map[string]bool{}
	for _, name := range chosen.matching(only) {
		missing[name] = true
	}
	for _, r := range reports {
		spec := r.LeafNodeType == "It"
		if spec && !missing[r.name()] {
			continue
		}
		switch {
		case r.State == "passed" && spec:
			o.passed = append(o.passed, r)
		case r.State == "skipped" && spec && r.Failure.Message != "":
			o.declined = append(o.declined, r)
		case r.State == "passed" || r.State == "skipped" || r.State == "pending":
			continue // what never ran stays missing
		default:
			o.failed = append(o.failed, r)
		}
		delete(missing, r.name())
		if spec {
			counts := o.inSubject[subject(r.name())]
			if counts[1]++; r.State == "passed" {
				counts[0]++
			}
			o.inSubject[subject(r.name())] = counts
		}
	}
	o.neverRan = slices.Sorted(maps.Keys(missing))
	return o
}

// subject is what a name says first, after the group: [sig-network] Services …
func subject(name string) string {
	rest := strings.TrimPrefix(name, "[sig-network] ")
	for _, long := range []string{"Networking Granular Checks: Services", "Networking Granular Checks: Pods", "DNS HostNetwork", "[Feature:PerformanceDNS]"} {
		if strings.HasPrefix(rest, long) {
			return long
		}
	}
	end := strings.Index(rest, " should ")
	for _, other := range []string{" Should ", " version ", " validates ", " [It] "} {
		if at := strings.Index(rest, other); at >= 0 && (end < 0 || at < end) {
			end = at
		}
	}
	if end < 0 {
		return rest
	}
	return rest[:end]
}

// write tells the outcome: a table by subject, and each spec that did not pass.
func (o outcome) write(to io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "\n| subject | passed | of |\n|---|---|---|\n")
	for _, subject := range sorted(o.inSubject) {
		fmt.Fprintf(&text, "| %s | %d | %d |\n", subject, o.inSubject[subject][0], o.inSubject[subject][1])
	}
	fmt.Fprintf(&text, "\n%d passed, %d failed", len(o.passed), len(o.failed))
	for _, reason := range o.choice.left {
		fmt.Fprintf(&text, ", %d left out (need %s)", len(reason.Specs), reason.Needs)
	}
	fmt.Fprintf(&text, ", %d left themselves out, %d never ran\n", len(o.declined), len(o.neverRan))
	for _, r := range o.failed {
		fmt.Fprintf(&text, "FAILED   %s %s\n         %s\n", r.LeafNodeType, r.name(), firstLines(r.Failure.Message, 4))
	}
	for _, r := range o.declined {
		fmt.Fprintf(&text, "DECLINED %s\n         %s\n", r.name(), firstLines(r.Failure.Message, 2))
	}
	for _, name := range o.neverRan {
		fmt.Fprintf(&text, "NEVER RAN %s\n", name)
	}
	slowest := slices.SortedFunc(slices.Values(o.passed), func(a, b report) int { return cmp.Compare(b.RunTime, a.RunTime) })
	fmt.Fprintf(&text, "slowest:\n")
	for _, r := range slowest[:min(5, len(slowest))] {
		fmt.Fprintf(&text, "  %4.0fs %s\n", r.RunTime.Round(time.Second).Seconds(), r.name())
	}
	_, err := io.WriteString(to, text.String())
	return err
}

// verdict is an error if not all chosen specs passed.
func (o outcome) verdict() error {
	if len(o.failed)+len(o.declined)+len(o.neverRan) == 0 {
		return nil
	}
	return errors.New("not all specs that are to run passed; e2e.log has what they wrote")
}

func firstLines(text string, count int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[:min(count, len(lines))], "\n         ")
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
