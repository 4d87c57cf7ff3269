// Package preflight tells, before Fairlead is installed, what will keep it from
// working on a node or in a cluster, and what to do about it. What it looks at is
// read first (ReadNode, kube.Client.Survey), and judged by pure functions (Node,
// Cluster). It changes nothing; kernel features are tried in a namespace that
// vanishes. All of it may be called concurrently.
package preflight

import (
	"fmt"
	"strconv"
	"strings"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // it works, but something is lost or to be known
	Fail Level = "fail" // it does not work
)

// Finding is what was found of one subject.
type Finding struct {
	Check string `json:"check"`          // one word
	Level Level  `json:"level"`          //
	What  string `json:"what"`           // what is so
	Why   string `json:"why,omitempty"`  // what it means for Fairlead; empty if OK
	Next  string `json:"next,omitempty"` // what to do; empty if OK
}

// Worst is the worst level among findings.
func Worst(findings []Finding) Level {
	worst := OK
	for _, f := range findings {
		if f.Level == Fail || f.Level == Warn && worst == OK {
			worst = f.Level
		}
	}
	return worst
}

// report collects findings.
type report struct{ findings []Finding }

func (r *report) ok(check, format string, args ...any) {
	r.findings = append(r.findings, Finding{Check: check, Level: OK, What: fmt.Sprintf(format, args...)})
}

func (r *report) add(check string, level Level, what, why, next string) {
	r.findings = append(r.findings, Finding{check, level, what, why, next})
}

// The oldest versions that Fairlead runs on.
const (
	oldestKernel     = "5.10"
	oldestKubernetes = "1.30"
)

// older tells whether a version such as v1.29.3 or 5.4.0-x is older than another;
// what cannot be read is not.
func older(version, than string) bool {
	numbers := func(text string) (major, minor int, ok bool) {
		parts := strings.SplitN(strings.TrimPrefix(text, "v"), ".", 3)
		if len(parts) < 2 {
			return 0, 0, false
		}
		digits := func(s string) string {
			return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
		}
		major, err := strconv.Atoi(digits(parts[0]))
		minor, err2 := strconv.Atoi(digits(parts[1]))
		return major, minor, err == nil && err2 == nil
	}
	a, b, ok := numbers(version)
	c, d, ok2 := numbers(than)
	return ok && ok2 && (a < c || a == c && b < d)
}
