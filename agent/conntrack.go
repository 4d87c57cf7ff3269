package agent

import (
	"os"
	"strconv"
	"strings"

	"github.com/fairlead-net/fairlead/observe/metric"
)

// conntrackUse returns how many connections the kernel tracks and can track;
// false if it tracks none.
func conntrackUse() (used, limit float64, tracks bool) {
	read := func(name string) (float64, bool) {
		text, err := os.ReadFile("/proc/sys/net/netfilter/" + name)
		if err != nil {
			return 0, false
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
		return value, err == nil
	}
	used, counts := read("nf_conntrack_count")
	limit, limited := read("nf_conntrack_max")
	return used, limit, counts && limited
}

// conntrackCauses are the columns of the kernel's statistics that tell of
// packets lost.
var conntrackCauses = [...]string{"insert_failed", "drop", "early_drop"}

func readConntrack(emit metric.Emit) {
	if used, limit, ok := conntrackUse(); ok {
		emit("fairlead_conntrack_entries", used)
		emit("fairlead_conntrack_entries_limit", limit)
	}
	text, err := os.ReadFile("/proc/net/stat/nf_conntrack")
	if err != nil {
		return // the kernel may have been built without
	}
	sums := conntrackSums(string(text))
	for _, cause := range conntrackCauses {
		if sum, ok := sums[cause]; ok {
			emit("fairlead_conntrack_dropped_total", float64(sum), cause)
		}
	}
}

// conntrackSums adds up a file whose first line names its columns and of which
// each further one is of a CPU, in hexadecimal.
func conntrackSums(text string) map[string]uint64 {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	columns, sums := strings.Fields(lines[0]), map[string]uint64{}
	for _, line := range lines[1:] {
		for i, field := range strings.Fields(line) {
			if value, err := strconv.ParseUint(field, 16, 64); err == nil && i < len(columns) {
				sums[columns[i]] += value
			}
		}
	}
	return sums
}
