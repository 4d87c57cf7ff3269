package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-net/fairlead/lab/build"
)

// startBench is a bench with kube-proxy, if the lab has built it; nothing is built
// for it here, which takes up to 20 minutes. Without it, Fairlead is compared with
// its oracle all the same.
func startBench(t *testing.T, c config) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	program, err := build.Request{}.BuiltKubernetes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if program != "" {
		program = filepath.Join(program, "kube-proxy")
	} else {
		t.Log("kube-proxy is left out: fairlead lab up builds it")
	}
	b, err := newBench(t.Context(), program, t.TempDir(), c)
	t.Cleanup(b.close)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestStates tries some states of one seed: make differ tries many.
func TestStates(t *testing.T) {
	b := startBench(t, config{})
	s := newState(1, 0)
	for state := range 8 {
		findings, err := b.try(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findings {
			t.Errorf("state %d: %s\n%s", state+1, f, s.describe(f.call))
		}
	}
	t.Log(&b.tally)
}
