// Command path measures what Fairlead's ways between nodes cost: one TCP stream
// and TCP request and response from pod to pod, beside the same namespaces
// joined by devices and routes made by hand, without a firewall; what a packet of
// a connection costs that is there, as one thread sees it that is both ends; and
// what many Services cost who connects to one of them, and many policies who
// connects at all. It prints median ratios of interleaved pairs (A B B A …) with
// their 95 % intervals.
//
// With -beside FILE, another build of it, both builds are compared as well: build
// it once in a worktree of each version.
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
	"slices"
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

func main() {
	runtime.LockOSThread() // what /proc/self shows stays what it is
	pairs := flag.Int("pairs", 15, "pairs of each comparison")
	duration := flag.Duration("time", time.Second, "of each run")
	only := flag.String("only", "", "the comparisons whose name holds this text")
	measured := flag.String("measures", "", "the tables whose head holds this text")
	other := flag.String("beside", "", "another build of this program, to compare with")
	join := flag.String("join", "", "only program this namespace as a node with this backend: see beside")
	direct := flag.Bool("direct", true, "with -join: direct routes")
	node := flag.Int("node", 0, "with -join: which node, 0 or 1")
	flag.Parse()
	var err error
	if *join != "" {
		err = fairlead(model.Backend(*join), *direct, 0)(context.Background(), nil, *node)
	} else {
		chosen := slices.DeleteFunc(tables(*other), func(t table) bool { return !strings.Contains(t.head, *measured) })
		err = run(context.Background(), chosen, *only, *pairs, *duration)
	}
	if err != nil {
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

// other is another build of this program, or nothing.
func tables(other string) []table {
	return []table{{
		head:     "| comparison | one TCP stream | TCP request/response | medians |",
		measures: [2]measure{(*world).stream, (*world).respond},
		turns:    1,
		medians: func(of [2][2]sample) string {
			return fmt.Sprintf("%.2f / %.2f Gbit/s, %.1f / %.1f k/s",
				of[0][0].median()*8/1e9, of[0][1].median()*8/1e9, of[1][0].median()/1e3, of[1][1].median()/1e3)
		},
		comparisons: append(builds(other), []comparison{
			{"plain routing / itself", byHand(false), byHand(false), false},
			{"direct / plain routing", fairlead("vxlan", true, 0), byHand(false), false},
			{"direct / plain routing that tracks connections", fairlead("vxlan", true, 0), tracking(byHand(false)), false},
			{"vxlan / plain vxlan device", fairlead("vxlan", false, 0), byHand(true), false},
			{"vxlan / plain vxlan device that tracks connections", fairlead("vxlan", false, 0), tracking(byHand(true)), false},
			{"ipip / vxlan", fairlead("ipip", false, 0), fairlead("vxlan", false, 0), false},
			{"udp / vxlan", fairlead("udp", false, 0), fairlead("vxlan", false, 0), true},
		}...),
	}, {
		head:     "| comparison | round trips of one thread | inverse of the time of one | medians |",
		measures: [2]measure{(*world).bounces, (*world).bouncesFast},
		turns:    100,
		medians: func(of [2][2]sample) string {
			return fmt.Sprintf("%.1f / %.1f k/s, %.2f / %.2f µs",
				of[0][0].median()/1e3, of[0][1].median()/1e3, 1e6/of[1][0].median(), 1e6/of[1][1].median())
		},
		comparisons: append(builds(other), []comparison{
			{"plain routing / itself", byHand(false), byHand(false), false},
			{"direct / plain routing", fairlead("vxlan", true, 0), byHand(false), false},
			{"direct / plain routing that tracks connections", fairlead("vxlan", true, 0), tracking(byHand(false)), false},
			{"vxlan / plain vxlan device", fairlead("vxlan", false, 0), byHand(true), false},
			{"vxlan / plain vxlan device that tracks connections", fairlead("vxlan", false, 0), tracking(byHand(true)), false},
		}...),
	}, {
		head:     "| comparison | connections | inverse of the time to connect | medians |",
		measures: [2]measure{(*world).connects, (*world).connectsFast},
		turns:    100,
		medians: func(of [2][2]sample) string {
			return fmt.Sprintf("%.1f / %.1f k/s, %.1f / %.1f µs",
				of[0][0].median()/1e3, of[0][1].median()/1e3, 1e6/of[1][0].median(), 1e6/of[1][1].median())
		},
		comparisons: append(builds(other), []comparison{
			{"10 Services / themselves", called(10), called(10), false},
			{"30,000 Services / 10 Services", called(30_000), called(10), false},
			{"10,000 policies / 10 policies", policed(10_000), policed(10), false},
			{"20,000 CIDRs / 10 CIDRs", ranged(20_000), ranged(10), false},
			{"10 policies / none", policed(10), fairlead("vxlan", true, 0), false},
			{"a Service / the pod itself", called(10), fairlead("vxlan", true, 10), false},
		}...),
	}}
}

func run(ctx context.Context, tables []table, only string, pairs int, duration time.Duration) error {
	fmt.Printf("%d pairs of %s each, pod to pod; median ratio and its 95 %% interval\n", pairs, duration)
	for _, t := range tables {
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
