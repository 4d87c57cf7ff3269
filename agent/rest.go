package agent

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	counts "runtime/metrics"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// rest keeps the memory of the agent small. Reading a large cluster takes a
// multiple of what is kept of it, and most of the program serves the start alone;
// without a word, both would stay resident.
type rest struct {
	began <-chan struct{} // closed after the first success
	log   *slog.Logger
}

const (
	// garbage is how much may pile up before it is collected, in percent of what
	// lives (GOGC). The agent allocates little for what it holds, and a fifth of Go's
	// default costs it nothing that shows.
	garbage = 20
	// starting is how many bytes of garbage may pile up at least, until the first
	// plan is applied. Most of what is allocated to read a cluster goes at once, and
	// to collect each fifth of little took half the time of a processor that a start
	// takes.
	starting = 16 << 20
	// most is how much that is at most in percent of what lives; the runtime takes a
	// heap to be no smaller than 4 MiB times as much.
	most = 400
	// weighInterval is between two looks at how much lives.
	weighInterval = 20 * time.Millisecond
	// restInterval is between two times that the program is let go of, which takes
	// 3 ms, and every third time free memory is: a collection takes 30 ms of a core
	// with 50,000 pods.
	restInterval = 10 * time.Second
	collectEvery = 3
	// settling is from the first success until then: status and checks come first.
	settling = 5 * time.Second
)

// Run gives back memory until the context ends. GOGC in the environment is
// respected.
func (r *rest) Run(ctx context.Context) error {
	if !r.release() { // what ran before this, which is most of what is registered
		return nil
	}
	if !r.start(ctx, os.Getenv("GOGC") == "") {
		return nil
	}
	wait := settling
	for n := 0; pause(ctx, jitter(wait)); n++ {
		if n%collectEvery == 0 {
			debug.FreeOSMemory()
		}
		if !r.release() {
			return nil
		}
		wait = restInterval
	}
	return nil
}

// start waits for the first success, and tells whether it came. Meanwhile, it
// sets how much garbage may pile up, if it may.
func (r *rest) start(ctx context.Context, may bool) bool {
	weigh := time.NewTicker(weighInterval)
	defer weigh.Stop()
	live := []counts.Sample{{Name: "/gc/heap/live:bytes"}}
	before := 0
	for {
		if may {
			counts.Read(live)
			if now := garbageOf(live[0].Value.Uint64()); now != before {
				debug.SetGCPercent(now)
				before = now
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-r.began:
			if may {
				debug.SetGCPercent(garbage)
			}
			return true
		case <-weigh.C:
		}
	}
}

// garbageOf is how much may pile up at the start, in percent of what lives
// (bytes).
func garbageOf(live uint64) int {
	return int(min(max(starting*100/max(live, 1), garbage), most))
}

// release lets go of the program, and tells whether it could.
func (r *rest) release() bool {
	err := releaseProgram()
	if err != nil {
		r.log.Warn("memory is not given back", "error", err)
	}
	return err == nil
}

// releaseProgram lets go of the pages of the program's file. They stay in the
// page cache, where the kernel may take them when it needs memory, and those that
// run come back with a minor fault.
func releaseProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find the program: %w", err)
	}
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("find the program in memory: %w", err)
	}
	defer file.Close()
	var at memoryArea
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
			if _, _, errno := unix.Syscall(unix.SYS_MADVISE, at.from, at.to-at.from, unix.MADV_DONTNEED); errno != 0 {
				return fmt.Errorf("release the pages of the program: %w", errno)
			}
		}
	}
	return nil
}

// memoryArea is a part of the memory of a process.
type memoryArea struct {
	from, to uintptr
	writable bool
	file     string // empty: none
}

func parseArea(line string) (m memoryArea, err error) {
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
