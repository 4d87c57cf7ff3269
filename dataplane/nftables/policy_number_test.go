package nftables

import (
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// TestFormerTable: what the table before has logged is read after it was replaced, and
// its rules are known then; not for ever.
func TestFormerTable(t *testing.T) {
	var p Plane
	s := &p.policies
	s.init()
	rules := make([]policy.Rule, 5)
	views := make([]policyView, len(rules)+1)
	for i := range rules {
		rules[i] = policy.Rule{Policy: model.PolicyKey{Name: "deny"}, Rule: i}
		ports := &policy.Ports{Default: policy.Decision{By: rules[i]}}
		views[i+1].rows = views[i].rows.With(ports.Row(), ports)
	}
	takes := func(step policyView, new ...policy.Rule) {
		for _, rule := range new {
			s.rules.of(rule)
		}
		s.steps, s.change = []policyView{step}, s.held.changeTo(&step)
		s.settle()
	}
	takes(views[5], rules...)
	last := s.rules.of(rules[4])
	knows := func(what string, want bool) {
		t.Helper()
		if rule, known := p.DeniedBy(last); known != want || known && rule != rules[4] {
			t.Errorf("%s: %v, %v", what, rule, known)
		}
	}
	knows("it denies", true)
	s.forget()
	knows("the table is about to be replaced", true)
	s.forget()
	takes(views[1], rules[0])
	knows("it is replaced", true)
	takes(views[2], rules[1])
	knows("others have come", false)
}
