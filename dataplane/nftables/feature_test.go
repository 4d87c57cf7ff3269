package nftables

import (
	"strings"
	"testing"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

// TestFeaturesOfThisKernel: what is there is not said to be missing, and the
// probe leaves nothing.
func TestFeaturesOfThisKernel(t *testing.T) {
	netnstest.Enter(t)
	if missing := missingFeature(); missing != "" {
		t.Fatalf("the kernel is said to lack %s", missing)
	}
	if tables, err := (&nft.Conn{}).ListTables(); err != nil || len(tables) != 0 {
		t.Fatalf("the probe left %v (%v)", tables, err)
	}
}

// TestUnsupported: what the kernel lacks is a Problem, not an error, and it is
// not tried again and again.
func TestUnsupported(t *testing.T) {
	plane := New()
	plane.unsupported = "something (Linux 5.2)"
	problems, err := plane.Apply(t.Context(), example())
	if err != nil || len(problems) != 1 || !strings.Contains(problems[0].Message, "Linux 5.2") {
		t.Fatalf("problems %v, error %v", problems, err)
	}
}
