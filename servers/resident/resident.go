// Package resident keeps the memory of this process small: most of the program
// serves its start alone, and would stay resident.
package resident

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ReleaseProgram lets go of the pages of the program's file. They stay in the
// page cache, where the kernel may take them when it needs memory, and those that
// run come back with a minor fault.
func ReleaseProgram() error {
	return advise(unix.MADV_DONTNEED)
}

// advise tells the kernel something about the pages of the program's file.
func advise(what uintptr) error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find the program: %w", err)
	}
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("find the program in memory: %w", err)
	}
	defer file.Close()
	var at area
	for lines := bufio.NewScanner(file); lines.Scan(); {
		// proc_pid_smaps(5): address-address permissions offset device inode path,
		// and then lines of a name and a value.
		line := lines.Text()
		switch fields := strings.Fields(line); {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			if at, err = parseArea(line); err != nil {
				return err
			}
		case fields[0] == "Anonymous:" && fields[1] == "0" && at.file == program && !at.writable:
			// What was ever written, by a relocation or a debugger, is not in the file.
			if _, _, errno := unix.Syscall(unix.SYS_MADVISE, at.from, at.to-at.from, what); errno != 0 {
				return fmt.Errorf("release the pages of the program: %w", errno)
			}
		}
	}
	return nil
}

// area is a part of the memory of a process.
type area struct {
	from, to uintptr
	writable bool
	file     string // empty: none
}

func parseArea(line string) (m area, err error) {
	fields := strings.SplitN(line, " ", 6)
	if len(fields) < 6 {
		return m, fmt.Errorf("read /proc/self/smaps: %q is not a mapping", line)
	}
	if _, err := fmt.Sscanf(fields[0], "%x-%x", &m.from, &m.to); err != nil {
		return m, fmt.Errorf("read /proc/self/smaps: %q: %w", line, err)
	}
	m.writable, m.file = strings.Contains(fields[1], "w"), strings.TrimSpace(fields[5])
	return m, nil
}
