package agent

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestReleaseProgram: pages of the program are gone from memory, and it runs on.
func TestReleaseProgram(t *testing.T) {
	before := residentFile(t)
	if err := releaseProgram(); err != nil {
		t.Fatal(err)
	}
	after := residentFile(t)
	if after > before/2 {
		t.Errorf("of %d kB of files, %d are resident still", before, after)
	}
}

// residentFile is in kilobytes.
func residentFile(t *testing.T) int {
	t.Helper()
	content, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(content), "RssFile:")
	kilobytes, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes
}
