// Command e2e runs upstream's own end-to-end tests of the network against
// Fairlead: it builds them, makes a lab of six nodes in three zones without
// kube-proxy, loads the images that they name, runs those that specs.yaml
// chooses, and tells what became of each. docs/e2e.md says more.
//
// It must be root, and is alone with its lab; other labs may run beside it.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/fairlead-net/fairlead/lab"
	"github.com/fairlead-net/fairlead/lab/build"
)

// options of one run.
type options struct {
	config lab.Config
	only   string // expression that the names of specs must match
	subset bool   // run only what make test runs
	out    string // directory of the reports
	procs  int    // specs at a time; 0: as many as are quickest
	keep   bool
	list   bool
}

func main() {
	var o options
	flag.StringVar(&o.config.Name, "name", "e2e", "name of the lab; one of this name that is up is used, and left up")
	flag.IntVar(&o.config.Nodes, "nodes", 0, "nodes of the lab (default 6; of the subset 3)")
	// On one network, nodes reach the pods of others under their own addresses.
	// Between two there is a tunnel, and they have that of its end, which one of
	// the specs takes for a fault (of the health check node port).
	flag.IntVar(&o.config.Segments, "segments", 1, "L2 networks that the nodes are spread over")
	flag.IntVar(&o.config.Zones, "zones", 3, "zones of the lab")
	flag.StringVar(&o.config.DNS, "dns", "fairlead", "cluster DNS of the lab: fairlead or coredns")
	flag.StringVar(&o.only, "only", "", "run only those chosen specs whose names match this regular expression")
	flag.BoolVar(&o.subset, "subset", false, "run only some of each kind, which takes minutes")
	flag.StringVar(&o.out, "out", "bin/e2e", "directory for report.json, junit.xml and e2e.log")
	flag.IntVar(&o.procs, "procs", 0, "specs that run at a time (default 2; of the subset 4)")
	flag.BoolVar(&o.keep, "keep", false, "leave the lab up")
	flag.BoolVar(&o.list, "list", false, "only tell what would run, and what not, and why; needs no lab")
	flag.Parse()
	o.complete()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// complete fills in what was not said. Most specs of the subset wait for pods most
// of the time.
func (o *options) complete() {
	nodes, procs := 6, 2
	if o.subset {
		nodes, procs = 3, 4
	}
	o.config.Nodes, o.procs = cmp.Or(o.config.Nodes, nodes), cmp.Or(o.procs, procs)
}

func run(ctx context.Context, o options) error {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("--only is not a regular expression: %w", err)
	}
	plan, err := parsePlan(specsYAML)
	if err != nil {
		return err
	}
	if o.out, err = filepath.Abs(o.out); err != nil {
		return fmt.Errorf("finding the directory of the reports: %w", err)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("making the directory of the reports: %w", err)
	}
	tests, err := build.Request{Out: os.Stdout}.E2E(ctx)
	if err != nil {
		return err
	}
	s := suite{E2E: tests, out: o.out}
	names, err := s.names(ctx)
	if err != nil {
		return err
	}
	chosen, err := plan.choose(names)
	if err != nil {
		return err
	}
	if o.subset {
		chosen = chosen.only()
	}
	if o.list {
		return chosen.write(os.Stdout)
	}
	if s.tools, err = toolLayer(); err != nil { // before anything is started
		return err
	}
	if !o.subset { // none of its specs runs one
		if s.coredns, err = (build.Request{Out: os.Stdout}).CoreDNS(ctx); err != nil {
			return err
		}
	}
	l, mine, err := open(ctx, o.config)
	if err != nil {
		return err
	}
	outcome, err := judge(ctx, l, s, chosen, only, o.procs)
	if mine && !o.keep {
		err = errors.Join(err, lab.Down(context.WithoutCancel(ctx), o.config.Name))
	} else {
		fmt.Printf("\nThe lab is still up; remove it: go run ./cmd/fairlead lab down --name %s\n", o.config.Name)
	}
	if err != nil {
		return err
	}
	return outcome.verdict()
}

// open returns the lab of this name, and whether it was made here.
func open(ctx context.Context, config lab.Config) (l *lab.Lab, mine bool, err error) {
	if l, err = lab.Open(config.Name); err == nil && l.Ready() {
		return l, false, nil
	}
	l, err = lab.Up(ctx, config, os.Stdout)
	return l, true, err
}

// judge runs the chosen specs in the lab and tells what became of them.
func judge(ctx context.Context, l *lab.Lab, s suite, chosen choice, only *regexp.Regexp, procs int) (outcome, error) {
	if err := loadImages(ctx, l, s); err != nil {
		return outcome{}, err
	}
	if err := routePods(ctx, l); err != nil {
		return outcome{}, err
	}
	if err := markAgents(ctx, l); err != nil {
		return outcome{}, err
	}
	if err := chosen.prove(ctx, l); err != nil {
		return outcome{}, err
	}
	reports, err := s.run(ctx, l, chosen.matching(only), procs)
	if err != nil {
		return outcome{}, err
	}
	o := tally(chosen, only, reports)
	if err := o.write(os.Stdout); err != nil {
		return outcome{}, err
	}
	fmt.Printf("\nReports: %s/report.json, junit.xml, e2e.log\n", s.out)
	return o, nil
}

// routePods makes pods reachable for the API server, which relays requests to
// them: its machine is no node, and the router of a lab knows no pods.
func routePods(ctx context.Context, l *lab.Lab) error {
	for _, node := range l.Nodes() {
		ranges, err := l.Kubectl(ctx, "get", "node", node.Name, "--output=jsonpath={.spec.podCIDRs[*]}")
		if err != nil {
			return err
		}
		for _, text := range strings.Fields(ranges) {
			pods, err := netip.ParsePrefix(text)
			if err != nil {
				return fmt.Errorf("the pods of node %s: %w", node.Name, err)
			}
			for _, address := range l.Addresses(node.Name) {
				if address.Is4() != pods.Addr().Is4() {
					continue
				}
				if _, err := l.Exec(ctx, lab.Router, "ip", "route", "replace", text, "via", address.String()); err != nil {
					return fmt.Errorf("routing to the pods of node %s: %w", node.Name, err)
				}
			}
		}
	}
	return nil
}

// markAgents gives Fairlead's agents the label by which the suite finds the
// service proxy, so that the spec that restarts it restarts them.
func markAgents(ctx context.Context, l *lab.Lab) error {
	const patch = `{"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "100%"}},
		"template": {"metadata": {"labels": {"k8s-app": "kube-proxy"}}}}}`
	for _, argv := range [][]string{
		{"patch", "daemonset", "fairlead-agent", "--patch=" + patch},
		{"rollout", "status", "daemonset", "fairlead-agent", "--timeout=2m"},
	} {
		if _, err := l.Kubectl(ctx, append([]string{"--namespace=kube-system"}, argv...)...); err != nil {
			return fmt.Errorf("labelling the agents as the service proxy: %w", err)
		}
	}
	return nil
}
