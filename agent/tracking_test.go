package agent

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

// settings makes a directory of sysctls of connection tracking, as the kernel
// has them.
func settings(t *testing.T, changed map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	all := map[string]string{
		"max": "65536", "buckets": "16384", "tcp_timeout_established": "432000", "tcp_timeout_close_wait": "60", "tcp_be_liberal": "0",
	}
	maps.Copy(all, changed)
	dir := filepath.Join(root, filepath.Dir(trackingPrefix))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, value := range all {
		if err := os.WriteFile(filepath.Join(root, trackingPrefix+name), []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// formers makes a tracking that notes what it changes.
func formers(t *testing.T, root string, log *strings.Builder) (*tracking, *[]string) {
	changes := &[]string{}
	return &tracking{
		root: root, log: slog.New(slog.NewTextHandler(log, nil)),
		former: func(path, was, set string) {
			*changes = append(*changes, fmt.Sprintf("%s %s to %s", strings.TrimPrefix(path, trackingPrefix), was, set))
		},
	}, changes
}

// TestTracking: what is smaller than it should be is raised, and times are
// changed that nobody has; what an administrator has set stays.
func TestTracking(t *testing.T) {
	tests := map[string]struct {
		cpus    int
		changed map[string]string
		want    []string
	}{
		"as the kernel begins": {cpus: 2, want: []string{
			"buckets 16384 to 32768", "max 65536 to 131072", "tcp_be_liberal 0 to 1",
			"tcp_timeout_close_wait 60 to 3600", "tcp_timeout_established 432000 to 86400",
		}},
		"a large machine": {
			cpus: 8, changed: map[string]string{"tcp_be_liberal": "1", "tcp_timeout_close_wait": "61", "tcp_timeout_established": "431999"},
			want: []string{"buckets 16384 to 65536", "max 65536 to 262144"},
		},
		"a very large one": {
			cpus: 500, changed: map[string]string{"tcp_be_liberal": "1", "tcp_timeout_close_wait": "7200", "tcp_timeout_established": "600"},
			want: []string{"buckets 16384 to 262144", "max 65536 to 1048576"},
		},
		"more than is asked for": {
			cpus: 2, changed: map[string]string{"max": "200000", "buckets": "50000", "tcp_be_liberal": "1"},
			want: []string{"tcp_timeout_close_wait 60 to 3600", "tcp_timeout_established 432000 to 86400"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			root := settings(t, test.changed)
			tracking, changes := formers(t, root, &strings.Builder{})
			tracking.set(test.cpus)
			slices.Sort(*changes)
			if !slices.Equal(*changes, test.want) {
				t.Errorf("changed %q, want %q", *changes, test.want)
			}
			for _, change := range *changes {
				name, values, _ := strings.Cut(change, " ")
				_, want, _ := strings.Cut(values, " to ")
				text, err := os.ReadFile(filepath.Join(root, trackingPrefix+name))
				if got := strings.TrimSpace(string(text)); err != nil || got != want {
					t.Errorf("%s is %s, want %s (%v)", name, got, want, err)
				}
			}
			*changes = nil
			if tracking.set(test.cpus); len(*changes) > 0 {
				t.Errorf("the second time, changed %q", *changes)
			}
		})
	}
}

// TestTrackingMissing: a kernel that does not track is no failure; nor is a
// setting that makes no sense.
func TestTrackingMissing(t *testing.T) {
	log := &strings.Builder{}
	tracking, changes := formers(t, t.TempDir(), log)
	tracking.set(2)
	if n := strings.Count(log.String(), "level=INFO"); n != 5 || len(*changes) != 0 {
		t.Errorf("changed %q, and said %d times\n%s", *changes, n, log)
	}
	log.Reset()
	tracking.root = settings(t, map[string]string{"max": "many"})
	tracking.set(2)
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || len(*changes) != 4 {
		t.Errorf("changed %q, and said %d times\n%s", *changes, n, log)
	}
}

// TestTrackingInNamespace: in a namespace, the sizes are the machine's and
// cannot be changed, which is no failure. That they are raised where they can be
// is seen in TestTrackingOfMachine.
func TestTrackingInNamespace(t *testing.T) {
	netnstest.Enter(t)
	log := &strings.Builder{}
	tracking, changes := formers(t, "/proc/sys", log)
	if _, err := os.Stat(filepath.Join(tracking.root, trackingPrefix+"max")); err != nil {
		t.Skip("the kernel has no connection tracking")
	}
	tracking.set(1000)
	slices.Sort(*changes)
	want := []string{"tcp_be_liberal 0 to 1", "tcp_timeout_close_wait 60 to 3600", "tcp_timeout_established 432000 to 86400"}
	if !slices.Equal(*changes, want) || strings.Contains(log.String(), "level=WARN") {
		t.Errorf("changed %q, want %q, and said\n%s", *changes, want, log)
	}
	for name, want := range map[string]string{"tcp_be_liberal": "1", "tcp_timeout_close_wait": "3600", "tcp_timeout_established": "86400"} {
		text, err := os.ReadFile(filepath.Join(tracking.root, trackingPrefix+name))
		if got := strings.TrimSpace(string(text)); err != nil || got != want {
			t.Errorf("%s is %s, want %s (%v)", name, got, want, err)
		}
	}
}

func TestCountRanges(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-3": 4, "0-3,6,8-9": 7, "": 0, "x": 0, "3-0": 0} {
		if got := countRanges(list); got != want {
			t.Errorf("%q has %d, want %d", list, got, want)
		}
	}
}

// TestTrackingOfMachine: outside of any namespace, the sizes are raised too, and
// what is larger stays. Only on a machine that is the tests' own: see lab/kernels.
func TestTrackingOfMachine(t *testing.T) {
	if os.Getenv("FAIRLEAD_LAB_GUEST") == "" {
		t.Skip("these settings are the whole machine's: make test-kernels has machines to itself")
	}
	if out, err := exec.Command("modprobe", "nf_conntrack").CombinedOutput(); err != nil {
		t.Fatalf("the kernel does not track: %v\n%s", err, out)
	}
	runtime.LockOSThread() // it ends with the test, since it is in another namespace
	first, err := netns.GetFromPid(1)
	must(t, err)
	defer first.Close()
	must(t, netns.Set(first))
	read := func(name string) string {
		text, err := os.ReadFile("/proc/sys/" + trackingPrefix + name)
		must(t, err)
		return strings.TrimSpace(string(text))
	}
	log := &strings.Builder{}
	tracking, changes := formers(t, "/proc/sys", log)
	tracking.set(8)
	if read("max") != "262144" || read("buckets") != "65536" || read("tcp_be_liberal") != "1" || strings.Contains(log.String(), "level=WARN") {
		t.Errorf("max is %s, buckets are %s; changed %q, and said\n%s", read("max"), read("buckets"), *changes, log)
	}
	must(t, os.WriteFile("/proc/sys/"+trackingPrefix+"max", []byte("300000"), 0))
	if tracking.set(8); read("max") != "300000" {
		t.Errorf("what somebody has set became %s", read("max"))
	}
}
