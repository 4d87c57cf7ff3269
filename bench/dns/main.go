// Command dns measures Fairlead's DNS server beside CoreDNS: both serve the same
// Services, one after the other, to the same load, on loopback. It prints queries
// for each second of CPU, latency at equal load, memory, and how long a cold start
// takes to the first right answer.
//
//	go run ./bench/dns --coredns build [--dnsperf]
//	go run ./bench/dns --fresh
//	go run ./bench/dns --abuse [--flood 50000]
//
// CoreDNS is built from its module in ./coredns, or is a program that there is
// (--coredns PATH). With --fresh it prints how long a change of the agent's snapshot
// takes to be answered; with --abuse, what others get while one client floods the
// server or holds connections, and while upstreams are bad. It wants the machine for
// itself; it may run in a network namespace of its own (unshare -n), of which it
// sets lo up.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/fairlead-net/fairlead/lab/build"
)

// settings are what is measured.
type settings struct {
	services, endpoints int
	headless            int // of the Services, in percent
	runs                int
	during              time.Duration
	rate                int // queries a second at which latency is measured
	flood               int // queries a second of an abuser
	dnsperf             bool
	dir                 string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var s settings
	coredns := flag.String("coredns", "", "a CoreDNS to compare with; build: that of bench/dns/coredns; empty: none")
	program := flag.String("fairlead", "", "a Fairlead to measure; empty: that of this checkout is built")
	flag.BoolVar(&s.dnsperf, "dnsperf", false, "let dnsperf ask as fast as it can")
	fresh := flag.Bool("fresh", false, "measure how long a change takes to be answered instead")
	abuse := flag.Bool("abuse", false, "measure what clients get while another one, or an upstream, is bad, instead")
	flag.IntVar(&s.flood, "flood", 50_000, "queries a second of who floods the server, of --abuse")
	flag.IntVar(&s.services, "services", 10_000, "Services of the cluster")
	flag.IntVar(&s.endpoints, "endpoints", 10, "endpoints of each")
	flag.IntVar(&s.headless, "headless", 10, "of 100 Services, how many are headless")
	flag.IntVar(&s.runs, "runs", 3, "runs of each")
	flag.DurationVar(&s.during, "during", 10*time.Second, "how long each load lasts")
	flag.IntVar(&s.rate, "rate", 10_000, "queries a second at which latency is measured")
	flag.Parse()
	dir, err := os.MkdirTemp("", "fairlead-bench-dns-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s.dir = dir
	if err := os.Chmod(dir, 0o755); err != nil { // the server is another user
		return err
	}
	_ = exec.Command("ip", "link", "set", "lo", "up").Run()
	own, err := newFairlead(*program, s)
	if err != nil {
		return err
	}
	up, err := newUpstream()
	if err != nil {
		return err
	}
	defer up.close()
	own.objects.settle(up.addr)
	switch {
	case *fresh:
		return measureFresh(own, s)
	case *abuse:
		return measureAbuse(own, up, s)
	}
	servers := []server{own}
	if *coredns == "build" {
		if *coredns, err = (build.Request{Out: os.Stderr}).CoreDNS(context.Background()); err != nil {
			return err
		}
	}
	if *coredns != "" {
		servers = append(servers, &corednsServer{program: *coredns, objects: own.objects, dir: dir})
	}
	return compare(servers, own.objects, s)
}

// newFairlead is the server of a program, or, without one, of this checkout.
func newFairlead(program string, s settings) (*fairleadServer, error) {
	if program != "" {
		return &fairleadServer{program: program, objects: newCluster(s), dir: s.dir}, nil
	}
	program = filepath.Join(s.dir, "fairlead")
	compile := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/fairlead-net/fairlead/cmd/fairlead")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build fairlead: %w\n%s", err, out)
	}
	return &fairleadServer{program: program, objects: newCluster(s), dir: s.dir}, nil
}

// compare prints what each server does with each mix.
func compare(servers []server, objects *cluster, s settings) error {
	fmt.Printf("%d Services, %d endpoints each, %d %% headless; medians of %d runs\n\n", s.services, s.endpoints, s.headless, s.runs)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "server\tmix\tqueries/s\tqueries/CPU s\tlost\tp50 at rate\tp99 at rate\tresident\tpeak\tcold start")
	for _, server := range servers {
		all := map[string][]figures{}
		for n := range s.runs {
			fmt.Fprintf(os.Stderr, "%s: run %d of %d\n", server.name(), n+1, s.runs)
			got, err := measure(server, objects, s)
			if err != nil {
				return fmt.Errorf("%s: %w", server.name(), err)
			}
			for mix, f := range got {
				all[mix] = append(all[mix], f)
			}
		}
		for _, mix := range objects.mixes() {
			f := median(all[mix.name])
			fmt.Fprintf(table, "%s\t%s\t%.0f\t%.0f\t%d\t%v\t%v\t%.0f MB\t%.0f MB\t%v\n", server.name(), mix.name,
				f.throughput, f.perCPU, f.lost, f.p50.Round(time.Microsecond), f.p99.Round(time.Microsecond),
				f.resident/1e6, f.peak/1e6, f.start.Round(time.Millisecond))
		}
	}
	return table.Flush()
}
