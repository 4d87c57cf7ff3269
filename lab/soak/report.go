package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// report is what a soak has to tell at its end.
type report struct {
	seed    uint64
	planned time.Duration
	began   time.Time
	ended   time.Time
	steps   map[kind]int
	failed  []string // steps that could not be done
	looks   map[string]int
	traffic map[string]tally
	broken  []string
	busy    int
	peak    map[place]counts
	leaks   []leak
	left    map[string]string // what is left of a resource, by "place resource"
	settled time.Duration     // until nothing was left
	cut     string            // why there is no table of leaks
}

// markdown is the report for people.
func (r *report) markdown() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	found := leaks(r.leaks)
	total := 0
	for _, count := range r.steps {
		total += count
	}
	say("# Soak of %s UTC\n", r.began.UTC().Format("2006-01-02 15:04"))
	say("Seed %d, %s of %s planned, %d actions. **%d invariants broken, %d leaks.**\n", r.seed,
		r.ended.Sub(r.began).Round(time.Second), r.planned, total, len(r.broken), len(found))
	if r.cut != "" {
		say("%s\n", r.cut)
	}
	if len(r.broken) > 0 {
		say("## Broken\n")
		for _, text := range r.broken {
			say("- %s", text)
		}
		say("")
	}
	if len(r.failed) > 0 {
		say("## Actions that failed\n")
		for _, text := range r.failed {
			say("- %s", text)
		}
		say("")
	}
	say("## Actions\n\n| action | times |\n|---|---:|")
	for _, k := range slices.Sorted(maps.Keys(r.steps)) {
		say("| %s | %d |", k, r.steps[k])
	}
	say("\n## Invariants\n\n| checked | times |\n|---|---:|")
	for _, name := range slices.Sorted(maps.Keys(r.looks)) {
		say("| %s | %d |", name, r.looks[name])
	}
	say("\n## Traffic\n\nLost in a window: a fault that cuts it had been announced. Busy: this machine's queues were full, or the program was kept from running, %d times.\n", r.busy)
	say("| what | sent | lost | lost in a window | lost while busy | longest gap |\n|---|---:|---:|---:|---:|---:|")
	for _, what := range slices.Sorted(maps.Keys(r.traffic)) {
		t := r.traffic[what]
		say("| %s | %d | %d | %d | %d | %s |", what, t.sent, t.lost, t.excused, t.busy, t.gap.Round(time.Millisecond))
	}
	r.leakTable(say)
	return b.String()
}

// leakTable shows how much there was of everything.
func (r *report) leakTable(say func(string, ...any)) {
	if len(r.leaks) == 0 {
		return
	}
	say("\n## What was there\n\nStart and end: with the fixed pods alone, everything else deleted. The end is that of %s after the last deletion. Memory and files may differ a little; [docs/soak.md](../../../docs/soak.md) has by how much.\n", r.settled.Round(time.Second))
	say("| resource | place | start | peak | end | |\n|---|---|---:|---:|---:|---|")
	for _, l := range r.leaks {
		verdict := ""
		if l.leaked {
			verdict = "**leak** " + r.left[l.where+" "+l.resource]
		}
		say("| %s | %s | %s | %s | %s | %s |", l.resource, l.where, quantity(l.resource, l.start), quantity(l.resource, l.peak), quantity(l.resource, l.end), verdict)
	}
}

// quantity is a number for people.
func quantity(resource string, value int64) string {
	if strings.HasSuffix(resource, "bytes") {
		return fmt.Sprintf("%.1f MiB", float64(value)/(1<<20))
	}
	return fmt.Sprint(value)
}
