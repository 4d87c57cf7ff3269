package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/lab/build"
)

// TestHostUntouched: while a lab is up, and after it, firewall, devices,
// routes, sysctls and /etc of the host are as they were; after it, so are
// mounts, cgroups and files.
func TestHostUntouched(t *testing.T) {
	unlock, err := LockHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := Down(t.Context(), TestName); err != nil {
		t.Fatal(err)
	}
	network, traces := hostNetwork(t), hostTraces(t)
	t.Cleanup(func() {
		if err := Down(context.Background(), TestName); err != nil {
			t.Error(err)
		}
	})
	if _, err := Up(t.Context(), Config{Name: TestName, Nodes: 2, Network: None, DNS: None}, t.Output()); err != nil {
		t.Fatal(err)
	}
	compare(t, "while a lab is up", network, hostNetwork(t))
	if err := Down(t.Context(), TestName); err != nil {
		t.Fatal(err)
	}
	compare(t, "after a lab", network, hostNetwork(t))
	compare(t, "after a lab", traces, hostTraces(t))
}

// TestKilledUpLeavesNothing kills up at random moments: down cleans whatever
// is there then.
func TestKilledUpLeavesNothing(t *testing.T) {
	unlock, err := LockHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	programs, err := build.Request{Out: t.Output()}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := Down(t.Context(), TestName); err != nil {
		t.Fatal(err)
	}
	before := hostTraces(t)
	for range 6 {
		life := rand.N(6 * time.Second)
		up := exec.CommandContext(t.Context(), programs.Fairlead, "lab", "up", "--name", TestName, "--nodes=1", "--network=none", "--dns=none")
		if err := up.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(life, func() { _ = up.Process.Kill() }) // fails only if it has ended
		_ = up.Wait()                                                   // killed, or done before
		timer.Stop()
		if err := Down(t.Context(), TestName); err != nil {
			t.Errorf("down after up was killed at %s: %v", life, err)
		}
		compare(t, fmt.Sprintf("after up was killed at %s and down", life), before, hostTraces(t))
	}
}

// compare tells which parts differ, and where they begin to.
func compare(t *testing.T, when string, before, after map[string]string) {
	t.Helper()
	for _, key := range sortedKeys(before) {
		old, now := strings.Split(before[key], "\n"), strings.Split(after[key], "\n")
		for i := range max(len(old), len(now)) {
			was, is := "(nothing)", "(nothing)"
			if i < len(old) {
				was = old[i]
			}
			if i < len(now) {
				is = now[i]
			}
			if was != is {
				t.Errorf("%s, %s differs at line %d:\n  was %s\n  is  %s", when, key, i+1, was, is)
				break
			}
		}
	}
}

// changing are sysctls that nobody sets: counters and the like.
var changing = regexp.MustCompile(`/(random|pty|ns_last_pid|nf_conntrack_count|file-nr|inode-nr|inode-state|dentry-state|nr|quota)(/|$)`)

// hostNetwork is what the host's network is like, and what else a lab could
// change while it is up.
func hostNetwork(t *testing.T) map[string]string {
	t.Helper()
	seen := map[string]string{}
	for _, command := range []string{
		"ip -d link", "ip address", "ip route show table all", "ip -6 route show table all", "ip rule", "ip -6 rule", "ip netns", "nft list ruleset",
	} {
		output, err := exec.CommandContext(t.Context(), "sh", "-c", command).Output()
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		// Lifetimes of leases and router advertisements run on.
		seen[command] = regexp.MustCompile(`(valid_lft|preferred_lft|expires) \S+`).ReplaceAllString(string(output), "")
	}
	for _, dir := range []string{"/proc/sys/net", "/proc/sys/vm", "/proc/sys/kernel", "/proc/sys/fs"} {
		seen[dir] = tree(t, dir, func(path string) string {
			if changing.MatchString(path) {
				return ""
			}
			return readFile(path)
		})
	}
	seen["/etc"] = tree(t, "/etc", func(path string) string {
		return fmt.Sprintf("%x", sha256.Sum256([]byte(readFile(path))))
	})
	return seen
}

// hostTraces is what a lab makes on the host, and must take away. Those of
// other labs do not count.
func hostTraces(t *testing.T) map[string]string {
	t.Helper()
	seen := map[string]string{}
	var mounts []string
	for _, line := range strings.Split(readFile("/proc/self/mountinfo"), "\n") {
		if _, rest, ok := strings.Cut(line, " "); ok {
			mounts = append(mounts, rest)
		}
	}
	seen["mounts"] = strings.Join(mounts, "\n")
	for _, dir := range []string{stateRoot, "/var/lib/fairlead-lab", "/sys/fs/cgroup"} {
		var ours []string // there are cgroups that others make and remove
		for line := range strings.Lines(tree(t, dir, func(string) string { return "" })) {
			if strings.Contains(line, "fairlead-lab") {
				ours = append(ours, line)
			}
		}
		seen[dir] = strings.Join(ours, "")
	}
	var processes []string
	paths, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		// A process without a command line has ended, and waits for its parent to see.
		command := readFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if command != "" && strings.Contains(readFile(path), "/fairlead-lab/"+TestName+"/") {
			processes = append(processes, strings.ReplaceAll(command, "\x00", " "))
		}
	}
	seen["processes"] = strings.Join(processes, "\n")
	return seen
}

// tree lists the files below dir with what describe says of them. Files that
// other labs have are left out.
func tree(t *testing.T, dir string, describe func(path string) string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile, or none is there
		}
		if err != nil {
			return err
		}
		if strings.Contains(path, "fairlead-lab") && !strings.Contains(path+"/", "fairlead-lab/"+TestName+"/") {
			return nil
		}
		line := path
		if entry.Type().IsRegular() {
			line += " " + strings.TrimSpace(describe(path))
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrPermission) {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}
