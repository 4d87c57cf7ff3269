package multiplex

import "testing"

func TestBudget(t *testing.T) {
	const second = int64(1e9)
	b := Budget{Most: 10, Each: 2}
	spend := func(n int, now int64) (all bool) {
		all = true
		for range n {
			all = b.Spend(1, now)
		}
		return all
	}
	if !spend(10, 0) || spend(1, 0) {
		t.Error("what may be spent at once is not what was set")
	}
	if spend(1, second-1) || !spend(1, 2*second) || b.spent != 9 {
		t.Errorf("after two seconds %d are spent", b.spent)
	}
	if b.Earn(100); b.spent != 0 || !spend(10, 2*second) || spend(1, 2*second) {
		t.Error("more is earned than was spent")
	}
	if b.At != 2*second {
		t.Error("time is counted twice")
	}
}
