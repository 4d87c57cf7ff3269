package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/lab/world"
)

// Needs of a lab, measured with room to spare. A node takes as much disk as the
// images it holds.
const (
	diskBase, diskPerNode     = 3 << 30, 1 << 30 // bytes
	memoryBase, memoryPerNode = 1 << 30, 400 << 20
	// Of the kernel's limit on inotify instances a user may have, the control
	// plane takes 13, and kubelet, containerd and kube-proxy of a node 9.
	inotifyBase, inotifyPerNode = 30, 12
)

// Preflight returns an error that names all that the host lacks for a lab, each
// with its remedy. It changes nothing: kernel features are tried in namespaces
// that vanish.
func Preflight(config Config) error {
	config, err := config.Complete()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("a lab makes namespaces, devices and mounts, which only root may: run this with sudo")
	}
	lacks := checkCapabilities(readFile("/proc/self/status"))
	if len(lacks) == 0 { // without them every probe fails for that reason
		lacks = append(lacks, checkKernel()...)
	}
	lacks = append(lacks, checkPrograms(config, exec.LookPath)...)
	lacks = append(lacks, checkResources(config)...)
	if len(lacks) > 0 {
		return fmt.Errorf("this host lacks what a lab of %d nodes needs; nothing was changed:\n%w", config.Nodes, errors.Join(lacks...))
	}
	return nil
}

// readFile returns what a file of /proc says, nothing if it is not there.
func readFile(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(content)
}

// checkCapabilities looks for those without which no lab can be, in the
// content of /proc/PID/status.
func checkCapabilities(status string) []error {
	_, rest, _ := strings.Cut(status, "CapEff:")
	line, _, _ := strings.Cut(rest, "\n")
	effective, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return []error{fmt.Errorf("- the capabilities of this process cannot be read: %w", err)}
	}
	var missing []string
	for _, capability := range []struct {
		name string
		bit  int
	}{
		{"CHOWN", unix.CAP_CHOWN}, {"DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE}, {"KILL", unix.CAP_KILL},
		{"MKNOD", unix.CAP_MKNOD}, {"NET_ADMIN", unix.CAP_NET_ADMIN}, {"NET_BIND_SERVICE", unix.CAP_NET_BIND_SERVICE},
		{"NET_RAW", unix.CAP_NET_RAW}, {"SETGID", unix.CAP_SETGID}, {"SETUID", unix.CAP_SETUID},
		{"SYS_ADMIN", unix.CAP_SYS_ADMIN}, {"SYS_CHROOT", unix.CAP_SYS_CHROOT}, {"SYS_PTRACE", unix.CAP_SYS_PTRACE},
	} {
		if effective&(1<<capability.bit) == 0 {
			missing = append(missing, capability.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return []error{fmt.Errorf("- capabilities %s: run outside of a container, or in a privileged one", strings.Join(missing, ", "))}
}

// checkKernel makes one of each thing that a lab is made of, in namespaces of
// its own.
func checkKernel() []error {
	var lacks []error
	if err := world.OnThread(func() error { lacks = probeKernel(); return nil }); err != nil {
		return []error{err}
	}
	return lacks
}

func probeKernel() []error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP); err != nil {
		return []error{fmt.Errorf("- network, mount, UTS and cgroup namespaces (%w): use a kernel with them, and outside of a container that forbids them", err)}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return []error{fmt.Errorf("- mounts of our own (%w): run outside of a container, or in a privileged one", err)}
	}
	var lacks []error
	lack := func(what, module string, err error) {
		if err != nil {
			lacks = append(lacks, fmt.Errorf("- %s (%w): modprobe %s, or use a kernel with it", what, err, module))
		}
	}
	lack("bridges", "bridge", netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "probe-bridge"}}))
	lack("veth pairs", "veth", netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "probe-veth"}, PeerName: "probe-peer"}))
	lack("VXLAN", "vxlan", netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "probe-vxlan"}, VxlanId: 1, Port: 4789}))
	lack("nftables with NAT", "nf_tables nft_chain_nat nft_masq", probeNftables())
	lack("overlay file systems", "overlay", probeOverlay())
	if !strings.Contains(readFile("/proc/self/mountinfo"), " - cgroup2 ") {
		lacks = append(lacks, errors.New("- a mounted cgroup2: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"))
	}
	return lacks
}

func probeNftables() error {
	connection, err := nftables.New()
	if err != nil {
		return err
	}
	table := connection.AddTable(&nftables.Table{Name: "probe", Family: nftables.TableFamilyINet})
	connection.AddChain(&nftables.Chain{
		Name: "probe", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	return connection.Flush()
}

// probeOverlay stacks two directories on a disk, since the file system of the
// upper one must be able to. The mount vanishes with the namespace.
func probeOverlay() error {
	dir, err := os.MkdirTemp("/var/lib", ".fairlead-lab-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	options := "lowerdir=/etc"
	for _, name := range []string{"upper", "work", "merged"} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		if name != "merged" {
			options += "," + name + "dir=" + path
		}
	}
	merged := filepath.Join(dir, "merged")
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return err
	}
	return unix.Unmount(merged, unix.MNT_DETACH)
}

// checkPrograms looks for programs by lookPath, and names Debian's packages of
// those that are not there.
func checkPrograms(config Config, lookPath func(string) (string, error)) []error {
	wanted := []struct{ program, pkg string }{
		{"runc", "runc"}, {busyboxPath, "busybox-static"}, {"mount", "mount"},
	}
	switch config.KubeProxy {
	case "nftables":
		wanted = append(wanted, struct{ program, pkg string }{"nft", "nftables"})
	case "iptables":
		wanted = append(wanted, struct{ program, pkg string }{"iptables", "iptables"})
	}
	var programs, packages []string
	for _, want := range wanted {
		if _, err := lookPath(want.program); err != nil {
			programs, packages = append(programs, want.program), append(packages, want.pkg)
		}
	}
	if len(programs) == 0 {
		return nil
	}
	return []error{fmt.Errorf("- programs %s: apt-get install --no-install-recommends %s",
		strings.Join(programs, ", "), strings.Join(packages, " "))}
}

func checkResources(config Config) []error {
	var lacks []error
	var disk unix.Statfs_t
	if err := unix.Statfs("/var/lib", &disk); err != nil {
		lacks = append(lacks, fmt.Errorf("- the free space of /var/lib cannot be read: %w", err))
	} else if free, want := disk.Bavail*uint64(disk.Bsize), uint64(diskBase+config.Nodes*diskPerNode); free < want {
		lacks = append(lacks, fmt.Errorf("- %d GiB of disk in /var/lib, %d are free: free some, or ask for fewer --nodes", want>>30, free>>30))
	}
	available, want := memoryAvailable(readFile("/proc/meminfo")), uint64(memoryBase+config.Nodes*memoryPerNode)
	if available < want {
		lacks = append(lacks, fmt.Errorf("- %d MiB of memory, %d are available: end something, or ask for fewer --nodes", want>>20, available>>20))
	}
	const limit = "/proc/sys/fs/inotify/max_user_instances"
	least := inotifyBase + config.Nodes*inotifyPerNode
	used := inotifyUsed("/proc")
	if most, err := strconv.Atoi(strings.TrimSpace(readFile(limit))); err == nil && most-used < least {
		lacks = append(lacks, fmt.Errorf("- %d inotify instances, of %d that a user may have %d are in use: sysctl fs.inotify.max_user_instances=%d, or end what uses them, such as another lab",
			least, most, used, used+4*least))
	}
	return lacks
}

// inotifyUsed counts the inotify instances of processes of root, by the content of
// /proc: the kernel does not tell.
func inotifyUsed(proc string) (count int) {
	links, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "[0-9]*"))
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || to != "anon_inode:inotify" {
			continue
		}
		owner, err := os.Stat(filepath.Dir(filepath.Dir(link)))
		if err != nil {
			continue // it has ended
		}
		if stat, ok := owner.Sys().(*syscall.Stat_t); ok && stat.Uid == 0 {
			count++
		}
	}
	return count
}

// memoryAvailable reads the content of /proc/meminfo; in bytes.
func memoryAvailable(meminfo string) uint64 {
	_, rest, _ := strings.Cut(meminfo, "MemAvailable:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, err := strconv.ParseUint(fields[0], 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}
