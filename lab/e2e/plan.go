package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/lab"
)

//go:embed specs.yaml
var specsYAML []byte

// plan is the content of specs.yaml.
type plan struct {
	Run       []string          `json:"run"`       // expressions; the names of specs begin with [sig-…]
	Subset    []string          `json:"subset"`    // full names of some of those
	Elsewhere map[string]string `json:"elsewhere"` // expressions of specs of other subjects, and the subject
	LeaveOut  []reason          `json:"leaveOut"`

	run       []*regexp.Regexp
	elsewhere map[string]*regexp.Regexp // by subject
}

// reason is why some of the specs cannot run in a lab.
type reason struct {
	Needs   string   `json:"needs"`
	Command []string `json:"command"` // of kubectl, or of a machine: lab exec MACHINE -- …
	Shows   string   `json:"shows"`   // an expression that what the command writes matches, if the reason holds
	Specs   []string `json:"specs"`   // full names

	shows *regexp.Regexp
}

func parsePlan(text []byte) (plan, error) {
	var p plan
	if err := yaml.UnmarshalStrict(text, &p); err != nil {
		return plan{}, fmt.Errorf("reading specs.yaml: %w", err)
	}
	var mistakes []error
	compile := func(text string) *regexp.Regexp {
		compiled, err := regexp.Compile(text)
		if err != nil {
			mistakes = append(mistakes, err)
		}
		return compiled
	}
	for _, text := range p.Run {
		p.run = append(p.run, compile(text))
	}
	p.elsewhere = map[string]*regexp.Regexp{}
	for text, subject := range p.Elsewhere {
		p.elsewhere[subject] = compile(text)
	}
	for i, reason := range p.LeaveOut {
		p.LeaveOut[i].shows = compile(reason.Shows)
		if reason.Needs == "" || len(reason.Command) == 0 || len(reason.Specs) == 0 {
			mistakes = append(mistakes, fmt.Errorf("leaveOut[%d]: it has to say what is needed, a command that shows that it is missing, and the specs", i))
		}
	}
	if len(mistakes) > 0 {
		return plan{}, fmt.Errorf("reading specs.yaml: %w", errors.Join(mistakes...))
	}
	return p, nil
}

// choice says of each spec of the network what is to become of it.
type choice struct {
	run       []string
	subset    []string // of run
	left      []reason
	elsewhere map[string]int // number of specs, by subject
}

// choose applies the plan to the names of all specs. Each of [sig-network] has
// to be of one subject, and each name in the plan has to be one of a spec: so
// nothing is forgotten when upstream changes.
func (p plan) choose(names []string) (choice, error) {
	c := choice{subset: p.Subset, left: p.LeaveOut, elsewhere: map[string]int{}}
	var mistakes []error
	for _, name := range names {
		if !strings.HasPrefix(name, "[sig-network]") {
			continue
		}
		var subjects []string
		if slices.ContainsFunc(p.run, func(r *regexp.Regexp) bool { return r.MatchString(name) }) {
			subjects = append(subjects, "run")
		}
		for subject, expression := range p.elsewhere {
			if expression.MatchString(name) {
				subjects = append(subjects, subject)
			}
		}
		switch left := p.leftOut(name); {
		case len(subjects) != 1:
			mistakes = append(mistakes, fmt.Errorf("%q is of the subjects %q; say in specs.yaml of which one", name, subjects))
		case subjects[0] != "run":
			c.elsewhere[subjects[0]]++
		case !left:
			c.run = append(c.run, name)
		}
	}
	for _, reason := range p.LeaveOut {
		for _, name := range reason.Specs {
			if !slices.Contains(names, name) {
				mistakes = append(mistakes, fmt.Errorf("there is no spec %q to leave out; take it from specs.yaml", name))
			}
		}
	}
	for _, name := range p.Subset {
		if !slices.Contains(c.run, name) {
			mistakes = append(mistakes, fmt.Errorf("there is no spec %q that runs, for the subset; take it from specs.yaml", name))
		}
	}
	return c, errors.Join(mistakes...)
}

func (p plan) leftOut(name string) bool {
	return slices.ContainsFunc(p.LeaveOut, func(r reason) bool { return slices.Contains(r.Specs, name) })
}

// only leaves the subset, of what is to run.
func (c choice) only() choice {
	c.run = c.subset
	return c
}

// matching are the names to run that match an expression.
func (c choice) matching(only *regexp.Regexp) []string {
	return slices.DeleteFunc(slices.Clone(c.run), func(name string) bool { return !only.MatchString(name) })
}

// prove runs the command of each reason. If one does not hold here, its specs
// could run: the error says so, since the list then claims too much.
func (c choice) prove(ctx context.Context, l *lab.Lab) error {
	var mistakes []error
	for _, reason := range c.left {
		seen, err := reason.look(ctx, l)
		if err != nil {
			return err
		}
		fmt.Printf("needs %s: %d specs\n  $ %s\n  %s\n", reason.Needs, len(reason.Specs), strings.Join(reason.Command, " "),
			strings.ReplaceAll(strings.TrimSpace(seen), "\n", "\n  "))
		if !reason.shows.MatchString(seen) {
			mistakes = append(mistakes, fmt.Errorf("specs that need %s are left out, but the command does not show %q: run them, and take them from specs.yaml",
				reason.Needs, reason.Shows))
		}
	}
	return errors.Join(mistakes...)
}

// look returns what the command of the reason writes, whatever its exit status.
func (r reason) look(ctx context.Context, l *lab.Lab) (string, error) {
	command := l.KubectlCommand(ctx, r.Command[1:]...)
	if r.Command[0] != "kubectl" {
		if len(r.Command) < 5 || !slices.Equal([]string{"lab", "exec", "--"}, []string{r.Command[0], r.Command[1], r.Command[3]}) {
			return "", fmt.Errorf("%q is neither kubectl … nor lab exec MACHINE -- …", r.Command)
		}
		command = l.World().Command(ctx, r.Command[2], r.Command[4:]...)
	}
	var seen bytes.Buffer
	command.Stdout, command.Stderr = &seen, &seen
	if err := command.Run(); command.ProcessState == nil {
		return "", fmt.Errorf("running %q: %w", r.Command, err)
	}
	return seen.String(), nil
}

// write lists what is to run, and what not and why.
func (c choice) write(to io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%d specs run:\n", len(c.run))
	for _, name := range c.run {
		fmt.Fprintf(&text, "  %s\n", name)
	}
	for _, reason := range c.left {
		fmt.Fprintf(&text, "%d need %s:\n", len(reason.Specs), reason.Needs)
		for _, name := range reason.Specs {
			fmt.Fprintf(&text, "  %s\n", name)
		}
	}
	for _, subject := range sorted(c.elsewhere) {
		fmt.Fprintf(&text, "%d are of another subject: %s\n", c.elsewhere[subject], subject)
	}
	_, err := io.WriteString(to, text.String())
	return err
}
