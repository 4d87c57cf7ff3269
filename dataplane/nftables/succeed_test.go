package nftables

import (
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

// TestSuccessionCutShort: a process ends in the middle of making the table anew, and the
// next one makes it what it should be, with nothing left over.
func TestSuccessionCutShort(t *testing.T) {
	netnstest.Enter(t)
	wanted := example()
	apply(t, New(), wanted)
	before := asFirst(listed(t, "list", "table", "inet", TableName))
	for round := range 4 { // by then sets of ranges have had both names
		for _, steps := range []int{1, 2} {
			cut := New()
			cut.desire(wanted)
			b, err := newBatch(inPieces)
			must(t, err)
			must(t, cut.replace(b))
			for i, step := range []*batch{b.ahead, b} {
				if i >= steps {
					break
				}
				refused, err := step.send()
				must(t, err)
				if len(refused) > 0 {
					t.Fatalf("round %d: step %d was refused: %v", round, i+1, refused[0].err)
				}
			}
			if left := listed(t, "list", "table", "inet", TableName); !strings.Contains(left, doubleSuffix) {
				t.Fatalf("round %d: nothing is left over after step %d:\n%s", round, steps, left)
			}
			apply(t, New(), wanted)
			if got := asFirst(listed(t, "list", "table", "inet", TableName)); got != before {
				t.Fatalf("round %d: cut short after step %d there is\n%s\nthere was\n%s", round, steps, got, before)
			}
		}
	}
}
