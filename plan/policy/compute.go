package policy

import "github.com/fairlead-net/fairlead/model"

// Compute plans a node, from the plan that was computed last for it or nil. It
// is nil while policies are not known.
func Compute(prev *Plan, snapshot *model.Snapshot, node string) (*Plan, []model.Problem) {
	if !snapshot.PoliciesKnown {
		return nil, nil
	}
	return &Plan{}, nil
}
