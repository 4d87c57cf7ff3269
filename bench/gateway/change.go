package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

const changeVerb = "change"

// changing is what is asked of the gateway while its routes change.
type changing struct {
	routes   int           // Ingresses, each of a host of its own
	changes  int           // of routes, each second
	rollouts int           // of Services, each second
	rotated  int           // certificates, each second
	requests int           // each second
	sockets  int           // WebSockets that are open all the while
	grace    time.Duration // from when nobody is led to a pod any more until it ends
	during   time.Duration
	program  string // fairlead; empty: that of this checkout is built
	heap     string // a file for a profile of its memory; empty: none
	dir      string
}

// usualChange is what docs/ingress.md tells of.
func usualChange() changing {
	return changing{routes: 5000, changes: 50, rollouts: 5, rotated: 2, requests: 2000, sockets: 100, grace: 5 * time.Second, during: time.Minute}
}

// change is the program of the verb.
func change(args []string) error {
	c := usualChange()
	flags := flag.NewFlagSet(changeVerb, flag.ExitOnError)
	flags.IntVar(&c.routes, "routes", c.routes, "Ingresses, each of a host of its own")
	flags.IntVar(&c.changes, "changes", c.changes, "changes of routes each second")
	flags.IntVar(&c.rollouts, "rollouts", c.rollouts, "Services each second whose pods are replaced")
	flags.IntVar(&c.rotated, "rotated", c.rotated, "certificates each second that are replaced")
	flags.IntVar(&c.requests, "requests", c.requests, "requests each second")
	flags.IntVar(&c.sockets, "sockets", c.sockets, "WebSockets that are open")
	flags.DurationVar(&c.grace, "grace", c.grace, "from when nobody is led to a pod any more until it ends")
	flags.DurationVar(&c.during, "during", c.during, "how long")
	flags.StringVar(&c.program, "fairlead", "", "the program; empty: that of this checkout is built")
	flags.StringVar(&c.heap, "heap", "", "a file for a profile of the gateway's memory")
	_ = flags.Parse(args)
	if did, err := apart(); did || err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fairlead-bench-gateway-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c.dir = dir
	r, err := c.measure(context.Background())
	if err != nil {
		return err
	}
	r.print()
	return r.failed()
}

// build makes the program unless there is one.
func (c *changing) build() error {
	if c.program != "" {
		return nil
	}
	c.program = filepath.Join(c.dir, "fairlead")
	compile := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", c.program, "github.com/fairlead-net/fairlead/cmd/fairlead")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		return fmt.Errorf("build fairlead: %w\n%s", err, out)
	}
	return nil
}

// result is what was seen.
type result struct {
	changing
	start             time.Duration // from the start of the process until it is ready
	live, certs       samples       // from the API server's event until a client sees it
	plain, secure, h2 samples       // requests
	echoes            samples       // on WebSockets
	rolled            int
	late              time.Duration // how long after its end a pod was called, at most
	problems          []string      // what failed
	resident, peak    int64
	cpu               time.Duration
}

// samples are how long something took, each time.
type samples struct {
	mu  sync.Mutex
	all []time.Duration
}

func (s *samples) add(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, d)
}

func (s *samples) at(percent float64) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.all))
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*percent/100))]
}

// measure runs the gateway, and changes what it serves under load.
func (c changing) measure(ctx context.Context) (*result, error) {
	r := &result{changing: c}
	if err := r.build(); err != nil {
		return nil, err
	}
	w, err := newWorld(&r.changing)
	if err != nil {
		return nil, err
	}
	defer w.close()
	began := time.Now()
	g, err := startGateway(ctx, w)
	if err != nil {
		return nil, err
	}
	defer g.stop()
	r.start = time.Since(began)
	t := &traffic{world: w, gateway: g, result: r}
	before, err := g.cpu()
	if err != nil {
		return nil, err
	}
	if err := t.run(ctx); err != nil {
		return nil, err
	}
	after, err := g.cpu()
	r.cpu = after - before
	r.resident, r.peak = g.memory()
	r.late = w.pods.late
	if c.heap != "" {
		err = errors.Join(err, g.save("debug/pprof/heap", c.heap))
	}
	return r, err
}

// Bars of the figures: docs/ingress.md.
const (
	barLive   = 30 * time.Millisecond // 99 of 100 changes
	barMemory = 100 << 20
)

func (r *result) failed() (err error) {
	if n := len(r.problems); n > 0 {
		err = fmt.Errorf("%d requests or WebSockets failed, among them:\n%s", n, strings.Join(r.problems[:min(n, 10)], "\n"))
	}
	if p99 := r.live.at(99); p99 > barLive {
		err = errors.Join(err, fmt.Errorf("a change is live after %v (p99), and %v is the bar", p99, barLive))
	}
	if r.peak > barMemory {
		err = errors.Join(err, fmt.Errorf("%d MB are too many, and %d are the bar", r.peak>>20, barMemory>>20))
	}
	return err
}

func (r *result) print() {
	load, _ := os.ReadFile("/proc/loadavg")
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%d routes, %v; load of the machine %s\n\t\tp50\tp99\tmost\n", r.routes, r.during, strings.TrimSpace(string(load)))
	for _, line := range []struct {
		name string
		of   *samples
	}{
		{"routes changed, until live", &r.live}, {"certificates rotated, until live", &r.certs},
		{"requests, HTTP/1.1", &r.plain}, {"requests, HTTP/1.1 and TLS", &r.secure}, {"requests, HTTP/2", &r.h2}, {"messages on WebSockets", &r.echoes},
	} {
		fmt.Fprintf(table, "%s\t%d\t%v\t%v\t%v\n", line.name, len(line.of.all), line.of.at(50), line.of.at(99), line.of.at(100))
	}
	fmt.Fprintf(table, "Services rolled out\t%d\n", r.rolled)
	fmt.Fprintf(table, "calls of a pod, after its end, at most\t%v\n", r.late)
	fmt.Fprintf(table, "failed\t%d\n", len(r.problems))
	fmt.Fprintf(table, "start, until ready\t%v\n", r.start.Round(time.Millisecond))
	fmt.Fprintf(table, "memory (RSS), at the end and at most\t%s\t%s\n", megabytes(r.resident), megabytes(r.peak))
	fmt.Fprintf(table, "CPU, of a core\t%.0f %%\n", 100*r.cpu.Seconds()/r.during.Seconds())
	_ = table.Flush()
}

func megabytes(n int64) string { return strconv.FormatInt(n/1e6, 10) + " MB" }
