package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

const example = `
run: ['^\[sig-network\] Services ']
elsewhere: {'^\[sig-network\] DNS ': DNS}
leaveOut:
- needs: a cloud
  command: [kubectl, get, nodes]
  shows: ^$
  specs: ['[sig-network] Services should fly']
`

func TestChoose(t *testing.T) {
	p, err := parsePlan([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{
		"[sig-network] Services should work", "[sig-network] Services should fly",
		"[sig-network] DNS should work", "[sig-node] Pods should work",
	}
	c, err := p.choose(names)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.run, names[:1]) || c.elsewhere["DNS"] != 1 || len(c.left) != 1 {
		t.Errorf("chosen: %+v", c)
	}
	c.subset = names[:1]
	if c.run = names; !slices.Equal(c.only().matching(regexp.MustCompile("")), names[:1]) {
		t.Errorf("of the subset are %q", c.only().run)
	}
	if got := c.matching(regexp.MustCompile("nothing")); len(got) != 0 {
		t.Errorf("an expression that fits nothing chose %q", got)
	}
}

// TestChooseForgetsNothing: what upstream adds or takes away is told.
func TestChooseForgetsNothing(t *testing.T) {
	for name, test := range map[string]struct {
		plan  string
		names []string
		want  string
	}{
		"a new subject": {example, []string{"[sig-network] Services should fly", "[sig-network] Teapots should brew"}, "Teapots"},
		"two subjects": {
			strings.Replace(example, `\] DNS `, `\] Services `, 1), []string{"[sig-network] Services should fly"}, `["run" "DNS"]`,
		},
		"a subset that does not run": {example + "subset: ['[sig-network] Services should fly']\n", []string{"[sig-network] Services should fly"}, "for the subset"},
		"a spec that left":           {example, []string{"[sig-network] Services should work"}, "there is no spec"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := parsePlan([]byte(test.plan))
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.choose(test.names)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestParsePlanRefuses(t *testing.T) {
	for _, text := range []string{
		"runs: []", "run: ['(']", "leaveOut: [{needs: x, shows: y}]", "leaveOut: [{needs: x, shows: '(', command: [a], specs: [b]}]",
	} {
		if _, err := parsePlan([]byte(text)); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

// TestPlan: the plan that ships can be read, and leaves out only for the
// reasons that it may.
func TestPlan(t *testing.T) {
	if _, err := parsePlan(specsYAML); err != nil {
		t.Fatal(err)
	}
}

func TestTally(t *testing.T) {
	spec := func(name, state, message string) report {
		r := report{ContainerHierarchyTexts: []string{"[sig-network] Services"}, LeafNodeType: "It", LeafNodeText: name, State: state}
		r.Failure.Message = message
		return r
	}
	c := choice{}
	for _, name := range []string{"should pass", "should fail", "should decline", "should run"} {
		c.run = append(c.run, "[sig-network] Services "+name)
	}
	o := tally(c, regexp.MustCompile(""), []report{
		spec("should pass", "passed", ""), spec("should fail", "timedout", "too slow"), spec("should decline", "skipped", "no"),
		spec("should run", "skipped", ""), spec("of others", "skipped", ""),
		{LeafNodeType: "SynchronizedBeforeSuite", State: "failed"},
	})
	if len(o.passed) != 1 || len(o.failed) != 2 || len(o.declined) != 1 || !slices.Equal(o.neverRan, []string{"[sig-network] Services should run"}) {
		t.Errorf("tally: %+v", o)
	}
	if o.inSubject["Services"] != [2]int{1, 3} {
		t.Errorf("by subject: %v", o.inSubject)
	}
	if o.verdict() == nil {
		t.Error("a run in which specs failed is judged well")
	}
	if err := (outcome{passed: o.passed}).verdict(); err != nil {
		t.Error(err)
	}
}
