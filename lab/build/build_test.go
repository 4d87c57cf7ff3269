package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFindSource(t *testing.T) {
	root := t.TempDir()
	writeFile(t, filepath.Join(root, "go.mod"), "module "+modulePath+"\n\ngo 1.26\n")
	writeFile(t, filepath.Join(root, "lab", "kube", "go.mod"), "module "+modulePath+"/lab/kube\n")
	for _, dir := range []string{root, filepath.Join(root, "lab"), filepath.Join(root, "lab", "kube")} {
		if got, err := FindSource(dir); err != nil || got != root {
			t.Errorf("FindSource(%s) = %s, %v; want %s", dir, got, err, root)
		}
	}
	if _, err := FindSource(t.TempDir()); !errors.Is(err, ErrNoSource) {
		t.Errorf("elsewhere: %v, want ErrNoSource", err)
	}
}

// TestKeyFollowsSources: nothing stale is used, and nothing is built again
// because of a mere touch.
func TestKeyFollowsSources(t *testing.T) {
	module := t.TempDir()
	source := filepath.Join(module, "kube", "main.go")
	key := func() string {
		t.Helper()
		key, err := kubeKey(t.Context(), module)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	writeFile(t, filepath.Join(module, "go.mod"), "module x\n\ngo 1.26\n")
	writeFile(t, source, "package main")
	first := key()
	if err := os.Chtimes(source, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if key() != first {
		t.Error("a touched source changes the key")
	}
	writeFile(t, source, "package other")
	if key() == first {
		t.Error("a changed source does not change the key")
	}
}

func TestWaitsForOtherBuild(t *testing.T) {
	var said bytes.Buffer
	r := Request{Cache: t.TempDir(), Out: &said}
	unlock, err := r.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second build: %v, want to wait until the deadline", err)
	}
	if !strings.Contains(said.String(), "waiting for another build") {
		t.Errorf("it said %q", said.String())
	}
	unlock()
	unlock, err = r.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestWithoutSource(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := Request{Cache: t.TempDir()}.Run(t.Context())
	if !errors.Is(err, ErrNoSource) && !strings.Contains(err.Error(), "--source") {
		t.Errorf("without source and cache: %v, want what to do", err)
	}
	if _, err := (Request{Source: t.TempDir(), Cache: t.TempDir()}).Run(t.Context()); !errors.Is(err, ErrNoSource) {
		t.Errorf("with a wrong --source: %v, want ErrNoSource", err)
	}
}

func TestFailedBuildShowsWhy(t *testing.T) {
	module := t.TempDir()
	writeFile(t, filepath.Join(module, "go.mod"), "module x\n\ngo 1.26\n")
	writeFile(t, filepath.Join(module, "main.go"), "package main\n\nfunc main() { missing() }\n")
	err := Request{}.goTool(t.Context(), module, "build", "-o", os.DevNull, ".")
	if err == nil || !strings.Contains(err.Error(), "undefined: missing") {
		t.Errorf("error %v, want what the compiler says", err)
	}
}
