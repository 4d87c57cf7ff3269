package daemon

import (
	"os"
	"strings"
)

// bootID tells one run of the node's kernel from the next; empty: it cannot be
// told.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
