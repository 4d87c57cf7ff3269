// Command soak makes a lab, lets pods, Services and nodes come and go in it,
// injects faults in an order that a seed decides, and checks each second that
// what must hold holds. At the end everything is deleted again, and what is left
// then is a leak. docs/soak.md tells how to read what it writes.
//
// It is no test: it runs for hours, and what it finds need not happen again. What
// it finds becomes a story or a test of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/fairlead-net/fairlead/lab"
)

// options are the flags.
type options struct {
	time time.Duration // of faults; the lab's start and the end come on top
	seed uint64
	name string // of the lab
	out  string // directory
	keep bool
}

// errBroken says that an invariant broke or something leaked; the report has
// what.
var errBroken = errors.New("the soak found something")

func main() {
	var o options
	flag.DurationVar(&o.time, "time", 2*time.Hour, "how long to go on")
	flag.Uint64Var(&o.seed, "seed", 0, "decides the order of what is done; 0 takes one from the clock")
	flag.StringVar(&o.name, "name", "soak", "name of the lab, which must not be up")
	flag.StringVar(&o.out, "out", "", "directory for what is written (default bin/soak/SEED)")
	flag.BoolVar(&o.keep, "keep", false, "stop at the first broken invariant, and leave the lab as it is")
	plan := flag.Int("plan", 0, "print this many actions of the seed, and do nothing")
	flag.Parse()
	if o.seed == 0 {
		o.seed = uint64(time.Now().Unix())
	}
	if o.out == "" {
		o.out = filepath.Join("bin", "soak", strconv.FormatUint(o.seed, 10))
	}
	if *plan > 0 {
		printPlan(os.Stdout, o.seed, *plan)
		return
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func printPlan(out io.Writer, seed uint64, count int) {
	for plan := newSchedule(seed); count > 0; count-- {
		fmt.Fprintln(out, plan.next())
	}
}

// run makes the lab, soaks it and takes it away. A first signal ends the faults,
// so that the report is written; a second one ends all at once.
func run(o options) (err error) {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("making the directory of the soak: %w", err)
	}
	file, err := os.Create(filepath.Join(o.out, "log.txt"))
	if err != nil {
		return fmt.Errorf("making the log of the soak: %w", err)
	}
	defer file.Close()
	out := io.MultiWriter(os.Stdout, file)
	ctx, abort := context.WithCancel(context.Background())
	defer abort()
	soaking, end := context.WithCancel(ctx)
	defer end()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		for _, next := range []func(){end, abort} {
			select {
			case <-signals:
				next()
			case <-ctx.Done():
				return
			}
		}
	}()
	fmt.Fprintf(out, "seed %d, %s; the same order again: go run ./lab/soak -seed %d\n", o.seed, o.time, o.seed)
	l, err := lab.Up(soaking, lab.Config{Name: o.name, Nodes: 3, Segments: 2}, out)
	if err != nil {
		return errors.Join(err, down(o.name, out))
	}
	s := newSoak(l, o, out)
	defer func() {
		if o.keep && s.broken() > 0 {
			fmt.Fprintf(out, "the lab stays: fairlead lab status --name %s; when you have seen it: fairlead lab down --name %s\n", o.name, o.name)
			return
		}
		err = errors.Join(err, down(o.name, out))
	}()
	return s.run(ctx, soaking)
}

func down(name string, out io.Writer) error {
	fmt.Fprintf(out, "the lab goes\n")
	return lab.Down(context.Background(), name)
}
