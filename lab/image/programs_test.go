package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// TestProgramsRun: a program runs where there is nothing but its layer.
func TestProgramsRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chroot(2) needs root")
	}
	const program = "/usr/sbin/ip" // with shared libraries of its own
	layer, err := Programs(program)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, file := range layer {
		content, err := os.ReadFile(file.Source)
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(root, file.Path)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command(program, "-V")
	command.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
}

func TestProgramsShareLibraries(t *testing.T) {
	layer, err := Programs("/usr/sbin/ip", "/usr/bin/ss")
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, file := range layer {
		paths = append(paths, file.Path)
	}
	slices.Sort(paths)
	if len(slices.Compact(slices.Clone(paths))) != len(paths) {
		t.Errorf("a path is there twice: %q", paths)
	}
	if !slices.Contains(paths, "/usr/lib/libc.so.6") {
		t.Errorf("the C library is missing: %q", paths)
	}
}

func TestProgramsRefuses(t *testing.T) {
	if _, err := Programs("/etc/passwd"); err == nil {
		t.Error("a text was taken for a program")
	}
	if _, err := Programs("/nonexistent"); err == nil {
		t.Error("a missing program was taken")
	}
}
