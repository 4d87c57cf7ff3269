package resident

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReleaseProgram: pages of the program are gone from memory, and it runs on.
func TestReleaseProgram(t *testing.T) {
	if err := advise(unix.MADV_POPULATE_READ); err != nil { // Linux 5.14
		t.Skipf("this kernel cannot read pages in advance: %v", err)
	}
	before := residentFile(t)
	if err := ReleaseProgram(); err != nil {
		t.Fatal(err)
	}
	after := residentFile(t)
	// What runs comes back, and with it what lies around it: much of so small a program.
	if after > before*9/10 {
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
