// Command cni measures how long a container runtime waits for a pod's network:
// the plugin as a whole process with an agent that programs all data planes,
// beside the reference plugins bridge and host-local, in turns (A B B A …), and
// the agent's own part of it. It prints medians, 99th percentiles and the median
// ratio of the pairs with its 95 % interval. Pods have IPv4 alone: with IPv6, the
// reference plugins wait for duplicate address detection, which would flatter.
//
// It makes network namespaces of its own, without a link to the machine's
// network, and runs alone on it. It must be root.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/fairlead-net/fairlead/bench/cni/reference"
)

// inNode tells the process that it is in the node's namespace, and where what
// was built is.
const inNode = "FAIRLEAD_BENCH_NODE"

func main() {
	runtime.LockOSThread() // what /proc/self shows stays what it is
	pairs := flag.Int("pairs", 200, "pairs of pods")
	pods := flag.Int("pods", 50, "pods that are there meanwhile")
	flag.Parse()
	err := prepare()
	if dir := os.Getenv(inNode); dir != "" {
		err = measure(context.Background(), dir, *pods, *pairs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// prepare builds the plugins while there is a network, and then runs the program
// again in a namespace that has none.
func prepare() error {
	if os.Getenv(inNode) != "" {
		return nil
	}
	dir, err := os.MkdirTemp("", "fairlead-bench-cni-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "fairlead-cni"),
		"github.com/fairlead-net/fairlead/cmd/fairlead-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the plugin: %w\n%s", err, out)
	}
	if err := reference.Build(context.Background(), dir, "main/bridge", "ipam/host-local"); err != nil {
		return err
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), inNode+"="+dir)
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return again.Run()
}
