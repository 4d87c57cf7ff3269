package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tracking gives the kernel's connection tracking the room and the times that
// connections of Services need, as kube-proxy does, and never less than somebody
// else gave it. It does so once: what is changed later is somebody's wish.
type tracking struct {
	root   string                      // of sysctls: /proc/sys
	began  <-chan struct{}             // closed once there are rules, for which the kernel tracks
	former func(path, was, set string) // told of a setting before it is changed; nil: none is
	log    *slog.Logger
}

// trackingPrefix begins the paths of the settings.
const trackingPrefix = "net/netfilter/nf_conntrack_"

// How many connections a node tracks at least.
const (
	trackedPerCPU = 32768
	leastTracked  = 131072
	mostTracked   = 1048576 // that is asked for: some 320 bytes each
)

// wish is what a setting should be.
type wish struct {
	name string // after trackingPrefix
	set  int
	from int // the kernel's default, which alone is changed; -1: anything lower is
}

func wishes(cpus int) []wish {
	tracked := min(max(trackedPerCPU*cpus, leastTracked), mostTracked)
	return []wish{
		{"max", tracked, -1},
		{"buckets", tracked / 4, -1}, // the kernel would round up what is no multiple of 512
		// Seconds. The kernel keeps a connection for five days of which it has missed
		// the end; and one half closed for only a minute, which some are on purpose
		// (kubernetes#32551).
		{"tcp_timeout_established", 24 * 60 * 60, 5 * 24 * 60 * 60},
		{"tcp_timeout_close_wait", 60 * 60, 60},
		// A segment that the kernel thinks to be outside of the window would be of no
		// connection, and pass untranslated; who gets it answers with a reset
		// (kubernetes#74839, kubernetes#117924). See docs/service.md.
		{"tcp_be_liberal", 1, -1},
	}
}

// Run changes the settings once the kernel tracks.
func (t *tracking) Run(ctx context.Context) error {
	if t.former == nil {
		return nil
	}
	select {
	case <-ctx.Done():
	case <-t.began:
		t.set(onlineCPUs())
	}
	return nil
}

// set changes what can be. In a network namespace other than the first, such as
// of a node that is a container, the sizes are the machine's and cannot.
func (t *tracking) set(cpus int) {
	for _, w := range wishes(cpus) {
		was, err := t.fulfil(w)
		switch {
		case err == nil && was != "":
			t.log.Info("a setting of connection tracking was changed", "sysctl", trackingPrefix+w.name, "was", was, "set", w.set)
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS):
			t.log.Info("a setting of connection tracking stays as it is: this process may not change it, or the kernel does not track", "wanted", w.set, "error", err)
		case err != nil:
			t.log.Warn("a setting of connection tracking stays as it is", "wanted", w.set, "error", err)
		}
	}
}

// fulfil returns what was there; empty if it was left alone.
func (t *tracking) fulfil(w wish) (was string, err error) {
	path := trackingPrefix + w.name
	text, err := os.ReadFile(filepath.Join(t.root, path))
	if err != nil {
		return "", err
	}
	was = strings.TrimSpace(string(text))
	value, err := strconv.Atoi(was)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if w.from < 0 && value >= w.set || w.from >= 0 && value != w.from {
		return "", nil
	}
	file, err := os.OpenFile(filepath.Join(t.root, path), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return "", err
	}
	t.former(path, was, strconv.Itoa(w.set))
	_, err = file.WriteString(strconv.Itoa(w.set))
	return was, errors.Join(err, file.Close())
}

// onlineCPUs counts those of the machine. The Go runtime counts those that this
// process may use.
func onlineCPUs() (count int) {
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return runtime.NumCPU()
	}
	if count = countRanges(strings.TrimSpace(string(text))); count == 0 {
		return runtime.NumCPU()
	}
	return count
}

// countRanges counts the numbers of a list such as 0-3,6; 0 if it is none.
func countRanges(list string) (count int) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, several := strings.Cut(part, "-")
		if !several {
			last = first
		}
		low, err := strconv.Atoi(first)
		high, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil || high < low {
			return 0
		}
		count += high - low + 1
	}
	return count
}
