package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	did, err := apart()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case !did:
		os.Exit(m.Run())
	}
}

// TestChange: while routes, endpoints and certificates change under load, nothing
// fails. How fast it is, a machine with other things to do cannot tell.
func TestChange(t *testing.T) {
	c := changing{routes: 200, changes: 20, rollouts: 5, rotated: 5, requests: 200, sockets: 10, grace: 5 * time.Second, during: 3 * time.Second, dir: t.TempDir()}
	r, err := c.measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.problems) > 0 {
		t.Errorf("failed:\n%s", strings.Join(r.problems, "\n"))
	}
	if len(r.live.all) == 0 || len(r.certs.all) == 0 || len(r.plain.all) == 0 || len(r.secure.all) == 0 || len(r.h2.all) == 0 || len(r.echoes.all) == 0 || r.rolled == 0 {
		t.Error("it did not do all of it")
	}
}
