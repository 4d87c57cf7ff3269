package world

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// parentName is the directory above all worlds in each cgroup hierarchy.
const parentName = "fairlead-lab"

// hierarchy is one cgroup hierarchy of the host.
type hierarchy struct {
	Mount   string // where the host mounts it
	Base    string // host directory below which worlds live
	Options string // v1: what makes a further mount of it
	Unified bool   // version 2
}

// hierarchies finds the cgroup hierarchies of the host.
//
// In version 1 worlds live below the caller's own cgroup, so that no lab
// escapes a limit put on who starts it. In version 2 that would leave machines
// without controllers, because a cgroup with processes (a login session) cannot
// delegate any; there they live below the root.
func hierarchies() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	list := parseHierarchies(string(mounts), string(own))
	if !slices.ContainsFunc(list, func(h hierarchy) bool { return h.Unified }) {
		return nil, errors.New("find cgroups: no cgroup2 is mounted; remedy: mkdir /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
	}
	return list, nil
}

// parseHierarchies reads /proc/PID/mountinfo and /proc/PID/cgroup. Of several
// mounts of one hierarchy the first one counts.
func parseHierarchies(mountinfo, own string) []hierarchy {
	paths := map[string]string{} // controller or name=… -> own cgroup
	for line := range strings.Lines(own) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for key := range strings.SplitSeq(parts[1], ",") {
			paths[key] = parts[2]
		}
	}
	var list []hierarchy
	seen := map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		m, ok := parseMount(line)
		if !ok || (m.fstype != "cgroup" && m.fstype != "cgroup2") {
			continue
		}
		h := hierarchy{Mount: m.target, Base: m.target, Unified: m.fstype == "cgroup2"}
		if !h.Unified {
			var options []string
			for o := range strings.SplitSeq(m.options, ",") {
				path, ok := paths[o]
				if !ok {
					continue // rw, xattr, release_agent: not what names the hierarchy
				}
				options = append(options, o)
				if rel, err := filepath.Rel(m.root, path); err == nil && filepath.IsLocal(rel) {
					h.Base = filepath.Join(m.target, rel)
				}
			}
			h.Options = strings.Join(options, ",")
		}
		if seen[h.Options] || (!h.Unified && h.Options == "") {
			continue
		}
		seen[h.Options] = true
		list = append(list, h)
	}
	return list
}

// path is the host directory of a machine's cgroup, or the world's if no
// machine is named.
func (h hierarchy) path(world, machine string) string {
	return filepath.Join(h.Base, parentName, world, machine)
}

// leaf is where a machine's processes are: version 2 wants them in a leaf so
// that the machine's own cgroup can delegate controllers.
func (h hierarchy) leaf(world, machine string) string {
	if h.Unified {
		return filepath.Join(h.path(world, machine), "system")
	}
	return h.path(world, machine)
}

// create makes the machine's cgroup with all controllers that can be had.
func (h hierarchy) create(world, machine string) error {
	dir := h.Base
	for _, name := range []string{parentName, world, machine} {
		if h.Unified {
			delegate(dir)
		}
		parent := dir
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup: %w", err)
		}
		// A cgroup of cpuset version 1 is born without CPUs and takes no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if v, err := os.ReadFile(filepath.Join(parent, file)); err == nil && !h.Unified {
				if err := os.WriteFile(filepath.Join(dir, file), v, 0); err != nil {
					return fmt.Errorf("make cgroup: %w", err)
				}
			}
		}
	}
	return nil
}

// delegate offers the controllers of a version 2 cgroup to its children, one by
// one since the kernel takes all or none of a write. One that is refused (cpu
// beside realtime processes, say) is missed by who needs it.
func delegate(dir string) {
	available, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	for _, c := range strings.Fields(string(available)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

func join(dir string, pid int) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("join cgroup: %w", err)
	}
	return nil
}

// purge kills every process of a machine, or of the whole world if no machine
// is named, and removes its cgroups. It is no error if there are none.
func purge(ctx context.Context, list []hierarchy, world, machine string) error {
	for _, h := range list {
		thaw(h.path(world, machine))
	}
	for {
		err := purgeOnce(ctx, list, world, machine)
		if !errors.Is(err, unix.EBUSY) || ctx.Err() != nil {
			return err
		}
		// Somebody who was on the way into the machine has come, or is half
		// inside. A cgroup that is gone lets nobody in, so this ends.
		if _, err := unix.Poll(nil, 10); err != nil && err != unix.EINTR {
			return fmt.Errorf("kill cgroup: %w", err)
		}
	}
}

func purgeOnce(ctx context.Context, list []hierarchy, world, machine string) error {
	// All processes of a machine are in its version 2 cgroup and cannot leave
	// it: their cgroup namespace shows them nothing above.
	for _, h := range list {
		if h.Unified {
			if err := killAll(ctx, h.path(world, machine)); err != nil {
				return err
			}
		}
	}
	for _, h := range list {
		if err := removeTree(h.path(world, machine)); err != nil {
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
	return nil
}

// thaw wakes a version 1 freezer tree: frozen processes do not die.
func thaw(dir string) {
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "freezer.state" {
			_ = os.WriteFile(path, []byte("THAWED"), 0)
		}
		return nil
	})
}

// killAll kills a version 2 cgroup with all below it and waits for the end of
// the last process.
func killAll(ctx context.Context, dir string) error {
	events, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	defer events.Close()
	buf := make([]byte, 256)
	for {
		// Each time: one that came in from outside (see Enter) may have come after.
		if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil {
			return fmt.Errorf("kill cgroup (needs Linux 5.14): %w", err)
		}
		n, err := events.ReadAt(buf, 0)
		if n == 0 {
			return fmt.Errorf("kill cgroup: %w", err)
		}
		if !strings.Contains(string(buf[:n]), "populated 1") {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the end of all processes in %s: %w", dir, ctx.Err())
		}
		// A change of the file is an event; the timeout looks at ctx and at who came.
		fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, 100); err != nil && err != unix.EINTR {
			return fmt.Errorf("kill cgroup: %w", err)
		}
	}
}

// removeTree removes a directory and the directories below it; the files of a
// cgroup go with it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
