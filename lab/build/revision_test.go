package build

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A commit is exported as it was, whatever the checkout is like now; one that is
// not there is told by ErrNoRevision.
func TestExport(t *testing.T) {
	source := t.TempDir()
	git := func(argv ...string) {
		t.Helper()
		command := exec.Command("git", append([]string{"-C", source, "-c", "user.name=x", "-c", "user.email=x@x"}, argv...)...)
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", argv, err, output)
		}
	}
	git("init", "--quiet")
	writeFile(t, filepath.Join(source, "file"), "then")
	git("add", "file")
	git("commit", "--quiet", "--message=x")
	writeFile(t, filepath.Join(source, "file"), "now")
	r := Request{Source: source, Cache: t.TempDir()}
	for range 2 { // the second time it is there
		dir, err := r.export(t.Context(), "HEAD")
		if err != nil {
			t.Fatal(err)
		}
		if content, err := os.ReadFile(filepath.Join(dir, "file")); string(content) != "then" {
			t.Errorf("exported %q, %v", content, err)
		}
	}
	if _, err := r.export(t.Context(), "0123456789abcdef"); !errors.Is(err, ErrNoRevision) {
		t.Errorf("a commit that is not there: %v", err)
	}
	if _, err := (Request{Source: t.TempDir(), Cache: r.Cache}).export(t.Context(), "HEAD"); !errors.Is(err, ErrNoRevision) {
		t.Errorf("no repository: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(r.Cache, "building-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
