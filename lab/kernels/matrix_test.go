package kernels

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	kernelFlag  = flag.String("kernels", "", "run the tests in the emulator on these, or on all: 6.1,6.12")
	packageFlag = flag.String("packages", "", "run only these suites: agent,lab/world")
	testFlag    = flag.String("tests", "", "run only tests of the suites that match this expression, also those that are left out else")
)

// What a suite may take on a kernel that is emulated, and a kernel in all.
const (
	suiteLimit  = 7 * time.Minute
	kernelLimit = 20 * time.Minute
)

// places are where unpacked kernels stay, and a directory that is gone after
// the test.
func places(t *testing.T) (cache, work string) {
	t.Helper()
	if *kernelFlag == "" {
		t.Skip("takes minutes and an emulator: run make test-kernels")
	}
	base, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(base, "fairlead-lab", "kernels")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	work, err = os.MkdirTemp(cache, "run-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(work); err != nil {
			t.Error(err)
		}
	})
	return cache, work
}

func chosen() []Kernel {
	return slices.DeleteFunc(Kernels(), func(k Kernel) bool {
		return *kernelFlag != "all" && !slices.Contains(strings.Split(*kernelFlag, ","), k.Version)
	})
}

// TestKernels runs the suites on Debian's kernels, at most as many at a time as
// go test -parallel says.
func TestKernels(t *testing.T) {
	cache, work := places(t)
	suites := Suites()
	if *packageFlag != "" {
		wanted := strings.Split(*packageFlag, ",")
		suites = slices.DeleteFunc(suites, func(s Suite) bool { return !slices.Contains(wanted, s.Package) })
	}
	compiled := compile(t, work, suites)
	var columns []*Column
	begin := time.Now()
	// It runs after the last of the parallel subtests.
	t.Cleanup(func() {
		t.Logf("%d kernels in %.0fs:\n\n%s", len(columns), time.Since(begin).Seconds(), Matrix(suites, columns))
	})
	for _, kernel := range chosen() {
		image, err := kernel.Fetch(t.Context(), cache)
		if err != nil {
			t.Error(err)
			continue
		}
		run := &run{image: image, binaries: work, share: filepath.Join(work, image.Release),
			Column: Column{Release: image.Release, Results: map[string]Result{}, Features: map[string]bool{}}}
		columns = append(columns, &run.Column)
		for _, suite := range suites {
			if !suite.RunsOn(kernel.Version) {
				reason := fmt.Sprintf("all: needs Linux %s (%s)", suite.Since, suite.Needs)
				run.Results[suite.Package] = Result{Status: Skipped, Skips: []string{reason}}
			} else if slices.Contains(compiled, suite) {
				run.suites = append(run.suites, suite)
			}
		}
		t.Run(kernel.Version, func(t *testing.T) {
			t.Parallel()
			run.boot(t)
		})
	}
}

func flat(name string) string { return strings.ReplaceAll(name, "/", "-") }

// compile makes the binaries of the suites. One that does not compile fails,
// the others run.
func compile(t *testing.T, work string, suites []Suite) (compiled []Suite) {
	for _, s := range suites {
		cmd := exec.Command("go", "test", "-c", "-o", filepath.Join(work, flat(s.Package)+".test"), "./"+s.Package)
		cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("compile %s: %v\n%s", s.Package, err, out)
			continue
		}
		compiled = append(compiled, s)
	}
	// Tests of the agent build programs, for which a guest has no network: their
	// modules have to be there.
	if slices.ContainsFunc(compiled, func(s Suite) bool { return s.Package == "agent" }) {
		programs := exec.Command("go", "test", "-count=1", "-run=^$", "./agent")
		programs.Dir, programs.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := programs.CombinedOutput(); err != nil {
			t.Errorf("build what the agent's tests run: %v\n%s", err, out)
		}
	}
	return compiled
}

// run is of the suites on a kernel.
type run struct {
	image    Image
	binaries string
	share    string
	suites   []Suite
	Column
	suite string // that runs
	since time.Time
}

func (r *run) boot(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), kernelLimit, fmt.Errorf("not off after %v", kernelLimit))
	defer cancel()
	if err := os.Mkdir(r.share, 0o755); err != nil {
		t.Fatal(err)
	}
	r.since = time.Now()
	guest := Guest{Image: r.image, Share: r.share, Script: r.script(t), Memory: 3072}
	err := guest.Run(ctx, func(line string) { r.report(t, line) })
	if err == nil {
		return
	}
	if r.suite != "" {
		r.Results[r.suite] = Result{Status: Crashed, Took: time.Since(r.since)}
	}
	t.Errorf("%s, while it ran %q: %v", r.Release, r.suite, err)
}

// script runs each suite where its package is, as go test does, and looks for
// the features.
func (r *run) script(t *testing.T) string {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	script := "ip link set lo up\necho booted >&3\n"
	for _, s := range r.suites {
		skip := s.Skip
		if *testFlag != "" {
			skip = ""
		}
		script += fmt.Sprintf("echo 'begin %[1]s' >&3\ncd %[2]s && %[3]s -test.v -test.short -test.timeout=%[4]v -test.run=%[5]s -test.skip=%[6]s >%[7]s 2>&1\necho \"end $? %[1]s\" >&3\n",
			s.Package, quote(filepath.Join(root, s.Package)), quote(filepath.Join(r.binaries, flat(s.Package)+".test")), suiteLimit,
			quote(*testFlag), quote(skip), quote(filepath.Join(r.share, flat(s.Package)+".log")))
	}
	// Last: a module that is loaded for it may put devices into every namespace.
	for _, f := range Features() {
		script += fmt.Sprintf("unshare -n sh -c %s >&2; echo \"feature $? %s\" >&3\n", quote(f.Probe), f.Name)
	}
	return script + "echo done >&3\n"
}

// report takes a line of the script.
func (r *run) report(t *testing.T, line string) {
	verb, rest, _ := strings.Cut(line, " ")
	status, name, _ := strings.Cut(rest, " ")
	switch verb {
	case "booted":
		t.Logf("booted in %.0fs", time.Since(r.since).Seconds())
	case "feature":
		r.Features[name] = status == "0"
	case "begin":
		r.suite, r.since = rest, time.Now()
	case "end":
		r.ended(t, status, time.Since(r.since))
		r.suite = ""
	}
}

// ended takes the end of the suite that runs.
func (r *run) ended(t *testing.T, status string, took time.Duration) {
	log, err := os.ReadFile(filepath.Join(r.share, flat(r.suite)+".log"))
	if err != nil {
		t.Error(err)
	}
	result := ParseLog(string(log), status == "0", took)
	r.Results[r.suite] = result
	t.Logf("%s: %s %s", r.suite, result, strings.Join(result.Slow, ", "))
	if result.Status == Failed {
		t.Errorf("%s failed on %s: %s\n%s", r.suite, r.Release, strings.Join(result.Fails, ", "), log)
	}
}

// TestGuestEnds: a kernel that panics or hangs is told from one that is done,
// with what its console said.
func TestGuestEnds(t *testing.T) {
	cache, work := places(t)
	for _, kernel := range chosen()[:1] {
		image, err := kernel.Fetch(t.Context(), cache)
		if err != nil {
			t.Fatal(err)
		}
		guest := Guest{Image: image, Share: work, Memory: 512}

		guest.Script = "echo c >/proc/sysrq-trigger"
		err = guest.Run(t.Context(), func(line string) { t.Errorf("it said %q", line) })
		if !errors.Is(err, ErrCrashed) || !strings.Contains(err.Error(), "Kernel panic") {
			t.Errorf("a panic: %v", err)
		}

		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("long enough")
		guest.Script = "echo looping >&3; echo last words >/dev/ttyS0; while :; do sleep 9; done"
		err = guest.Run(ctx, func(string) { cancel(cause) })
		if !errors.Is(err, ErrHung) || !errors.Is(err, cause) {
			t.Errorf("a hang: %v", err)
		}
	}
}
