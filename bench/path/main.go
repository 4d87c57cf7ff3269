// Command path measures what Fairlead's ways between nodes cost: one TCP stream
// and TCP request and response from pod to pod, beside the same namespaces
// joined by devices and routes made by hand, without a firewall. It prints
// median ratios of interleaved pairs (A B B A …) with their 95 % intervals.
//
// It makes network namespaces of its own, without a link to the machine's
// network, and runs alone on it. It must be root.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

func main() {
	runtime.LockOSThread() // what /proc/self shows stays what it is
	pairs := flag.Int("pairs", 15, "pairs of each comparison")
	duration := flag.Duration("time", time.Second, "of each run")
	only := flag.String("only", "", "the comparisons whose name holds this text")
	flag.Parse()
	if err := run(context.Background(), *only, *pairs, *duration); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// comparison is of two ways between two pods.
type comparison struct {
	name   string
	ours   recipe
	theirs recipe
	floats bool // see world.floating
}

func run(ctx context.Context, only string, pairs int, duration time.Duration) error {
	comparisons := []comparison{
		{"plain routing / itself", byHand(false), byHand(false), false},
		{"direct / plain routing", fairlead("vxlan", true), byHand(false), false},
		{"direct / plain routing that tracks connections", fairlead("vxlan", true), tracking(byHand(false)), false},
		{"vxlan / plain vxlan device", fairlead("vxlan", false), byHand(true), false},
		{"vxlan / plain vxlan device that tracks connections", fairlead("vxlan", false), tracking(byHand(true)), false},
		{"ipip / vxlan", fairlead("ipip", false), fairlead("vxlan", false), false},
		{"udp / vxlan", fairlead("udp", false), fairlead("vxlan", false), true},
	}
	fmt.Printf("%d pairs of %s each, pod to pod; median ratio and its 95 %% interval\n\n", pairs, duration)
	fmt.Printf("| comparison | one TCP stream | TCP request/response | medians |\n|---|---|---|---|\n")
	for _, c := range comparisons {
		if !strings.Contains(c.name, only) {
			continue
		}
		if err := c.run(ctx, pairs, duration); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (c *comparison) run(ctx context.Context, pairs int, duration time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ours, err := build(ctx, c.ours)
	if err != nil {
		return err
	}
	defer ours.close()
	theirs, err := build(ctx, c.theirs)
	if err != nil {
		return err
	}
	defer theirs.close()
	ours.floating, theirs.floating = c.floats, c.floats
	var ratios [2]sample
	var each [2][2]sample
	for kind, measure := range []func(*world, time.Duration) (float64, error){(*world).stream, (*world).respond} {
		for pair := range pairs {
			order := []*world{ours, theirs}
			if pair%2 == 1 {
				order = []*world{theirs, ours}
			}
			rate := map[*world]float64{}
			for _, w := range order {
				if rate[w], err = measure(w, duration); err != nil {
					return err
				}
			}
			ratios[kind] = append(ratios[kind], rate[ours]/rate[theirs])
			each[kind][0] = append(each[kind][0], rate[ours])
			each[kind][1] = append(each[kind][1], rate[theirs])
		}
	}
	fmt.Printf("| %s | %s | %s | %.2f / %.2f Gbit/s, %.1f / %.1f k/s |\n", c.name, ratios[0], ratios[1],
		each[0][0].median()*8/1e9, each[0][1].median()*8/1e9, each[1][0].median()/1e3, each[1][1].median()/1e3)
	return nil
}
