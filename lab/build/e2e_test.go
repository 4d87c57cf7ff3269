package build

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestE2EIsKept: what was built of these sources is used again, and nothing is
// compiled for it.
func TestE2EIsKept(t *testing.T) {
	source, err := FindSource("")
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Source: source, Cache: t.TempDir(), environment: []string{"PATH=/nonexistent"}}
	key, err := kubeKey(context.Background(), filepath.Join(source, "lab", "kube"))
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(r.Cache, "e2e-"+key)
	if err := os.Mkdir(kept, 0o755); err != nil {
		t.Fatal(err)
	}
	built, err := r.E2E(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{built.Test, built.Ginkgo, built.OutOfOrder, built.Certificate, built.Key} {
		if !strings.HasPrefix(path, kept+"/") {
			t.Errorf("%s is not in %s", path, kept)
		}
	}
}

func TestE2ENeedsSource(t *testing.T) {
	if _, err := (Request{Source: t.TempDir(), Cache: t.TempDir()}).E2E(context.Background()); err == nil {
		t.Error("tests were built of nothing")
	}
}
