package kernels

import (
	"bytes"
	"io/fs"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestImage reads what apt-cache says of the package of all kernels.
func TestImage(t *testing.T) {
	const depends = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Breaks: <other>\n"
	if got, err := image(depends); err != nil || got != "linux-image-6.1.0-56-amd64" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := image("linux-image-amd64\n"); err == nil {
		t.Errorf("got %q of nothing", got)
	}
}

// TestLoadOrder: each module comes after what it needs, once.
func TestLoadOrder(t *testing.T) {
	const dependencies = `kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/net/9p/9pnet_virtio.ko.xz: kernel/drivers/virtio/virtio-ring.ko.xz kernel/net/9p/9pnet.ko.xz
kernel/net/9p/9pnet.ko.xz:
kernel/fs/netfs/netfs.ko.xz: kernel/fs/fscache.ko.xz
kernel/fs/fscache.ko.xz:
kernel/drivers/virtio/virtio-ring.ko.xz:
kernel/unused.ko.xz:
`
	const builtin = "kernel/drivers/virtio/virtio_pci.ko\n"
	got, err := loadOrder(dependencies, builtin, []string{"virtio_pci", "virtio_ring", "9pnet_virtio", "9p"})
	want := []string{"kernel/drivers/virtio/virtio-ring.ko.xz", "kernel/net/9p/9pnet.ko.xz", "kernel/net/9p/9pnet_virtio.ko.xz",
		"kernel/fs/fscache.ko.xz", "kernel/fs/netfs/netfs.ko.xz", "kernel/fs/9p/9p.ko.xz"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := loadOrder(dependencies, builtin, []string{"missing"}); err == nil {
		t.Error("a module that is not there was found")
	}
}

// TestCPIO compares with the bytes that the format demands.
func TestCPIO(t *testing.T) {
	var got bytes.Buffer
	if err := writeCPIO(&got, []file{{name: "d", mode: fs.ModeDir | 0o755}, {name: "d/f", mode: 0o644, body: []byte("12345")}}); err != nil {
		t.Fatal(err)
	}
	zero := strings.Repeat("0", 8)
	want := "070701" + zero + "000041ed" + zero + zero + "00000001" + zero + "00000000" + zero + zero + zero + zero + "00000002" + zero + "d\x00" +
		"070701" + "00000001" + "000081a4" + zero + zero + "00000001" + zero + "00000005" + zero + zero + zero + zero + "00000004" + zero + "d/f\x00\x00\x00" +
		"12345\x00\x00\x00" +
		"070701" + "00000002" + "00008000" + zero + zero + "00000001" + zero + "00000000" + zero + zero + zero + zero + "0000000b" + zero + "TRAILER!!!\x00\x00\x00\x00"
	if got.String() != want {
		t.Errorf("got  %q\nwant %q", got.String(), want)
	}
}

func TestParseLog(t *testing.T) {
	const log = `=== RUN   TestGood
=== RUN   TestGood/sub
--- PASS: TestGood (7.10s)
    --- PASS: TestGood/sub (7.05s)
=== RUN   TestBad
=== RUN   TestBad/sub
    bad_test.go:7: got 1
--- FAIL: TestBad (0.10s)
    --- FAIL: TestBad/sub (0.05s)
=== RUN   TestLess
    less_test.go:9: needs a nail
--- SKIP: TestLess (0.00s)
`
	got := ParseLog(log+"FAIL\n", false, time.Second)
	want := Result{Status: Failed, Took: time.Second, Passes: 2, Fails: []string{"TestBad/sub"}, Skips: []string{"TestLess: needs a nail"}, Slow: []string{"TestGood 7s"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	got = ParseLog("=== RUN   TestLong\npanic: test timed out after 1s\n", false, 0)
	if got.Status != Failed || !slices.Equal(got.Fails, []string{"TestLong"}) {
		t.Errorf("a test without an end: %+v", got)
	}
	got = ParseLog("--- FAIL: TestA (0s)\n    --- FAIL: TestInner (0s)\n--- FAIL: TestInner (0s)\n", false, 0)
	if !slices.Equal(got.Fails, []string{"TestA", "TestInner"}) {
		t.Errorf("the same name twice: %q", got.Fails)
	}
	if got := ParseLog("    a_test.go:1: no root\n--- SKIP: TestA (0.00s)\nPASS\n", true, 0); got.Status != Skipped {
		t.Errorf("only skipped: %+v", got)
	}
	if got := ParseLog("PASS\n", true, 0); got.Status != Passed {
		t.Errorf("no tests: %+v", got)
	}
}

func TestRunsOn(t *testing.T) {
	for version, want := range map[string]bool{"5.10": false, "5.14": true, "6.1": true} {
		if got := (Suite{Since: "5.14"}).RunsOn(version); got != want {
			t.Errorf("on %s: %v", version, got)
		}
	}
	if !(Suite{}).RunsOn("5.10") {
		t.Error("a suite of any kernel")
	}
}

func TestMatrix(t *testing.T) {
	suites := []Suite{{Package: "agent"}, {Package: "lab/world"}, {Package: "other"}}
	columns := []*Column{
		{Release: "5.10.0", Results: map[string]Result{
			"agent":     {Status: Passed, Took: 2 * time.Second, Passes: 3},
			"lab/world": {Status: Skipped, Skips: []string{"all: needs Linux 5.14"}}}},
		{Release: "6.1.0", Features: map[string]bool{"vxlan device": true, "IPVS": false},
			Results: map[string]Result{"agent": {Status: Crashed, Took: time.Second}}},
	}
	got := Matrix(suites, columns)
	for _, want := range []string{
		"               5.10.0 ",
		"agent          ok 2s (3 passed, 0 failed, 0 skipped)  CRASH after 1s\n",
		"lab/world      skipped 0s (0 passed, 0 failed, 1 skipped)  not run\n",
		"IPVS           not run  no\n", "vxlan device   not run  yes\n",
		"\nskipped on 5.10.0: lab/world: all: needs Linux 5.14\n",
	} {
		if fields := strings.Fields(want); !strings.Contains(strings.Join(strings.Fields(got), " "), strings.Join(fields, " ")) {
			t.Errorf("the matrix lacks %q:\n%s", want, got)
		}
	}
}

// TestSuitesComplete: packages whose tests make network namespaces are tested
// on every kernel.
func TestSuitesComplete(t *testing.T) {
	out, err := exec.Command("go", "list", "-e", "-f", `{{.ImportPath}} {{.TestImports}} {{.XTestImports}}`, "../../...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		name, imports, _ := strings.Cut(line, " ")
		name = strings.TrimPrefix(name, "github.com/fairlead-net/fairlead/")
		listed := slices.ContainsFunc(Suites(), func(s Suite) bool { return s.Package == name })
		if strings.Contains(imports, "conformance/netnstest") && !listed {
			t.Errorf("%s tests in network namespaces; add it to Suites, with its reason", name)
		}
	}
}
