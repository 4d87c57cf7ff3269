package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/policyworld"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// worlds is how many random clusters a test looks at. The race detector makes
// each ten times slower.
func worlds(n int) int {
	if testing.Short() || raceDetector {
		return n / 4
	}
	return n
}

// TestRandomWorlds: of random connections in random clusters, a plan says what
// the API's documentation does.
func TestRandomWorlds(t *testing.T) {
	judged := map[bool]int{}
	for seed := range uint64(worlds(10_000)) {
		w := policyworld.New(seed)
		p, _ := policy.Compute(nil, &w.Snapshot, policyworld.Here)
		for _, c := range w.Connections(100) {
			if wrong(&w.Snapshot, p, c) == "" {
				verdict, _ := policyworld.Judge(&w.Snapshot, c)
				judged[verdict.Allowed]++
				continue
			}
			least := policyworld.Shrink(w.Snapshot, func(s *model.Snapshot) bool {
				p, _ := policy.Compute(nil, s, policyworld.Here)
				return wrong(s, p, c) != ""
			})
			p, _ := policy.Compute(nil, least, policyworld.Here)
			t.Fatalf("seed %d: %s\n%s", seed, wrong(least, p, c), policyworld.Text(least))
		}
	}
	t.Logf("%d connections allowed, %d denied", judged[true], judged[false])
}

// wrong says in what a plan differs from the judge; empty: in nothing.
func wrong(s *model.Snapshot, p *policy.Plan, c policyworld.Connection) string {
	want, defined := policyworld.Judge(s, c)
	if !defined {
		return ""
	}
	decision := p.Decide(policy.Subject{Direction: c.Direction, Address: c.Pod}, c.Peer, c.Protocol, c.Port)
	got := policyworld.Verdict{Allowed: decision.Accept, Tier: decision.By.Tier, Policy: decision.By.Policy, Rule: decision.By.Rule}
	why := p.Explain(policy.Subject{Direction: c.Direction, Address: c.Pod}, c.Peer, c.Protocol, c.Port)
	if why.Decision != decision || why.Accepted != nil && !decision.Accept || why.Nearest != nil && decision.Accept {
		return fmt.Sprintf("%+v: %s is explained by %s", c, decision, why)
	}
	if got == want {
		return ""
	}
	return fmt.Sprintf("%+v\n got %+v\nwant %+v", c, got, want)
}

// TestRandomEdits: a plan that follows changes is the one that is made anew,
// leads to nothing that is not there, and says when it is stricter.
func TestRandomEdits(t *testing.T) {
	for seed := range uint64(worlds(1_000)) {
		w := policyworld.New(seed)
		before := w.Snapshot
		p, _ := policy.Compute(nil, &before, policyworld.Here)
		for step := range 30 {
			for range 1 + w.IntN(3) {
				w.Edit()
			}
			snapshot := w.Snapshot
			next, problems := policy.Compute(p, &snapshot, policyworld.Here)
			anew, all := policy.Compute(nil, &snapshot, policyworld.Here)
			text := differs(next, anew) + overlooked(p, next, &before, w.Connections(20))
			p, before = next, snapshot
			if !slices.Equal(problems, all) {
				text += fmt.Sprintf("problems %v\nwant %v\n", problems, all)
			}
			if text != "" {
				t.Fatalf("seed %d, step %d:\n%s\n%s", seed, step, text, policyworld.Text(&snapshot))
			}
		}
	}
}

// TestTidiedLater: where pods that nobody asks for any more are regrouped one by one,
// each plan says what the documentation does, none that only tidies is stricter, and the
// last is the one that is made anew.
func TestTidiedLater(t *testing.T) {
	untidy, seeds := 0, worlds(400)
	for seed := range uint64(seeds) {
		w := policyworld.New(seed)
		var p *policy.Plan
		before := w.Snapshot
		for step := range 60 {
			if w.Edit(); step%3 == 0 {
				w.Relabel()
			}
			snapshot := w.Snapshot
			for again := range 2 {
				next, _ := policy.ComputeSlowly(p, &snapshot, policyworld.Here)
				connections := w.Connections(10)
				text := ""
				if p != nil {
					text = overlooked(p, next, &before, connections)
				}
				if again == 1 && next.Stricter(p) {
					text += "a plan that only tidies is stricter"
				}
				for _, c := range connections {
					text += wrong(&snapshot, next, c)
				}
				if p = next; text != "" {
					t.Fatalf("seed %d, step %d: %s\n%s", seed, step, text, policyworld.Text(&snapshot))
				}
			}
			if before = snapshot; p.Untidy() {
				untidy++
			}
		}
		for p.Untidy() {
			p, _ = policy.ComputeSlowly(p, &before, policyworld.Here)
		}
		anew, _ := policy.Compute(nil, &before, policyworld.Here)
		if text := differs(p, anew); text != "" {
			t.Fatalf("seed %d:\n%s\n%s", seed, text, policyworld.Text(&before))
		}
	}
	if untidy < 2*seeds {
		t.Errorf("%d plans were untidy: too few to tell", untidy)
	}
}

// overlooked says which connection of a pod that was there a plan forbids, and is
// not said to be stricter by it.
func overlooked(former, next *policy.Plan, before *model.Snapshot, some []policyworld.Connection) string {
	if next.Stricter(former) {
		return ""
	}
	there := map[netip.Addr]bool{}
	for _, a := range before.Attachments.All() {
		for _, addr := range a.Addresses {
			there[addr] = true
		}
	}
	for _, c := range some {
		at := policy.Subject{Direction: c.Direction, Address: c.Pod}
		was, is := former.Keeps(at, c.Peer, c.Protocol, c.Port), next.Keeps(at, c.Peer, c.Protocol, c.Port)
		if there[c.Pod] && was && !is {
			return fmt.Sprintf("stricter, but does not say so: %+v\n", c)
		}
	}
	return ""
}

// differs says in what a plan is not another one; empty: in nothing.
func differs(got, want *policy.Plan) (text string) {
	for change := range model.Diff(want.Pods, got.Pods) {
		text += fmt.Sprintf("pod %+v\n", change)
	}
	for change := range model.Diff(want.Ranges, got.Ranges) {
		text += fmt.Sprintf("range %+v\n", change)
	}
	for change := range model.Diff(want.Cells, got.Cells) {
		text += fmt.Sprintf("cell %+v\n", change)
	}
	for change := range model.Diff(want.Rows, got.Rows) {
		if !change.Had || !change.Has || !change.Old.Equal(change.New) {
			text += fmt.Sprintf("row %+v\n", change)
		}
	}
	for change := range model.Diff(want.Queries, got.Queries) {
		text += fmt.Sprintf("query %+v\n", change)
	}
	used := got.Promised()
	for cell, row := range got.Cells.All() {
		if used[row] = true; cell.Group == policy.Others {
			continue
		}
		if others, _ := got.Cells.Get(policy.Cell{Subject: cell.Subject}); others == row {
			text += fmt.Sprintf("cell %s is that of others\n", cell)
		}
	}
	for row := range got.Rows.All() {
		if !used[row] {
			text += fmt.Sprintf("row %s is not led to\n", row)
		}
	}
	return text
}
