// Command scale measures the agent in large clusters whose objects are
// simulated: an API server on loopback has nodes and pods as large as real ones,
// and the real agent, a process of its own in a network namespace with an uplink
// to nowhere, follows it. It prints what the agent takes and how fast it is.
//
// It makes network namespaces of its own, without a link to the machine's
// network, and wants the machine for itself. It must be root.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

// inTask has the task of a process that this program has started.
const inTask = "FAIRLEAD_BENCH_TASK"

func main() {
	runtime.LockOSThread() // what /proc/self shows stays what it is
	var err error
	if text := os.Getenv(inTask); text != "" {
		err = child(context.Background(), text)
	} else {
		err = parent()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(ctx context.Context, text string) error {
	var t task
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return fmt.Errorf("read the task: %w", err)
	}
	// What simulates the API server keeps much, and collecting its garbage would take a
	// processor from the agent for a second, of which no real one would know.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(6 << 30)
	var result any
	var err error
	if t.Agents > 0 {
		debug.SetMemoryLimit(14 << 30)
		result, err = storms(ctx, t.Agents)
	} else {
		result, err = measure(ctx, t)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func parent() error {
	var t task
	nodes := flag.Int("nodes", 0, "nodes of one cluster to measure instead of all")
	pods := flag.Int("pods", 50_000, "pods of that cluster")
	flag.IntVar(&t.Services, "services", 0, "Services of that cluster")
	flag.IntVar(&t.Endpoints, "endpoints", 10, "endpoints of each Service")
	flag.IntVar(&t.Policies, "policies", 0, "NetworkPolicies of that cluster, of which 200 pods of the node are then")
	runs := flag.Int("runs", 3, "runs with 1,000 nodes")
	agents := flag.Int("agents", 1000, "agents that are simulated for what all do at once; 0: none")
	flag.DurationVar(&t.Rest, "rest", 30*time.Second, "how long an agent is watched at rest")
	flag.StringVar(&t.Heap, "heap", "", "file for a profile of the agent's heap at rest")
	flag.StringVar(&t.Processor, "cpu", "", "file for a profile of what the processors do for an agent that is restarted")
	programs := flag.String("programs", "", "directory of fairlead and fairlead-cni to measure, in the place of those that are built")
	flag.Parse()
	dir, err := os.MkdirTemp("", "fairlead-bench-scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if t.Programs = *programs; t.Programs == "" {
		if err := build(dir); err != nil {
			return err
		}
		t.Programs = dir
	}
	small, large := t, t
	small.Nodes, small.Pods, large.Nodes, large.Pods = 1000, 50_000, 5000, 150_000
	served := small
	served.Services, served.Endpoints = 10_000, 10
	policed := small
	policed.Policies = 10_000
	sizes, times := []task{small, served, policed, large}, []int{*runs, *runs, *runs, 1}
	if *nodes > 0 {
		t.Nodes, t.Pods = *nodes, *pods
		sizes, times = []task{t}, []int{*runs}
	}
	results := make([][]figures, len(sizes))
	for i, size := range sizes {
		for n := range times[i] {
			fmt.Fprintf(os.Stderr, "%s: run %d of %d\n", size, n+1, times[i])
			var f figures
			if err := run(size, &f); err != nil {
				return err
			}
			results[i] = append(results[i], f)
		}
	}
	printFigures(os.Stdout, sizes, results)
	if *agents == 0 {
		return nil
	}
	t.Agents = *agents
	var all []storm
	if err := run(t, &all); err != nil {
		return err
	}
	printStorms(os.Stdout, *agents, all)
	return nil
}

// build is while there is a network.
func build(dir string) error {
	for _, program := range []string{"fairlead", "fairlead-cni"} {
		command := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, program),
			"github.com/fairlead-net/fairlead/cmd/"+program)
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", program, err, out)
		}
	}
	return nil
}

// run does a task in a process that has no network.
func run(t task, result any) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), inTask+"="+string(text))
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := command.Output()
	if err != nil {
		return fmt.Errorf("measure %s, %d agents: %w", t, t.Agents, err)
	}
	return json.Unmarshal(out, result)
}
