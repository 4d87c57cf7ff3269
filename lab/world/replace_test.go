package world

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestReplacePort(t *testing.T) {
	w := boot(t)
	mustGet(t, w, "n1", "10.2.0.13", "n3")
	before := output(t, w, "n1", "cat", "/sys/class/net/eth0/ifindex")
	if err := w.ReplacePort(t.Context(), "n1", "eth0"); err != nil {
		t.Fatal(err)
	}
	if after := output(t, w, "n1", "cat", "/sys/class/net/eth0/ifindex"); after == before {
		t.Errorf("eth0 is the same interface as before, %s", after)
	}
	mustGet(t, w, "n1", "10.2.0.13", "n3") // through its gateway
	mustGet(t, w, "n2", "fd00:1::11", "n1")
	if err := w.ReplacePort(t.Context(), "n1", "eth7"); err == nil {
		t.Error("a port that is not there is no error")
	}
}

func TestChangeMachine(t *testing.T) {
	w := boot(t)
	ctx := t.Context()
	m, err := w.machine("n1")
	if err != nil {
		t.Fatal(err)
	}
	m.Ports[0].Addresses[0] = netip.MustParsePrefix("10.1.0.99/24")
	if err := w.ChangeMachine(ctx, m); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("changing a machine that runs: %v", err)
	}
	if err := w.StopMachine(ctx, "n1", false); err != nil {
		t.Fatal(err)
	}
	if err := w.ChangeMachine(ctx, m); err != nil {
		t.Fatal(err)
	}
	if err := w.StartMachine(ctx, "n1"); err != nil {
		t.Fatal(err)
	}
	mustGet(t, w, "n2", "10.1.0.99", "n1")
	mustNotGet(t, w, "n2", "10.1.0.11")
}

func TestProcesses(t *testing.T) {
	w := boot(t)
	pids, err := w.Processes("n1")
	if err != nil {
		t.Fatal(err)
	}
	states, err := w.Machines()
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range states {
		for _, service := range state.Services {
			if got := slices.Contains(pids, service.PID); got != (state.Name == "n1") {
				t.Errorf("%s of machine %s is among the processes of n1: %v", service.Name, state.Name, got)
			}
		}
	}
	if slices.Contains(pids, os.Getpid()) {
		t.Error("who asks is a process of the machine")
	}
}
