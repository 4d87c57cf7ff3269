package agent

import (
	"slices"
	"sync"

	"github.com/fairlead-net/fairlead/model"
)

// notices are what the parts of the agent have found that a user has to mend,
// beside what the plan and the kernel say. The zero value is ready, and safe for
// concurrent use.
type notices struct {
	mu     sync.Mutex // of those who change it
	parts  map[string][]model.Problem
	latest watched[noticed]
}

type noticed struct {
	problems []model.Problem // sorted and condensed
	remark   string
}

// set says all that a part has to say now.
func (n *notices) set(part string, problems ...model.Problem) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(n.parts[part], problems) {
		return
	}
	if n.parts == nil {
		n.parts = map[string][]model.Problem{}
	}
	n.parts[part] = problems
	var all []model.Problem
	for _, problems := range n.parts {
		all = append(all, problems...)
	}
	before, _ := n.latest.get()
	n.latest.set(noticed{condense(all), before.remark})
}

// remark says, as a sentence without a full stop, what need not be mended but
// should be known; empty for nothing.
func (n *notices) remark(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if before, _ := n.latest.get(); before.remark != text {
		n.latest.set(noticed{before.problems, text})
	}
}

// remarks returns what was remarked.
func (n *notices) remarks() string {
	latest, _ := n.latest.get()
	return latest.remark
}

// Problems returns them, sorted and condensed.
func (n *notices) Problems() []model.Problem {
	latest, _ := n.latest.get()
	return latest.problems
}

// Changed returns a channel that is closed when there is something new. Take it
// before looking.
func (n *notices) Changed() <-chan struct{} {
	_, changed := n.latest.get()
	return changed
}
