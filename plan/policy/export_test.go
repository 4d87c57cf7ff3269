package policy

import "github.com/fairlead-net/fairlead/model"

// Promised are the rows that lead to what pods of this node get, or would get that it
// expects.
func (p *Plan) Promised() map[Row]bool {
	rows := map[Row]bool{}
	for _, profile := range p.profiles.All() {
		for _, d := range model.Directions {
			for _, row := range profile.cellsOf(d).All() {
				rows[row] = true
			}
		}
	}
	return rows
}

// ComputeSlowly is Compute, but for how many addresses are looked at again for tidiness
// alone: none with a change, else one.
func ComputeSlowly(prev *Plan, snapshot *model.Snapshot, node string) (*Plan, []model.Problem) {
	return compute(prev, snapshot, node, pace{ofNone: 1})
}
