package cli

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what the plans are into testdata/plan")

// TestPlan prints the plan of each snapshot in testdata/plan. The file's first
// line says what it shows and for which node.
func TestPlan(t *testing.T) {
	paths, err := filepath.Glob("testdata/plan/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no plans: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { testPlan(t, path) })
	}
}

func testPlan(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.Files) != 2 || archive.Files[0].Name != "snapshot.yaml" || archive.Files[1].Name != "plan" {
		t.Fatalf("%s has not the files snapshot.yaml and plan", path)
	}
	snapshot := filepath.Join(t.TempDir(), "snapshot.yaml")
	if err := os.WriteFile(snapshot, archive.Files[0].Data, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	command := planCommand()
	command.SilenceErrors, command.SilenceUsage = true, true
	command.SetOut(&out)
	command.SetArgs([]string{"--snapshot", snapshot, "--node", "node1"})
	if err := command.Execute(); err != nil {
		out.WriteString("error: " + strings.ReplaceAll(err.Error(), snapshot, "snapshot.yaml") + "\n")
	}
	if *update {
		archive.Files[1].Data = out.Bytes()
		if err := os.WriteFile(path, txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, want := out.String(), string(archive.Files[1].Data); got != want {
		t.Errorf("got:\n%s\nwant:\n%s\n(go test ./cli -run TestPlan -update writes it)", got, want)
	}
}
