package world

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLink(t *testing.T) {
	w := boot(t)
	ctx := t.Context()
	mustGet(t, w, "n2", "10.1.0.11", "n1")
	if err := w.SetLink(ctx, "n1", "eth0", false); err != nil {
		t.Fatal(err)
	}
	if got := output(t, w, "n1", "cat", "/sys/class/net/eth0/carrier"); got != "0" {
		t.Errorf("carrier is %s with the link down", got)
	}
	mustNotGet(t, w, "n2", "10.1.0.11")
	// A pulled cable stays pulled over a reboot.
	if err := w.StopMachine(ctx, "n1", false); err != nil {
		t.Fatal(err)
	}
	if err := w.StartMachine(ctx, "n1"); err != nil {
		t.Fatal(err)
	}
	mustNotGet(t, w, "n2", "10.1.0.11")
	if err := w.SetLink(ctx, "n1", "eth0", true); err != nil {
		t.Fatal(err)
	}
	mustGet(t, w, "n2", "10.1.0.11", "n1")
	if err := w.SetLink(ctx, "n1", "eth7", false); err == nil {
		t.Error("a port that is not there is no error")
	}
}

func TestLoss(t *testing.T) {
	w := boot(t)
	ctx := t.Context()
	mustGet(t, w, "n2", "10.1.0.11", "n1")
	if err := w.SetLoss(ctx, "n1", "eth0", 100); err != nil {
		t.Fatal(err)
	}
	mustNotGet(t, w, "n2", "10.1.0.11")
	mustNotGet(t, w, "n1", "fd00:1::12")
	mustGet(t, w, "n2", "10.2.0.13", "n3")
	if err := w.SetLoss(ctx, "n1", "eth0", 50); err != nil {
		t.Fatal(err)
	}
	// Of 200 pings over a port that loses half in each direction, a quarter
	// comes back: 50, with a standard deviation of 6.
	if got := pingCount(t, w, "n2", "10.1.0.11", 200); got < 15 || got > 85 {
		t.Errorf("%d of 200 pings answered, want about 50", got)
	}
	if err := w.SetLoss(ctx, "n1", "eth0", 0); err != nil {
		t.Fatal(err)
	}
	if got := pingCount(t, w, "n2", "10.1.0.11", 100); got != 100 {
		t.Errorf("%d of 100 pings answered without loss", got)
	}
	if err := w.SetLoss(ctx, "n1", "eth0", 101); err == nil {
		t.Error("101 percent is no error")
	}
}

func TestPartition(t *testing.T) {
	w := boot(t)
	ctx := t.Context()
	pairs := [][3]string{{"n1", "10.1.0.12", "n2"}, {"n1", "fd00:1::12", "n2"}, {"n1", "10.2.0.13", "n3"}, {"n1", "fd00:2::13", "n3"}}
	for _, p := range pairs {
		mustGet(t, w, p[0], p[1], p[2])
	}
	for _, other := range []string{"n2", "n3"} { // on the same segment, and behind the router
		if err := w.Partition(ctx, "n1", other, true); err != nil {
			t.Fatal(err)
		}
		for _, p := range pairs {
			if p[2] == other {
				mustNotGet(t, w, p[0], p[1])
			} else {
				mustGet(t, w, p[0], p[1], p[2])
			}
		}
		mustGet(t, w, "n2", "10.2.0.13", "n3")
		if err := w.Partition(ctx, other, "n1", false); err != nil { // the order does not matter
			t.Fatal(err)
		}
		for _, p := range pairs {
			mustGet(t, w, p[0], p[1], p[2])
		}
	}
}

func TestRate(t *testing.T) {
	w := newWorld(t)
	// 1 MiB at 16 Mbit/s takes half a second.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "blob"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	segments, machines := smallWorld(w.Executable)
	for i := range machines {
		machines[i].Binds = append(machines[i].Binds, Bind{Source: dir, Target: "/srv"})
		for j := range machines[i].Services {
			machines[i].Services[j].Argv = []string{"/opt/test/program", "lab", "serve-files"}
		}
	}
	if err := w.Boot(t.Context(), segments, machines); err != nil {
		t.Fatal(err)
	}
	free := fetch(t, w, "n2", "10.1.0.11")
	if err := w.SetRate(t.Context(), "n1", "eth0", 16_000_000); err != nil {
		t.Fatal(err)
	}
	fromLimited, toLimited := fetch(t, w, "n2", "10.1.0.11"), fetch(t, w, "n1", "10.1.0.12")
	t.Logf("1 MiB: %v free, %v from the limited machine, %v to it", free, fromLimited, toLimited)
	for _, took := range []time.Duration{fromLimited, toLimited} {
		if took < 300*time.Millisecond || took > 10*time.Second {
			t.Errorf("1 MiB at 16 Mbit/s took %v, want about 0.5 s", took)
		}
	}
	if err := errors.Join(w.StopMachine(t.Context(), "n1", false), w.StartMachine(t.Context(), "n1")); err != nil {
		t.Fatal(err)
	}
	if again := fetch(t, w, "n2", "10.1.0.11"); again < 300*time.Millisecond {
		t.Errorf("1 MiB took %v after a reboot: the limit is gone", again)
	}
	if err := w.SetRate(t.Context(), "n1", "eth0", 0); err != nil {
		t.Fatal(err)
	}
	if took := fetch(t, w, "n2", "10.1.0.11"); took > 250*time.Millisecond {
		t.Errorf("1 MiB took %v without a limit", took)
	}
}

// serveFiles is the service of TestRate.
func serveFiles() error {
	return http.ListenAndServe(":80", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.ServeFile(rw, r, "/srv/blob")
	}))
}

// fetch tells how long 1 MiB takes.
func fetch(t *testing.T, w *World, from, address string) time.Duration {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second) // the service may not listen yet
	for {
		begin := time.Now()
		err := w.Do(from, func() error {
			body, err := httpGet(netip.MustParseAddr(address), 30*time.Second)
			if err == nil && len(body) != 1<<20 {
				err = io.ErrUnexpectedEOF
			}
			return err
		})
		if err == nil {
			return time.Since(begin)
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestLatecomers enter a machine while it is destroyed, as a command does that
// somebody starts at this moment.
func TestLatecomers(t *testing.T) {
	w := newWorld(t)
	if err := w.Boot(t.Context(), nil, []Machine{{Name: "m"}}); err != nil {
		t.Fatal(err)
	}
	list, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	var entering sync.WaitGroup
	entering.Go(func() {
		for failed := error(nil); failed == nil; {
			cmd := exec.Command("sleep", "1")
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			for _, h := range list {
				failed = cmp.Or(failed, join(h.leaf(w.Name, "m"), cmd.Process.Pid))
			}
			_ = cmd.Wait() // killed inside, or at its end
		}
	})
	err = w.Destroy(t.Context())
	entering.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if left := traces(t, w); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}
