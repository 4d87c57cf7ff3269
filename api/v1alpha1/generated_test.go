package v1alpha1

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestGeneratedIsCurrent runs the generators as doc.go does, elsewhere.
func TestGeneratedIsCurrent(t *testing.T) {
	if testing.Short() {
		t.Skip("builds controller-gen")
	}
	dir := t.TempDir()
	command := exec.Command("go", "tool", "controller-gen", "object:headerFile=/dev/null", "crd", "paths=.",
		"output:object:dir="+dir, "output:crd:dir="+dir)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("controller-gen: %v\n%s", err, out)
	}
	for made, kept := range map[string]string{
		"zz_generated.deepcopy.go":      "zz_generated.deepcopy.go",
		"fairlead.io_networks.yaml":     "../../deploy/crd/fairlead.io_networks.yaml",
		"fairlead.io_nodenetworks.yaml": "../../deploy/crd/fairlead.io_nodenetworks.yaml",
	} {
		want, err := os.ReadFile(filepath.Join(dir, made))
		if err != nil {
			t.Fatal(err)
		}
		is, err := os.ReadFile(kept)
		if err != nil {
			t.Fatal(err)
		}
		if string(is) != string(want) {
			t.Errorf("%s is not current: run go generate ./api/... ./deploy", kept)
		}
	}
}
