package lab

import (
	"context"
	"io"
	"os"
	"regexp"
	"strings"
)

// TestName is the name of the lab that tests use. Only one runs at a time, and
// each clears what a crash of the one before left.
const TestName = "test"

// keepVariable in the environment, if not empty, leaves the lab of a failed
// test as it is.
const keepVariable = "FAIRLEAD_LAB_KEEP"

// T is what Start needs of testing.TB.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	Context() context.Context
	Output() io.Writer
}

// Start makes a lab for a test and removes it when the test ends. It waits for
// the labs of other tests on this host. When the test has failed, it shows the
// state of the cluster and the last complaints of each service first.
func Start(t T, config Config) *Lab {
	t.Helper()
	unlock, err := LockHost(t.Context())
	if err != nil {
		t.Fatalf("waiting for other labs: %v", err)
	}
	t.Cleanup(unlock)
	config.Name = TestName
	return begin(t, config)
}

// begin is Start for who has locked the host, with a name that nobody else uses.
func begin(t T, config Config) *Lab {
	t.Helper()
	if err := Down(t.Context(), config.Name); err != nil {
		t.Fatalf("clearing an earlier lab: %v", err)
	}
	t.Cleanup(func() {
		ctx := context.Background() // that of the test has ended
		if t.Failed() {
			explain(ctx, t, config.Name)
			if os.Getenv(keepVariable) != "" {
				return
			}
		}
		if err := Down(ctx, config.Name); err != nil {
			t.Fatalf("removing the lab: %v", err)
		}
	})
	l, err := Up(t.Context(), config, t.Output())
	if err != nil {
		t.Fatalf("making a lab: %v", err)
	}
	return l
}

// complaint is a line above the level of information, as klog, containerd and
// etcd write it.
var complaint = regexp.MustCompile(`(?m)^([WEF]\d{4} .*|.*level=(warning|error|fatal).*|.*"level":"(error|fatal)".*)$`)

// losses has a machine tell where it may have lost packets: what its kernel and its
// rules have counted.
const losses = `nstat -as | grep -E "Discard|Drop|NoRoute|Overflow|Err"; nft list ruleset | grep -E "packets [1-9].*drop"; true`

// explain shows what may tell why a test failed.
func explain(ctx context.Context, t T, name string) {
	l, err := Open(name)
	if err != nil {
		t.Logf("there is no lab to look at: %v", err)
		return
	}
	var text strings.Builder
	if err := l.WriteStatus(ctx, &text); err != nil {
		t.Logf("the lab does not tell its status: %v", err)
	}
	for _, argv := range [][]string{
		{"get", "pods,services", "--all-namespaces", "--output=wide"},
		{"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp", "--field-selector=type!=Normal"},
		{"logs", "--namespace=kube-system", "--selector=app.kubernetes.io/part-of=fairlead", "--prefix", "--tail=15"},
	} {
		output, err := l.Kubectl(ctx, append(argv, "--request-timeout=10s")...)
		if err != nil {
			output += err.Error()
		}
		text.WriteString("\nkubectl " + strings.Join(argv, " ") + ":\n" + output)
	}
	for _, node := range l.Nodes() {
		output, err := l.Exec(ctx, node.Name, "sh", "-c", losses)
		if err != nil {
			output += err.Error()
		}
		text.WriteString("\npackets that " + node.Name + " has dropped:\n" + lastLines(output, 20))
	}
	machines, err := l.world.Machines()
	if err != nil {
		t.Logf("the machines of the lab cannot be listed: %v", err)
	}
	for _, machine := range machines {
		for _, service := range machine.Services {
			log := readFile(l.world.LogPath(machine.Name, service.Name))
			if found := complaint.FindAllString(log, -1); len(found) > 0 {
				text.WriteString("\n" + service.Name + " on " + machine.Name + ":\n" + lastLines(strings.Join(found, "\n"), 6))
			}
		}
	}
	t.Logf("%s", text.String())
}

// Program returns the path of the fairlead that the lab runs.
func (l *Lab) Program() string { return l.state.Fairlead }
