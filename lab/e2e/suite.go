package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-net/fairlead/lab"
	"github.com/fairlead-net/fairlead/lab/build"
	"github.com/fairlead-net/fairlead/lab/image"
)

// suite is upstream's tests, built.
type suite struct {
	build.E2E
	tools   image.Layer // for its images
	coredns string      // path of a CoreDNS that knows the plugin hosts, for its images; empty: they have none
	out     string      // directory of the reports
}

// report is what Ginkgo writes of one spec.
type report struct {
	ContainerHierarchyTexts []string
	LeafNodeType            string
	LeafNodeText            string
	State                   string // passed, failed, panicked, timedout, interrupted, aborted, skipped or pending
	RunTime                 time.Duration
	Failure                 struct{ Message string }
}

// name is the full name of the spec, by which it is chosen too.
func (r report) name() string {
	return strings.Join(append(r.ContainerHierarchyTexts[:len(r.ContainerHierarchyTexts):len(r.ContainerHierarchyTexts)], r.LeafNodeText), " ")
}

// names returns the names of all specs, from a dry run.
func (s suite) names(ctx context.Context) ([]string, error) {
	path := filepath.Join(s.out, "specs.json")
	command := exec.CommandContext(ctx, s.Test, "--ginkgo.dry-run", "--ginkgo.json-report="+path, "--provider=skeleton", "--host=http://127.0.0.1:1")
	if output, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("listing the tests: %w\n%s", err, output)
	}
	reports, err := readReport(path)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(reports))
	for i, r := range reports {
		names[i] = r.name()
	}
	slices.Sort(names)
	return names, nil
}

// run runs specs in the lab and returns the reports of all that the suite has.
// That some failed is no error. What they write goes to e2e.log, and what
// Ginkgo says of it to the output too.
func (s suite) run(ctx context.Context, l *lab.Lab, names []string, procs int) ([]report, error) {
	if len(names) == 0 {
		return nil, errors.New("no spec is to run; --list shows their names")
	}
	log, err := os.Create(filepath.Join(s.out, "e2e.log"))
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	defer log.Close()
	path := filepath.Join(s.out, "report.json")
	if err := os.RemoveAll(path); err != nil { // a run that dies leaves none
		return nil, fmt.Errorf("removing the last report: %w", err)
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = regexp.QuoteMeta(name)
	}
	command := exec.CommandContext(ctx, s.Ginkgo,
		"--procs="+strconv.Itoa(procs), "--timeout=4h", "--no-color", "--keep-going", "--silence-skips",
		"--output-dir="+s.out, "--json-report=report.json", "--junit-report=junit.xml",
		// It is matched with the name of the suite before that of the spec.
		"--focus= ("+strings.Join(quoted, "|")+")$",
		s.Test, "--",
		// Else only the first of the processes would count them.
		"--num-nodes="+strconv.Itoa(len(l.Nodes())),
		"--provider=skeleton", "--kubeconfig="+l.Kubeconfig(), "--kubectl-path="+l.KubectlCommand(ctx).Path,
		"--disable-log-dump", "--dump-logs-on-failure", "--e2e-output-dir="+s.out)
	// Ginkgo and its processes are a group, and are told to end as by a terminal.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGINT) }
	command.WaitDelay = 30 * time.Second // specs mend what they changed
	command.Stdout = io.MultiWriter(os.Stdout, log)
	command.Stderr = command.Stdout
	fmt.Printf("running %d specs, %d at a time\n", len(names), procs)
	failed := command.Run()
	if ctx.Err() != nil {
		if command.Process != nil {
			_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) // who has not ended yet
		}
		return nil, fmt.Errorf("running the tests: %w", context.Cause(ctx))
	}
	reports, err := readReport(path)
	if err != nil {
		return nil, errors.Join(failed, err)
	}
	return reports, nil
}

func readReport(path string) ([]report, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading what the tests report: %w", err)
	}
	var suites []struct{ SpecReports []report }
	if err := json.Unmarshal(content, &suites); err != nil {
		return nil, fmt.Errorf("reading what the tests report in %s: %w", path, err)
	}
	var all []report
	for _, suite := range suites {
		all = append(all, suite.SpecReports...)
	}
	return all, nil
}
