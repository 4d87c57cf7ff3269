package lab

import (
	"context"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// outage lasts as long as the environment says: what is away stays away, for a longer
// look than make test has time for.
func (s *stories) outage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: outage")
	}
	text := os.Getenv("FAIRLEAD_OUTAGE")
	if text == "" {
		return
	}
	length, err := time.ParseDuration(text)
	if err != nil || length < 0 {
		ts.Fatalf("FAIRLEAD_OUTAGE=%s: want a duration, such as 10m", text)
	}
	ts.Logf("%s without it", length)
	pause(context.Background(), length)
}
