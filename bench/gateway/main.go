// Command gateway measures Fairlead's reverse proxy beside nginx: both pass the same
// requests on to the same backend, one after the other, on loopback. It prints the
// CPU that each took for a request, for a gigabyte, and for a TLS handshake.
//
//	go run ./bench/gateway
//	go run ./bench/gateway change
//	go run ./bench/gateway idle
//
// It wants Debian's packages nginx-light, wrk and nghttp2-client, of which no service
// need run: it starts its own. nginx has connections kept to its backend, no access log, and adds
// the fields that Fairlead adds. It speaks no HTTP/3 there: that is measured beside
// Fairlead's own HTTP/2, each asked by Go's client.
//
// With change, it measures fairlead gateway, the process, alone, while routes,
// endpoints and certificates change under load: nothing may fail. That wants nothing,
// and may run in a network namespace of its own (unshare -n). With idle, it measures
// what clients cost who want nothing, or take it slowly: 100,000 and less.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"text/tabwriter"
	"time"
)

// settings are what is measured.
type settings struct {
	runs    int
	during  time.Duration
	clients int
	rate    int // requests each second of the paced load
	profile string
	heap    string
	garbage int // percent of what lives; 0: much, as beside few routes
	only    string
	dir     string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == serveVerb {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	do := run
	if len(os.Args) > 1 && os.Args[1] == changeVerb {
		do = func() error { return change(os.Args[2:]) }
	}
	if len(os.Args) > 1 && os.Args[1] == idleVerb {
		do = func() error { return idle(os.Args[2:]) }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var s settings
	flag.IntVar(&s.runs, "runs", 3, "runs of each")
	flag.DurationVar(&s.during, "during", 4*time.Second, "how long each load lasts")
	flag.IntVar(&s.clients, "clients", 32, "connections of the load")
	flag.IntVar(&s.rate, "rate", 4000, "requests each second of the paced load")
	flag.StringVar(&s.profile, "profile", "", "a file for a CPU profile of Fairlead's")
	flag.StringVar(&s.only, "only", "", "one load: small, paced, large, small-tls, large-tls, small-h2, handshakes or small-h3")
	flag.Parse()
	for _, program := range []string{"nginx", "wrk", "h2load"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is missing: apt-get install nginx-light wrk nghttp2-client", program)
		}
	}
	dir, err := os.MkdirTemp("", "fairlead-bench-gateway-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s.dir = dir
	if err := os.Chmod(dir, 0o755); err != nil { // nginx's workers are another user
		return err
	}
	if err := writeCertificate(dir); err != nil {
		return err
	}
	backend, at, err := startBackend(dir)
	if err != nil {
		return err
	}
	defer backend.stop()
	return compare(s, at)
}

// compare measures all loads, the two proxies one after the other in each run, so
// that what else the machine does meets both.
func compare(s settings, backend string) error {
	proxies := []proxy{nginxProxy(s, backend), fairleadProxy(s, backend)}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "load\tproxy\teach second\tCPU for each\tof nginx\tp50\tp99")
	for _, load := range loads() {
		if s.only != "" && s.only != load.name {
			continue
		}
		got := make([][]figures, len(proxies))
		for range s.runs {
			for i := range proxies {
				f, err := measure(proxies[i], load, s)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", load.name, proxies[i].name, err)
				}
				got[i] = append(got[i], f)
			}
		}
		base := median(got[0])
		for i := range proxies {
			f := median(got[i])
			fmt.Fprintf(table, "%s\t%s\t%.0f %s\t%.1f µs\t%.2f\t%s\t%s\n", load.name, proxies[i].name,
				f.rate, load.unit, f.each*1e6, f.each/base.each, f.p50, f.p99)
		}
	}
	if s.only == "" || s.only == "small-h3" {
		if err := compareHTTP3(s, proxies[1], table); err != nil {
			return err
		}
	}
	return table.Flush()
}
