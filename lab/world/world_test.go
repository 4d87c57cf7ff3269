package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test binary the world's Executable.
func TestMain(m *testing.M) {
	if len(os.Args) < 3 || os.Args[1] != "lab" {
		// Under the race detector each process sleeps for a second at its end.
		if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	var err error
	switch os.Args[2] {
	case "machine-init":
		err = RunMachine(os.Args[3])
	case "machine-enter":
		err = Enter(os.Args[3], os.Args[4], os.Args[6:])
	case "serve-http": // a service: says which machine it is
		err = http.ListenAndServe(":80", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			name, _ := os.Hostname()
			fmt.Fprint(rw, name)
		}))
	case "serve-files":
		err = serveFiles()
	case "boot": // TestCrash kills it
		w := &World{Name: os.Args[3], Dir: os.Args[4], Disk: os.Args[5], Executable: os.Args[0]}
		segments, machines := smallWorld(os.Args[0])
		err = w.Boot(context.Background(), segments, machines)
	default:
		err = fmt.Errorf("unknown verb %q", os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func prefixes(list ...string) []netip.Prefix {
	var p []netip.Prefix
	for _, s := range list {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func addrs(list ...string) []netip.Addr {
	var a []netip.Addr
	for _, s := range list {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

// smallWorld is two segments joined by a router; n1 and n2 are on the first,
// n3 is on the second.
func smallWorld(executable string) ([]Segment, []Machine) {
	node := func(name, segment, v4, v6, via4, via6 string) Machine {
		return Machine{
			Name:     name,
			Ports:    []Port{{Segment: segment, Interface: "eth0", Addresses: prefixes(v4, v6)}},
			Gateways: addrs(via4, via6),
			Binds:    []Bind{{Source: executable, Target: "/opt/test/program", ReadOnly: true}},
			Tmpfs:    []string{"/run"},
			Services: []Service{{Name: "http", Argv: []string{"/opt/test/program", "lab", "serve-http"}, RestartDelay: 10}},
		}
	}
	router := Machine{Name: "router", Forward: true, Ports: []Port{
		{Segment: "seg-a", Interface: "a", Addresses: prefixes("10.1.0.1/24", "fd00:1::1/64")},
		{Segment: "seg-b", Interface: "b", Addresses: prefixes("10.2.0.1/24", "fd00:2::1/64")},
	}}
	return []Segment{{Name: "seg-a", MTU: 1500}, {Name: "seg-b", MTU: 1400}}, []Machine{
		router,
		node("n1", "seg-a", "10.1.0.11/24", "fd00:1::11/64", "10.1.0.1", "fd00:1::1"),
		node("n2", "seg-a", "10.1.0.12/24", "fd00:1::12/64", "10.1.0.1", "fd00:1::1"),
		node("n3", "seg-b", "10.2.0.13/24", "fd00:2::13/64", "10.2.0.1", "fd00:2::1"),
	}
}

// newWorld names a world that is destroyed after the test.
func newWorld(t *testing.T) *World {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("t%d-%s", os.Getpid(), strings.ToLower(strings.TrimPrefix(t.Name(), "Test")))
	w := Open(name, filepath.Join("/run", parentName, name), executable)
	t.Cleanup(func() {
		if err := w.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
		for _, trace := range traces(t, w) {
			t.Errorf("left behind: %s", trace)
		}
	})
	return w
}

// traces lists what there is of a world on the host.
func traces(t *testing.T, w *World) []string {
	t.Helper()
	var found []string
	list, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range list {
		found = append(found, h.path(w.Name, ""))
	}
	found = append(found, w.Dir, w.Disk)
	var there []string
	for _, path := range found {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			there = append(there, path)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, w.Name) {
			there = append(there, line)
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if argv, err := os.ReadFile(p); err == nil && bytes.Contains(argv, []byte(w.Dir)) {
			there = append(there, p+" "+string(argv))
		}
	}
	return there
}

// boot boots the small world.
func boot(t *testing.T) *World {
	t.Helper()
	w := newWorld(t)
	segments, machines := smallWorld(w.Executable)
	begin := time.Now()
	if err := w.Boot(t.Context(), segments, machines); err != nil {
		t.Fatal(err)
	}
	t.Logf("booted %d machines in %v", len(machines)+1, time.Since(begin))
	return w
}

// output runs a command in a machine.
func output(t *testing.T, w *World, machine string, argv ...string) string {
	t.Helper()
	out, err := w.Command(t.Context(), machine, argv...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %v: %s", machine, argv, err, out)
	}
	return strings.TrimSpace(string(out))
}

// get asks the HTTP service at an address from a machine, and tells what it
// says.
func get(w *World, from, address string, timeout time.Duration) (string, error) {
	var body string
	err := w.Do(from, func() error {
		var err error
		body, err = httpGet(netip.MustParseAddr(address), timeout)
		return err
	})
	return body, err
}

func mustGet(t *testing.T, w *World, from, address, want string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		body, err := get(w, from, address, time.Second)
		if err == nil && body == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s to %s: got %q, %v; want %q", from, address, body, err, want)
		}
	}
}

func mustNotGet(t *testing.T, w *World, from, address string) {
	t.Helper()
	if body, err := get(w, from, address, 300*time.Millisecond); err == nil {
		t.Fatalf("%s to %s: got %q; want no answer", from, address, body)
	}
}

func TestBoot(t *testing.T) {
	w := boot(t)
	for _, from := range []string{"n1", "n2", "n3"} {
		for address, want := range map[string]string{
			"10.1.0.11": "n1", "fd00:1::11": "n1",
			"10.1.0.12": "n2", "fd00:1::12": "n2",
			"10.2.0.13": "n3", "fd00:2::13": "n3",
		} {
			mustGet(t, w, from, address, want)
		}
	}
	states, err := w.Machines()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range states {
		if !s.Running || s.PID == 0 || (s.Name != "router" && (len(s.Services) != 1 || s.Services[0].PID == 0)) {
			t.Errorf("state %+v", s)
		}
	}
	if len(states) != 4 {
		t.Errorf("%d machines, want 4", len(states))
	}
	if err := w.Boot(t.Context(), nil, nil); err == nil {
		t.Error("booting a world that exists is no error")
	}
}

// TestMachine looks at a machine from inside.
func TestMachine(t *testing.T) {
	w := newWorld(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("bound"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := Machine{
		Name:  "m",
		Tmpfs: []string{"/run"},
		Binds: []Bind{
			{Source: host, Target: "/opt/not/there/rw"},
			{Source: host, Target: "/opt/not/there/ro", ReadOnly: true},
			{Source: filepath.Join(host, "file"), Target: "/etc/resolv.conf"},
			{Source: filepath.Join(w.Disk, "m", "disk"), Target: "/var/lib/containerd"},
		},
		Sysctls: map[string]string{"kernel/panic": "77", "net/ipv4/ip_local_port_range": "2000\t3000"},
	}
	if err := w.Boot(t.Context(), nil, []Machine{m}); err != nil {
		t.Fatal(err)
	}
	panicBefore, err := os.ReadFile("/proc/sys/kernel/panic")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ command, want string }{
		{"hostname", "m"},
		{"ls /sys/class/net | grep -vx -e tunl0 -e sit0 -e gre0 -e ip6tnl0", "lo"}, // those come with modules
		{"cat /opt/not/there/rw/file /opt/not/there/ro/file /etc/resolv.conf", "boundboundbound"},
		{"touch /opt/not/there/ro/x 2>/dev/null || echo refused", "refused"},
		{"touch /opt/not/there/rw/x /var/lib/containerd/x /etc/world-test /run/x && echo done", "done"},
		{"cat /proc/sys/kernel/panic; echo 5 >/proc/sys/kernel/panic; cat /proc/sys/kernel/panic", "77\n5"},
		{"sh -c 'echo 5 >/proc/sys/vm/swappiness' 2>/dev/null || echo refused", "refused"},
		{"cat /proc/sys/net/ipv4/ip_local_port_range", "2000\t3000"},
		{"echo 1 >/proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward", "1"},
		{"unshare --net cat /proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"},
		{"cut -d: -f3 /proc/self/cgroup | grep -vx -e / -e /system || echo inside", "inside"},
		{"stat -f -c %T /sys/fs/bpf /run /dev/shm | tr '\\n' ' '", "bpf_fs tmpfs tmpfs"},
		{"findmnt -n -o PROPAGATION /", "shared"},
	} {
		if got := output(t, w, "m", "sh", "-c", c.command); got != c.want {
			t.Errorf("%s: got %q, want %q", c.command, got, c.want)
		}
	}
	if now, err := os.ReadFile("/proc/sys/kernel/panic"); err != nil || !bytes.Equal(now, panicBefore) {
		t.Errorf("the host's kernel.panic is %q, %v; was %q", now, err, panicBefore)
	}
	if _, err := os.Stat("/etc/world-test"); err == nil {
		t.Error("the machine wrote to the host's /etc")
	}
	// Power off and on: /run is new, the disk is not.
	if err := w.StopMachine(t.Context(), "m", false); err != nil {
		t.Fatal(err)
	}
	if err := w.StartMachine(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if got := output(t, w, "m", "sh", "-c", "ls /run/x /etc/world-test /var/lib/containerd/x 2>/dev/null; true"); got != "/etc/world-test\n/var/lib/containerd/x" {
		t.Errorf("after a reboot there is %q", got)
	}
}

// TestCgroups makes, as a container runtime does, cgroups inside a machine.
func TestCgroups(t *testing.T) {
	w := newWorld(t)
	if err := w.Boot(t.Context(), nil, []Machine{{Name: "m"}}); err != nil {
		t.Fatal(err)
	}
	list, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range list {
		output(t, w, "m", "mkdir", "-p", filepath.Join(h.Mount, "pods", "pod-1"))
		if _, err := os.Stat(filepath.Join(h.path(w.Name, "m"), "pods", "pod-1")); err != nil {
			t.Errorf("cgroup made inside is not below the machine's: %v", err)
		}
	}
	// What is frozen must end too.
	output(t, w, "m", "sh", "-c", `exec </dev/null >/dev/null 2>&1; cd /sys/fs/cgroup/freezer/pods || exit 0
		sleep 1000 & echo $! >cgroup.procs; echo FROZEN >freezer.state`)
	if err := w.StopMachine(t.Context(), "m", false); err != nil {
		t.Fatal(err)
	}
	for _, h := range list {
		if _, err := os.Stat(h.path(w.Name, "m")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s of a stopped machine: %v", h.path(w.Name, "m"), err)
		}
	}
}

func TestLifecycle(t *testing.T) {
	w := boot(t)
	ctx := t.Context()
	for _, graceful := range []bool{true, false} {
		if err := w.StopMachine(ctx, "n1", graceful); err != nil {
			t.Fatal(err)
		}
		mustNotGet(t, w, "n2", "10.1.0.11")
		if err := w.Do("n1", func() error { return nil }); !errors.Is(err, ErrNotRunning) {
			t.Errorf("Do on a stopped machine: %v", err)
		}
		if err := w.StartMachine(ctx, "n1"); err != nil {
			t.Fatal(err)
		}
		mustGet(t, w, "n2", "10.1.0.11", "n1")
		mustGet(t, w, "n3", "fd00:1::11", "n1")
	}
	if err := w.StartMachine(ctx, "n1"); err == nil {
		t.Error("starting a running machine is no error")
	}
	if err := w.RemoveMachine(ctx, "n3"); err != nil {
		t.Fatal(err)
	}
	_, machines := smallWorld(w.Executable)
	if err := w.AddMachine(ctx, machines[3]); err != nil {
		t.Fatal(err)
	}
	mustGet(t, w, "n1", "10.2.0.13", "n3")
	if err := w.AddMachine(ctx, machines[3]); err == nil {
		t.Error("adding a machine twice is no error")
	}
}

func TestServices(t *testing.T) {
	w := boot(t)
	ctx := t.Context()
	state := func() ServiceState {
		states, err := w.Machines()
		if err != nil {
			t.Fatal(err)
		}
		return states[0].Services[0]
	}
	mustGet(t, w, "n2", "10.1.0.11", "n1")
	if err := w.StopService(ctx, "n1", "http"); err != nil {
		t.Fatal(err)
	}
	if s := state(); !s.Stopped || s.PID != 0 || s.Restarts != 0 {
		t.Errorf("after a stop: %+v", s)
	}
	mustNotGet(t, w, "n2", "10.1.0.11")
	if err := w.StartService(ctx, "n1", "http"); err != nil {
		t.Fatal(err)
	}
	mustGet(t, w, "n2", "10.1.0.11", "n1")
	before := state()
	if before.Stopped || before.PID == 0 {
		t.Errorf("after a start: %+v", before)
	}
	output(t, w, "n1", "kill", "-9", strconv.Itoa(before.PID))
	deadline := time.Now().Add(5 * time.Second)
	for s := state(); s.PID == before.PID || s.PID == 0; s = state() {
		if time.Now().After(deadline) {
			t.Fatalf("not restarted: %+v", s)
		}
	}
	if s := state(); s.Restarts != 1 || s.LastExit != "signal: killed" {
		t.Errorf("after a crash: %+v", s)
	}
	if err := w.StopService(ctx, "n1", "none"); err == nil {
		t.Error("stopping a service that is not there is no error")
	}
}

// TestDo leaves no thread, the main one least of all, in a machine's network.
func TestDo(t *testing.T) {
	w := newWorld(t)
	if err := w.Boot(t.Context(), nil, []Machine{{Name: "m"}}); err != nil {
		t.Fatal(err)
	}
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if err := w.Do("m", func() error {
			inside, err := os.Readlink("/proc/thread-self/ns/net")
			if inside == host {
				t.Error("Do runs on the host")
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if now, err := os.Readlink("/proc/self/ns/net"); now != host {
			t.Fatalf("the main thread is in %s, %v", now, err)
		}
	}
	if err := w.Do("m", func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("a function that does not return is no error")
	}
}

// TestMTU: a port of a smaller MTU does not make the segment's smaller.
func TestMTU(t *testing.T) {
	w := newWorld(t)
	machine := func(name string, mtu int) Machine {
		return Machine{Name: name, Ports: []Port{{Segment: "s", Interface: "eth0", MTU: mtu}}}
	}
	if err := w.Boot(t.Context(), []Segment{{Name: "s", MTU: 9000}}, []Machine{machine("small", 1280)}); err != nil {
		t.Fatal(err)
	}
	if err := w.AddMachine(t.Context(), machine("large", 0)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"small": "1280", "large": "9000"} {
		if got := output(t, w, name, "cat", "/sys/class/net/eth0/mtu"); got != want {
			t.Errorf("machine %s has MTU %s, want %s", name, got, want)
		}
	}
}

// TestCommandCancel ends a command inside a machine through its context.
func TestCommandCancel(t *testing.T) {
	w := newWorld(t)
	if err := w.Boot(t.Context(), nil, []Machine{{Name: "m"}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := w.Command(ctx, "m", "sh", "-c", "echo up; exec sleep 1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("the command ended by itself")
	}
	if err := w.Command(t.Context(), "m", "false").Run(); !errors.As(err, new(*exec.ExitError)) {
		t.Errorf("false: %v", err)
	}
}
