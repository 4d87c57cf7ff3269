package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/observe/asker"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// dnsTopOutput is what dns top -o json prints. It only grows.
type dnsTopOutput struct {
	*asker.Report
	Nodes []dnsTopNode `json:"nodes,omitempty"` // those that have not answered
}

// dnsTopNode is a node that has not answered.
type dnsTopNode struct {
	Node    string `json:"node"`
	Trouble string `json:"trouble"`
	Next    string `json:"next"`
}

// dnsTopOptions are the flags of dns top.
type dnsTopOptions struct {
	kube            kube.Options
	namespace, node string
	once            bool
	interval        time.Duration
	most            int
	output          format
}

func dnsTopCommand() *cobra.Command {
	var options dnsTopOptions
	command := &cobra.Command{
		Use:   "top",
		Short: "Show which pods ask the DNS servers most, and for which names",
		Long: `Show which pods ask the DNS servers of all nodes most, and for which names: how
many queries in a second, how many of them for names that there are not, how many
for names outside of the cluster, and what failed because the pod had too much
under way. It goes on until it is ended; with --once, or another output than text,
it measures once.

What is no pod of its node, such as the node itself and other nodes, is one line
for each node.

Exit codes: 0 all nodes have answered, 2 some have not.`,
		Example: `  fairlead dns top
  fairlead dns top --once -n shop
  fairlead dns top --node worker-1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return runDNSTop(command, &options)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&options.once, "once", false, "measure once, and end")
	flags.DurationVar(&options.interval, "interval", 2*time.Second, "for how long is measured, up to 30s")
	flags.IntVar(&options.most, "most", 20, "pods, and half as many names, at most")
	flags.StringVarP(&options.namespace, "namespace", "n", "", "only pods of this one; all if empty")
	flags.StringVar(&options.node, "node", "", "ask only this one")
	flags.StringVar(&options.kube.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	formatFlag(command, &options.output, inText, inJSON, inYAML)
	completeNode(command, "node", &options.kube)
	return command
}

func runDNSTop(command *cobra.Command, options *dnsTopOptions) error {
	ctx, to, stderr := command.Context(), command.OutOrStdout(), command.ErrOrStderr()
	options.kube.UserAgent = "fairlead-dns/" + Version
	if options.interval < 100*time.Millisecond || options.interval > 30*time.Second {
		return &usageError{fmt.Errorf("--interval %s is not between 100ms and 30s", options.interval), command.CommandPath()}
	}
	client, places, err := (&dropsOptions{kube: options.kube, node: options.node}).places(ctx)
	if err != nil {
		explain(command, err)
		return exitUntold
	}
	live := !options.once && !options.output.structured()
	for {
		output := options.ask(ctx, client, places)
		if ctx.Err() != nil {
			return nil // the user has ended it
		}
		if options.output.structured() {
			err = options.output.print(to, output)
		} else {
			if len(output.Nodes) < len(places) {
				err = options.print(to, output, live && isTerminal(to))
			}
			for _, node := range output.Nodes {
				fmt.Fprintf(stderr, "%s\n  next: %s\n", node.Trouble, node.Next)
			}
		}
		switch {
		case err != nil:
			return err
		case live && len(output.Nodes) < len(places):
		case len(output.Nodes) > 0:
			return exitUntold
		default:
			return nil
		}
	}
}

// ask lets all nodes measure at the same time.
func (o *dnsTopOptions) ask(ctx context.Context, client *kube.Client, places []trace.Place) dnsTopOutput {
	reports := map[string]*asker.Report{}
	var output dnsTopOutput
	var mu sync.Mutex
	var asking sync.WaitGroup
	slots := make(chan struct{}, askAbreast)
	silent := func(place trace.Place, err error) {
		trouble := dnsTopNode{place.Name, err.Error(), place.Next}
		if u := (*trace.Unasked)(nil); errors.As(err, &u) {
			trouble.Next = u.Next
		}
		output.Nodes = append(output.Nodes, trouble)
	}
	for _, place := range places {
		if place.Trouble != "" {
			mu.Lock()
			silent(place, errors.New(place.Trouble))
			mu.Unlock()
			continue
		}
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			report, err := askTop(ctx, client, place, o.interval)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent(place, err)
				return
			}
			reports[place.Name] = report
		})
	}
	asking.Wait()
	output.Report = asker.Merge(reports)
	if o.namespace != "" {
		output.Askers = slices.DeleteFunc(output.Askers, func(a asker.Asker) bool { return a.Namespace != o.namespace })
	}
	slices.SortFunc(output.Nodes, func(a, b dnsTopNode) int { return strings.Compare(a.Node, b.Node) })
	return output
}

func askTop(ctx context.Context, client *kube.Client, place trace.Place, period time.Duration) (*asker.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, period+askTime)
	defer cancel()
	said, err := execNaming(ctx, client, place.Name, place.Agent, "top?over="+period.String())
	if err != nil {
		return nil, err
	}
	report := &asker.Report{}
	if err := json.Unmarshal(said, report); err != nil {
		return nil, refuse("use a fairlead of the same version as the agent: kubectl -n kube-system describe pod "+place.Agent, "what %s says is not understood: %w", place.Name, err)
	}
	return report, nil
}

// print writes a measurement for people, in the place of the last one if there is
// a terminal for it.
func (o *dnsTopOptions) print(to io.Writer, output dnsTopOutput, over bool) error {
	var b strings.Builder
	if over {
		b.WriteString("\x1b[H\x1b[2J") // home, and clear (ECMA-48)
	}
	var all uint64
	for _, a := range output.Askers {
		all += a.Queries
	}
	fmt.Fprintf(&b, "%s queries a second, over %.1f s\n\n", rate(all, output.Seconds), output.Seconds)
	pods := &table{}
	pods.add("POD", "NODE", "QUERIES/S", "NXDOMAIN", "OUTSIDE", "REFUSED/S", "BYTES/S", "TOTAL")
	for _, a := range output.Askers[:min(len(output.Askers), o.most)] {
		name := a.Namespace + "/" + a.Pod
		if a.Pod == "" {
			name = "(no pod of the node)"
		}
		pods.add(name, a.Node, rate(a.Queries, output.Seconds), share(a.Nxdomain, a.Queries), share(a.Outside, a.Queries),
			rate(a.Refused, output.Seconds), rate(a.Bytes, output.Seconds), fmt.Sprint(a.Total))
	}
	if err := pods.write(&b); err != nil {
		return err
	}
	if more := len(output.Askers) - o.most; more > 0 {
		fmt.Fprintf(&b, "… and %d more: --most\n", more)
	}
	if len(output.Names) > 0 {
		names := &table{}
		names.add("NAME", "TYPE", "QUERIES/S")
		for _, n := range output.Names[:min(len(output.Names), max(o.most/2, 1))] {
			names.add(n.Name, n.Type, rate(n.Queries, output.Seconds))
		}
		b.WriteString("\n")
		if err := names.write(&b); err != nil {
			return err
		}
	}
	if !over {
		b.WriteString("\n")
	}
	_, err := io.WriteString(to, b.String())
	return err
}

// rate is how many there are in a second.
func rate(n uint64, seconds float64) string {
	if seconds <= 0 {
		return "?"
	}
	each := float64(n) / seconds
	if each < 10 && n > 0 {
		return fmt.Sprintf("%.1f", each)
	}
	return fmt.Sprintf("%.0f", each)
}

// share is such as 37%.
func share(part, of uint64) string {
	if of == 0 {
		return "0%"
	}
	return fmt.Sprintf("%d%%", (100*part+of/2)/of)
}
