package world

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCrash kills whoever boots a world at a random moment and expects Destroy
// to find everything that is there by then, or comes up a moment later.
func TestCrash(t *testing.T) {
	w := newWorld(t)
	for range 12 {
		cmd := exec.Command(w.Executable, "lab", "boot", w.Name, w.Dir, w.Disk)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		moment := time.Duration(rand.Int64N(int64(90 * time.Millisecond)))
		time.Sleep(moment) // any moment will do, so there is no event to wait for
		// The whole group, as Ctrl-C would, but without mercy.
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if err := w.Destroy(t.Context()); err != nil {
			t.Fatalf("after a kill at %v: %v", moment, err)
		}
		if left := traces(t, w); len(left) > 0 {
			t.Fatalf("after a kill at %v: left behind:\n%s", moment, strings.Join(left, "\n"))
		}
		segments, machines := smallWorld(w.Executable)
		if err := w.Boot(t.Context(), segments, machines[:1]); err != nil {
			t.Fatalf("boot after a kill at %v: %v", moment, err)
		}
		if err := w.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOutlives boots a world by a program that ends, as "lab up" does.
func TestOutlives(t *testing.T) {
	w := newWorld(t)
	if out, err := exec.Command(w.Executable, "lab", "boot", w.Name, w.Dir, w.Disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mustGet(t, w, "n1", "10.2.0.13", "n3")
	for _, name := range []string{"n1", fabricName} {
		init, err := w.openInit(name)
		if err != nil {
			t.Fatal(err)
		}
		init.Close()
	}
}

// TestHostUntouched compares the host before, during and after a world.
func TestHostUntouched(t *testing.T) {
	w := newWorld(t)
	before := hostState(t)
	segments, machines := smallWorld(w.Executable)
	if err := w.Boot(t.Context(), segments, machines); err != nil {
		t.Fatal(err)
	}
	compareStates(t, "while the world is up", before, hostState(t))
	if err := w.SetLoss(t.Context(), "n1", "eth0", 10); err != nil {
		t.Fatal(err)
	}
	output(t, w, "n1", "sh", "-c", "echo x >/etc/hosts; mount -t tmpfs x /mnt; ip link add br9 type bridge; sysctl -q -w net.ipv4.ip_forward=1")
	if err := w.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Destroy(t.Context()); err != nil {
		t.Errorf("destroying twice: %v", err)
	}
	compareStates(t, "after the world", before, hostState(t))
}

// hostState is what the world must not change.
func hostState(t *testing.T) map[string]string {
	t.Helper()
	state := map[string]string{}
	for _, c := range []string{
		"ip -j link", "ip -j route show table all", "ip -6 -j route show table all", "ip -j rule", "ip -6 -j rule",
		"ip -j addr", "nft -j list ruleset", "cat /proc/self/mountinfo", "cat /etc/hosts", "ls -R /etc/cni /opt/cni /etc/kubernetes",
		"sysctl net.core.somaxconn net.ipv4.conf net.ipv4.ip_forward net.ipv6.conf kernel.panic kernel.hostname vm.overcommit_memory",
	} {
		argv := strings.Fields(c)
		out, _ := exec.Command(argv[0], argv[1:]...).Output() // what fails must go on failing
		state[c] = string(out)
	}
	return state
}

func compareStates(t *testing.T, when string, before, now map[string]string) {
	t.Helper()
	for what, b := range before {
		if now[what] != b {
			t.Errorf("%s: %s was\n%s\nis\n%s", when, what, b, now[what])
		}
	}
}

// TestParseHierarchies reads what hosts of each kind show.
func TestParseHierarchies(t *testing.T) {
	const (
		hybrid = `35 24 0:30 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
36 35 0:31 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
37 35 0:32 / /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
38 35 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
39 35 0:34 /box /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
40 24 0:33 / /other/cpu rw,nosuid - cgroup cgroup rw,cpu,cpuacct
`
		hybridOwn = "3:memory:/box/inner\n2:cpu,cpuacct:/\n1:name=systemd:/user.slice\n0::/user.slice\n"
		unified   = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	)
	for _, c := range []struct {
		mounts, own string
		want        []hierarchy
	}{
		{hybrid, hybridOwn, []hierarchy{
			{Mount: "/sys/fs/cgroup/unified", Base: "/sys/fs/cgroup/unified", Unified: true},
			{Mount: "/sys/fs/cgroup/systemd", Base: "/sys/fs/cgroup/systemd/user.slice", Options: "name=systemd"},
			{Mount: "/sys/fs/cgroup/cpu,cpuacct", Base: "/sys/fs/cgroup/cpu,cpuacct", Options: "cpu,cpuacct"},
			{Mount: "/sys/fs/cgroup/memory", Base: "/sys/fs/cgroup/memory/inner", Options: "memory"},
		}},
		{unified, "0::/user.slice/session-1.scope\n", []hierarchy{
			{Mount: "/sys/fs/cgroup", Base: "/sys/fs/cgroup", Unified: true},
		}},
	} {
		got := parseHierarchies(c.mounts, c.own)
		if len(got) != len(c.want) {
			t.Fatalf("got %+v, want %+v", got, c.want)
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("got %+v, want %+v", got[i], c.want[i])
			}
		}
	}
}

func TestDiskMounts(t *testing.T) {
	const mountinfo = `20 1 254:0 / / rw - ext4 /dev/vda rw
21 20 0:5 / /dev rw - devtmpfs devtmpfs rw
22 20 254:2 / /var\040x rw - xfs /dev/vdb rw
23 20 254:3 / /home rw - zfs pool/home rw
24 20 0:30 / /tmp rw - tmpfs tmpfs rw
`
	if got := strings.Join(diskMounts(mountinfo), "|"); got != "/home|/var x" {
		t.Errorf("got %s", got)
	}
}

// TestHardwareAddr: addresses are unicast, local, and differ.
func TestHardwareAddr(t *testing.T) {
	a, b := hardwareAddr("w", "n1", "eth0"), hardwareAddr("w", "n2", "eth0")
	if a[0]&3 != 2 || bytes.Equal(a, b) || !bytes.Equal(a, hardwareAddr("w", "n1", "eth0")) {
		t.Errorf("got %s and %s", a, b)
	}
	if name := portName("a-machine-with-a-long-name", "eth0"); len(name) > 15 {
		t.Errorf("port name %s", name)
	}
}

// TestOtherHosts repeats tests on hosts of another make: inside a mount
// namespace that is changed by a command first.
func TestOtherHosts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for name, c := range map[string]struct{ prepare, tests string }{
		"cgroup2 only":  {"umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup", "TestBoot|TestMachine|TestCgroups"},
		"separate disk": {"mount -t tmpfs /dev/other /srv; echo seen >/srv/file", "TestSeparateDisk"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-ec",
				c.prepare+`; exec "$0" -test.count=1 -test.run "^($1)$"`, os.Args[0], c.tests)
			cmd.Env = append(os.Environ(), "WORLD_TEST_OTHER_HOST=1")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestSeparateDisk looks at a disk that the host mounts beside its root.
func TestSeparateDisk(t *testing.T) {
	if os.Getenv("WORLD_TEST_OTHER_HOST") == "" {
		t.Skip("runs inside TestOtherHosts")
	}
	w := newWorld(t)
	if err := w.Boot(t.Context(), nil, []Machine{{Name: "m"}}); err != nil {
		t.Fatal(err)
	}
	if got := output(t, w, "m", "sh", "-c", "cat /srv/file; echo mine >/srv/file; cat /srv/file"); got != "seen\nmine" {
		t.Errorf("got %q", got)
	}
	if b, err := os.ReadFile("/srv/file"); err != nil || string(b) != "seen\n" {
		t.Errorf("the host's file is %q, %v", b, err)
	}
}
