// Command differ makes random Services and compares what three make of packets
// to them, from pods, from the node and from outside: the oracle of the plan,
// Fairlead's data plane, and the kube-proxy of the Kubernetes that the lab builds,
// in its mode nftables. docs/differ.md says more.
//
// It must be root. All of it is in network namespaces of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fairlead-net/fairlead/lab/build"
)

// options of one run.
type options struct {
	seed   uint64
	states int
	most   int // differences
	out    string
	stock  bool
	config int
}

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 0, "decides all states; 0 takes one from the clock")
	flag.IntVar(&o.states, "states", 1000, "how many states to try, each some changes after the one before")
	flag.IntVar(&o.most, "most", 10, "end after so many differences")
	flag.StringVar(&o.out, "out", "bin/differ", "directory for what is written")
	flag.BoolVar(&o.stock, "kube-proxy", true, "compare with kube-proxy, too; else only Fairlead with its oracle")
	flag.IntVar(&o.config, "config", -1, "what both are configured to do: 0 the defaults, 1 to masquerade all, 2 node ports at two addresses; -1 most states with the defaults, and some with each")
	flag.Parse()
	if o.config >= len(configs()) {
		fmt.Fprintf(os.Stderr, "-config is %d; it must be at most %d\n", o.config, len(configs())-1)
		os.Exit(2)
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().Unix())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// errDiffers says that there are differences; the output has them.
var errDiffers = errors.New("they differ")

func run(ctx context.Context, o options) error {
	program := ""
	if o.stock {
		programs, err := build.Request{Out: os.Stdout}.Kubernetes(ctx)
		if err != nil {
			return err
		}
		program = filepath.Join(programs, "kube-proxy")
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("make the directory of the run: %w", err)
	}
	fmt.Printf("seed %d; the same states again: go run ./lab/differ -seed %d -states %d -config %d\n", o.seed, o.seed, o.states, o.config)
	found := 0
	for number := range configs() {
		states := o.states / 10
		if number == 0 {
			states = o.states - states*(len(configs())-1)
		}
		if o.config >= 0 {
			states = o.states
		}
		if o.config >= 0 && o.config != number || found >= o.most || ctx.Err() != nil {
			continue
		}
		more, err := o.try(ctx, program, number, states, o.most-found)
		if err != nil {
			return fmt.Errorf("seed %d, config %d: %w", o.seed, number, err)
		}
		found += more
	}
	if found > 0 {
		return fmt.Errorf("seed %d: %d findings: %w", o.seed, found, errDiffers)
	}
	return nil
}

// try tries states with one configuration and returns how many findings there
// are.
func (o options) try(ctx context.Context, program string, number, states, most int) (found int, err error) {
	b, err := newBench(ctx, program, o.out, configs()[number])
	defer b.close()
	if err != nil {
		return 0, err
	}
	start, s := time.Now(), newState(o.seed, number)
	for state := 1; state <= states && found < most; state++ {
		findings, err := b.try(ctx, s)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return found, fmt.Errorf("state %d: %w", state, err)
		}
		for _, f := range findings {
			fmt.Printf("seed %d, config %d, state %d: %s\n%s", o.seed, number, state, f, s.describe(f.call))
		}
		found += len(findings)
		if state%50 == 0 || state == states {
			fmt.Printf("%s: config %d, %d states, %s\n", time.Since(start).Round(time.Second), number, state, &b.tally)
		}
	}
	return found, nil
}
