package nftables

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Legacy returns the commands that list what iptables-legacy filters with, in the network
// namespace of the calling thread; none where it has no tables. Nothing else tells what is
// in them, and they may be empty: to list one makes it.
func (f *Firewall) Legacy() ([]string, error) { return legacyIn("/proc/thread-self/net") }

// legacyIn is Legacy by the names of tables that are in a directory.
func legacyIn(dir string) (commands []string, err error) {
	for _, family := range []struct{ file, program string }{
		{"ip_tables_names", "iptables-legacy"}, {"ip6_tables_names", "ip6tables-legacy"},
	} {
		names, err := os.ReadFile(filepath.Join(dir, family.file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the kernel may lack it
			return nil, fmt.Errorf("look for tables of %s: %w", family.program, err)
		}
		switch tables := strings.Fields(string(names)); {
		case slices.Contains(tables, "filter"):
			commands = append(commands, family.program+" -S FORWARD")
		case len(tables) > 0:
			commands = append(commands, family.program+"-save")
		}
	}
	return commands, nil
}
