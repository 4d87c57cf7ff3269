package world

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is one line of /proc/PID/mountinfo.
type mount struct {
	root, target, fstype, source, options string // options are the superblock's
}

func parseMount(line string) (mount, bool) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 5 || len(r) < 3 {
		return mount{}, false
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	return mount{root: l[3], target: unescape.Replace(l[4]), fstype: r[0], source: r[1], options: r[2]}, true
}

// diskMounts lists where a host mounts disks beside its root: an overlay of the
// root shows nothing below them.
func diskMounts(mountinfo string) []string {
	var list []string
	for line := range strings.Lines(mountinfo) {
		m, ok := parseMount(line)
		onDisk := strings.HasPrefix(m.source, "/dev/") || m.fstype == "zfs"
		if ok && onDisk && m.fstype != "devtmpfs" && m.target != "/" && !slices.Contains(list, m.target) {
			list = append(list, m.target)
		}
	}
	slices.Sort(list) // parents first
	return list
}

// attachment is a tree of mounts that is not mounted anywhere yet.
type attachment struct {
	fd     int
	target string
	isDir  bool
}

// detach copies the mounts at source, so that they can be attached when the
// host's tree is out of sight. A bind by path would have to resolve its target
// with the host's root, where a symlink in the machine's leads astray.
func detach(source, target string, readOnly bool) (attachment, error) {
	st, err := os.Stat(source)
	if err != nil {
		return attachment{}, fmt.Errorf("bind %s: %w", source, err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return attachment{}, fmt.Errorf("bind %s: %w", source, err)
	}
	if readOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			unix.Close(fd)
			return attachment{}, fmt.Errorf("bind %s read-only: %w", source, err)
		}
	}
	return attachment{fd: fd, target: target, isDir: st.IsDir()}, nil
}

func (a attachment) attach() error {
	defer unix.Close(a.fd)
	if err := makeTarget(a.target, a.isDir); err != nil {
		return fmt.Errorf("make %s: %w", a.target, err)
	}
	// A symlink as the last part of the target is followed, as mount(8) does.
	const flags = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_SYMLINKS
	if err := unix.MoveMount(a.fd, "", unix.AT_FDCWD, a.target, flags); err != nil {
		return fmt.Errorf("mount at %s: %w", a.target, err)
	}
	return nil
}

// makeTarget makes a place to mount at. A symlink that leads nowhere (such as
// resolv.conf to a file in /run, which is empty at boot) gives way.
func makeTarget(path string, dir bool) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Readlink(path); err == nil {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if dir {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// enterRoot gives the calling process, which is in a mount namespace of its
// own, the machine's root in place of the host's.
func enterRoot(r record, m Machine) error {
	// Before all else: no mount made here may propagate to the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	disk := filepath.Join(r.World.Disk, m.Name)
	dev, err := detach("/dev", "/dev", false)
	if err != nil {
		return err
	}
	binds, err := detachBinds(r.World.Disk, m.Binds)
	if err != nil {
		return err
	}
	links := cgroupLinks()
	root := filepath.Join(disk, "root")
	if err := mountRoot(disk, root); err != nil {
		return err
	}
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	// With both arguments equal the old root ends up on top of the new one, from
	// where it is taken off (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the host's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := mountKernel(dev); err != nil {
		return err
	}
	if err := mountCgroups(r.Hierarchies, links); err != nil {
		return err
	}
	for _, path := range m.Tmpfs {
		if err := mountFS("tmpfs", path, "mode=0755"); err != nil {
			return err
		}
	}
	for _, b := range binds {
		if err := b.attach(); err != nil {
			return err
		}
	}
	if err := shadowSysctls(m.Sysctls); err != nil {
		return err
	}
	// Container runtimes want mounts that propagate to their containers.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return nil
}

func detachBinds(disk string, binds []Bind) ([]attachment, error) {
	var list []attachment
	for _, b := range binds {
		if rel, err := filepath.Rel(disk, b.Source); err == nil && filepath.IsLocal(rel) {
			if _, err := os.Stat(b.Source); errors.Is(err, fs.ErrNotExist) {
				if err := os.MkdirAll(b.Source, 0o755); err != nil {
					return nil, fmt.Errorf("bind %s: %w", b.Source, err)
				}
			}
		}
		a, err := detach(b.Source, b.Target, b.ReadOnly)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// mountRoot mounts at root an overlay over the host's / and over each further
// disk of the host, written to below disk.
func mountRoot(disk, root string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("find the host's mounts: %w", err)
	}
	for _, lower := range append([]string{"/"}, diskMounts(string(mounts))...) {
		if st, err := os.Stat(lower); err != nil || !st.IsDir() {
			continue // hidden below another mount, or the mount of a single file
		}
		// One name per lower directory, all side by side: an upper directory
		// inside another one would show up in the machine.
		name := strings.ReplaceAll(strings.Trim(lower, "/"), "/", "%")
		upper, work := filepath.Join(disk, "upper", name), filepath.Join(disk, "work", name)
		if lower == "/" {
			upper, work = filepath.Join(disk, "upper", "%"), filepath.Join(disk, "work", "%")
		}
		for _, dir := range []string{upper, work, filepath.Join(root, lower)} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("make root: %w", err)
			}
		}
		// index=off: a mount of the time before a power-off may not have ended yet.
		options := "index=off,lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work
		if err := unix.Mount("overlay", filepath.Join(root, lower), "overlay", 0, options); err != nil {
			if lower != "/" {
				continue // such as a boot partition on vfat; the machine does not see it
			}
			return fmt.Errorf("mount overlay of / (needs CONFIG_OVERLAY_FS, and %s on a disk that is no overlay itself): %w", disk, err)
		}
	}
	return nil
}

func mountFS(fstype, target, options string) error {
	if err := makeTarget(target, true); err != nil {
		return fmt.Errorf("make %s: %w", target, err)
	}
	if err := unix.Mount(fstype, target, fstype, 0, options); err != nil {
		return fmt.Errorf("mount %s at %s: %w", fstype, target, err)
	}
	return nil
}

// mountKernel mounts what the kernel shows of itself. /sys is that of the
// machine's network namespace.
func mountKernel(dev attachment) error {
	if err := mountFS("proc", "/proc", ""); err != nil {
		return err
	}
	if err := mountFS("sysfs", "/sys", ""); err != nil {
		return err
	}
	if err := mountFS("bpf", "/sys/fs/bpf", "mode=0700"); err != nil {
		return err
	}
	if err := dev.attach(); err != nil {
		return err
	}
	return mountFS("tmpfs", "/dev/shm", "mode=1777")
}

// cgroupLinks are the host's names for parts of a hierarchy, such as cpu for
// cpu,cpuacct.
func cgroupLinks() map[string]string {
	links := map[string]string{}
	entries, _ := os.ReadDir(cgroupRoot) // none is fine: there may be no links at all
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(cgroupRoot, e.Name())); err == nil {
			links[e.Name()] = to
		}
	}
	return links
}

const cgroupRoot = "/sys/fs/cgroup"

// mountCgroups mounts the host's hierarchies where the host has them. The
// cgroup namespace makes the machine's own cgroup their root.
func mountCgroups(list []hierarchy, links map[string]string) error {
	if !slices.ContainsFunc(list, func(h hierarchy) bool { return h.Mount == cgroupRoot }) {
		if err := mountFS("tmpfs", cgroupRoot, "mode=0755"); err != nil {
			return err
		}
	}
	for _, h := range list {
		fstype := "cgroup"
		if h.Unified {
			fstype = "cgroup2"
		}
		if err := mountFS(fstype, h.Mount, h.Options); err != nil {
			return err
		}
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(cgroupRoot, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link cgroups: %w", err)
		}
	}
	return nil
}

// shadowSysctls makes the sysctls that belong to the host read-only, and mounts
// a file with the wanted value over those that the machine wants to differ.
func shadowSysctls(sysctls map[string]string) error {
	dirs, err := os.ReadDir("/proc/sys")
	if err != nil {
		return fmt.Errorf("protect the host's sysctls: %w", err)
	}
	for _, d := range dirs {
		if d.Name() == "net" {
			continue // of the network namespace of who looks
		}
		path := filepath.Join("/proc/sys", d.Name())
		a, err := detach(path, path, true)
		if err != nil {
			return fmt.Errorf("protect the host's sysctls: %w", err)
		}
		if err := a.attach(); err != nil {
			return fmt.Errorf("protect the host's sysctls: %w", err)
		}
	}
	for key, value := range sysctls {
		if strings.HasPrefix(key, "net/") {
			continue
		}
		const file = "/dev/shm/sysctl" // on a tmpfs of the machine; the mount outlives the name
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return fmt.Errorf("shadow sysctl %s: %w", key, err)
		}
		a, err := detach(file, filepath.Join("/proc/sys", key), false)
		if err != nil {
			return err
		}
		if err := a.attach(); err != nil {
			return err
		}
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("shadow sysctl %s: %w", key, err)
		}
	}
	return nil
}
