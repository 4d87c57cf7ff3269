// Command path measures what Fairlead's ways between nodes cost: one TCP stream
// and TCP request and response from pod to pod, beside the same namespaces
// joined by devices and routes made by hand, without a firewall; and what many
// Services cost who connects to one of them, and many policies who connects at
// all. It prints median ratios of
// interleaved pairs (A B B A …) with their 95 % intervals.
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

// measure returns so many of something in a second.
type measure func(*world, time.Duration) (float64, error)

// table has two measures of each of its comparisons.
type table struct {
	head        string
	measures    [2]measure
	turns       int                          // in which each measurement is taken, those of a pair in turn; the median counts
	medians     func(of [2][2]sample) string // of both measures, ours and theirs
	comparisons []comparison
}

func tables() []table {
	return []table{{
		head:     "| comparison | one TCP stream | TCP request/response | medians |",
		measures: [2]measure{(*world).stream, (*world).respond},
		turns:    1,
		medians: func(of [2][2]sample) string {
			return fmt.Sprintf("%.2f / %.2f Gbit/s, %.1f / %.1f k/s",
				of[0][0].median()*8/1e9, of[0][1].median()*8/1e9, of[1][0].median()/1e3, of[1][1].median()/1e3)
		},
		comparisons: []comparison{
			{"plain routing / itself", byHand(false), byHand(false), false},
			{"direct / plain routing", fairlead("vxlan", true, 0), byHand(false), false},
			{"direct / plain routing that tracks connections", fairlead("vxlan", true, 0), tracking(byHand(false)), false},
			{"vxlan / plain vxlan device", fairlead("vxlan", false, 0), byHand(true), false},
			{"vxlan / plain vxlan device that tracks connections", fairlead("vxlan", false, 0), tracking(byHand(true)), false},
			{"ipip / vxlan", fairlead("ipip", false, 0), fairlead("vxlan", false, 0), false},
			{"udp / vxlan", fairlead("udp", false, 0), fairlead("vxlan", false, 0), true},
		},
	}, {
		head:     "| comparison | connections | inverse of the time to connect | medians |",
		measures: [2]measure{(*world).connects, (*world).connectsFast},
		turns:    100,
		medians: func(of [2][2]sample) string {
			return fmt.Sprintf("%.1f / %.1f k/s, %.1f / %.1f µs",
				of[0][0].median()/1e3, of[0][1].median()/1e3, 1e6/of[1][0].median(), 1e6/of[1][1].median())
		},
		comparisons: []comparison{
			{"10 Services / themselves", called(10), called(10), false},
			{"30,000 Services / 10 Services", called(30_000), called(10), false},
			{"10,000 policies / 10 policies", policed(10_000), policed(10), false},
			{"10 policies / none", policed(10), fairlead("vxlan", true, 0), false},
			{"a Service / the pod itself", called(10), fairlead("vxlan", true, 10), false},
		},
	}}
}

func run(ctx context.Context, only string, pairs int, duration time.Duration) error {
	fmt.Printf("%d pairs of %s each, pod to pod; median ratio and its 95 %% interval\n", pairs, duration)
	for _, t := range tables() {
		fmt.Printf("\n%s\n|---|---|---|---|\n", t.head)
		for _, c := range t.comparisons {
			if !strings.Contains(c.name, only) {
				continue
			}
			if err := c.run(ctx, &t, pairs, duration); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return nil
}

func (c *comparison) run(ctx context.Context, t *table, pairs int, duration time.Duration) error {
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
	for kind, measure := range t.measures {
		for pair := range pairs {
			rates, err := measure.inTurns([2]*world{ours, theirs}, pair%2 == 1, t.turns, duration)
			if err != nil {
				return err
			}
			ratios[kind] = append(ratios[kind], rates[0]/rates[1])
			for i, rate := range rates {
				each[kind][i] = append(each[kind][i], rate)
			}
		}
	}
	fmt.Printf("| %s | %s | %s | %s |\n", c.name, ratios[0], ratios[1], t.medians(each))
	return nil
}

// inTurns measures two worlds, A B B A …, or the second one first, for so long
// each. What others do on the machine meanwhile meets some turns of both.
func (m measure) inTurns(worlds [2]*world, second bool, turns int, duration time.Duration) (rates [2]float64, err error) {
	var all [2]sample
	for turn := range turns {
		order := []int{0, 1}
		if (turn%2 == 1) != second {
			order = []int{1, 0}
		}
		for _, i := range order {
			rate, err := m(worlds[i], duration/time.Duration(turns))
			if err != nil {
				return rates, err
			}
			all[i] = append(all[i], rate)
		}
	}
	return [2]float64{all[0].median(), all[1].median()}, nil
}
