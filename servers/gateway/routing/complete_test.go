package routing

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
)

// TestComplete: each annotation that is honoured has a story.
func TestComplete(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txtar")
	told := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`nginx\.ingress\.kubernetes\.io/([a-z-]+):`).FindAllSubmatch(text, -1) {
			told[string(found[1])] = true
		}
	}
	own := map[string]bool{}
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for _, found := range regexp.MustCompile(`fairlead\.io/([a-z-]+):`).FindAllSubmatch(text, -1) {
			own[string(found[1])] = true
		}
	}
	for _, name := range plan.OwnNames() {
		if !own[name] {
			t.Errorf("no story in testdata has fairlead.io/%s", name)
		}
	}
	for _, name := range plan.Names() {
		if !told[name] {
			t.Errorf("no story in testdata has %s", name)
		}
	}
}
