package lab

import (
	"os"
	"path/filepath"
	"testing"
)

// TestInotifyUsed: instances of running processes are counted, and no other files
// of theirs.
func TestInotifyUsed(t *testing.T) {
	proc := t.TempDir()
	for link, to := range map[string]string{
		"1/fd/3": "anon_inode:inotify", "1/fd/4": "anon_inode:[eventpoll]", "27/fd/0": "/dev/null", "27/fd/12": "anon_inode:inotify",
		"self/fd/3": "anon_inode:inotify",
	} {
		if err := os.MkdirAll(filepath.Join(proc, filepath.Dir(link)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(proc, link)); err != nil {
			t.Fatal(err)
		}
	}
	want := 2
	if os.Getuid() != 0 {
		want = 0 // the limit is that of root, and these are not its processes
	}
	if got := inotifyUsed(proc); got != want {
		t.Errorf("%d are in use, want %d", got, want)
	}
}
