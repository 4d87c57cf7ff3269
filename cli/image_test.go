package cli

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/lab/build"
)

// TestImageIsReproducible builds it from two checkouts in different places, with
// other settings of Go around: the files are equal.
func TestImageIsReproducible(t *testing.T) {
	source, err := build.FindSource("")
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "elsewhere", "fairlead")
	copyCheckout(t, source, copied)
	write := func(source string) []byte {
		t.Helper()
		o := imageOptions{
			out: filepath.Join(t.TempDir(), "image.tar"), name: "example.com/fairlead:1", version: "v1",
			source: source, architectures: []string{"amd64", "arm64"},
		}
		if _, err := o.write(t.Context(), t.Output()); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(o.out)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	first := write(source)
	t.Setenv("GOFLAGS", "-mod=mod")
	t.Setenv("GOAMD64", "v2")
	if second := write(copied); !bytes.Equal(first, second) {
		t.Error("the checkout's place, or the builder's settings, show in the image")
	}
	if bytes.Contains(first, []byte(copied)) || bytes.Contains(first, []byte(source+"/cli")) {
		t.Error("a path of the builder is in the image")
	}
}

// copyCheckout copies what is built, and nothing else.
func copyCheckout(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if strings.HasPrefix(entry.Name(), ".") || name == "bin" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), content, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
