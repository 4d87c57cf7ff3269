package lab

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// failed are the ends of the stories that failed. They are told once more after all
// the others: half an hour of output lies between a story's failure and the last line
// of a run, of which a CI may show only the end.
var failed struct {
	mu      sync.Mutex
	stories []string
}

// failedLines is how much is told of each.
const failedLines = 25

// noteFailure keeps the last lines before the one that says why a script failed, and
// what that says.
func noteFailure(name, log string) {
	lines := strings.Split(log, "\n")
	at := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "FAIL: ") })
	if at < 0 {
		return
	}
	failed.mu.Lock()
	defer failed.mu.Unlock()
	told := lines[max(0, at+1-failedLines):min(len(lines), at+failedLines)]
	failed.stories = append(failed.stories, name+"\n    "+strings.Join(told, "\n    "))
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, story := range failed.stories {
		fmt.Printf("\nfailed: %s\n", story)
	}
	os.Exit(code)
}

// TestNoteFailure: what led to a failure is kept, and nothing of stories that passed.
func TestNoteFailure(t *testing.T) {
	before := failed.stories
	t.Cleanup(func() { failed.stories = before })
	failed.stories = nil
	noteFailure("good", "> reach a b\nPASS\n")
	noteFailure("bad", "> first\n"+strings.Repeat("x\n", 100)+"traffic far: 7 lost\nFAIL: bad.txtar:9: more was lost\nafter\n")
	if len(failed.stories) != 1 {
		t.Fatalf("%q are failures, want one", failed.stories)
	}
	lines := strings.Split(failed.stories[0], "\n")
	if len(lines) < 1+failedLines || lines[0] != "bad" || strings.TrimSpace(lines[failedLines]) != "FAIL: bad.txtar:9: more was lost" {
		t.Errorf("a failure is told as %q", lines)
	}
}
