package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/observe/drop"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// exitUnasked says that some node did not answer.
const exitUnasked exitCode = 2

// dropsOutput is what drops -o json prints. It only grows.
type dropsOutput struct {
	Drops []*drop.Record `json:"drops"` // sorted by time
	Nodes []dropsNode    `json:"nodes"`
}

// dropsNode is what a node says besides.
type dropsNode struct {
	Node    string       `json:"node"`
	Counts  *drop.Counts `json:"counts,omitempty"`
	Trouble string       `json:"trouble,omitempty"` // it was not asked, or does not know
	Next    string       `json:"next,omitempty"`
}

// dropsOptions are the flags of drops.
type dropsOptions struct {
	kube           kube.Options
	namespace, pod string
	node           string
	follow         bool
	output         format
}

func dropsCommand() *cobra.Command {
	var options dropsOptions
	command := &cobra.Command{
		Use:   "drops",
		Short: "Show what policies dropped: whose packets, and which rule",
		Long: `Show packets that policies dropped, of all nodes: when, from which pod to which,
at which port, and by which rule of which policy; and the rule that would have
allowed it with the least change.

Each node remembers the last thousand. Of many at once, the kernel logs 10 a
second in each direction and counts the rest; what was left out is said.

Exit codes: 0 all nodes have answered, 2 some have not.`,
		Example: `  fairlead drops
  fairlead drops -f -n shop
  fairlead drops --pod shop/web-0 -o json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return runDrops(command, &options)
		},
	}
	flags := command.Flags()
	flags.BoolVarP(&options.follow, "follow", "f", false, "go on, and show what is dropped from now on")
	flags.StringVarP(&options.namespace, "namespace", "n", "", "only packets from or to pods of this one; all if empty")
	flags.StringVar(&options.pod, "pod", "", "only packets from or to this one: [NAMESPACE/]POD")
	flags.StringVar(&options.node, "node", "", "ask only this one")
	flags.StringVar(&options.kube.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	formatFlag(command, &options.output, inText, inJSON, inYAML)
	completeNode(command, "node", &options.kube)
	completeFlag(command, "pod", completePods(&options.kube, &options.namespace))
	return command
}

func runDrops(command *cobra.Command, options *dropsOptions) error {
	ctx, stderr := command.Context(), command.ErrOrStderr()
	options.kube.UserAgent = "fairlead-drops/" + Version
	if namespace, name, ok := strings.Cut(options.pod, "/"); ok {
		options.namespace, options.pod = namespace, name
	} else if options.pod != "" && options.namespace == "" {
		options.namespace = options.kube.Namespace()
	}
	client, places, err := options.places(ctx)
	if err != nil {
		explain(command, err)
		return exitUnasked
	}
	output := options.ask(ctx, client, places)
	if !options.follow && options.output.structured() {
		err = options.output.print(command.OutOrStdout(), output)
	} else {
		err = options.write(command.OutOrStdout(), output.Drops)
	}
	if err != nil {
		return err
	}
	silent := writeTroubles(stderr, output.Nodes, !options.output.structured())
	if options.follow {
		return options.tail(ctx, command.OutOrStdout(), stderr, client, places, output)
	}
	if silent {
		return exitUnasked
	}
	return nil
}

// places are the nodes that are to be asked.
func (o *dropsOptions) places(ctx context.Context) (*kube.Client, []trace.Place, error) {
	client, err := kube.Connect(o.kube)
	if err != nil {
		return nil, nil, err
	}
	overview, err := client.Overview(ctx)
	if err != nil {
		return nil, nil, err
	}
	var names []string
	if o.node != "" {
		names = []string{o.node}
	}
	nodes, err := chosenNodes(overview, names)
	if err != nil {
		return nil, nil, err
	}
	return client, places(&kube.Overview{Nodes: nodes}), nil
}

// ask asks all nodes for what they remember.
func (o *dropsOptions) ask(ctx context.Context, client *kube.Client, places []trace.Place) dropsOutput {
	output := dropsOutput{Drops: []*drop.Record{}, Nodes: make([]dropsNode, len(places))}
	var mu sync.Mutex
	var asking sync.WaitGroup
	slots := make(chan struct{}, askAbreast)
	for i, place := range places {
		node := &output.Nodes[i]
		node.Node, node.Trouble, node.Next = place.Name, place.Trouble, place.Next
		if place.Trouble != "" {
			continue
		}
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			report, err := askDrops(ctx, client, place.Agent)
			if err != nil {
				node.Trouble = err.Error()
				node.Next = nextOf(err, seeAgent(place.Agent))
				return
			}
			node.Counts, node.Trouble = &report.Counts, report.Trouble
			if report.Trouble != "" {
				node.Next = "kubectl -n kube-system logs " + place.Agent
			}
			mu.Lock()
			defer mu.Unlock()
			for _, record := range report.Records {
				if record.Is(o.namespace, o.pod) {
					output.Drops = append(output.Drops, record)
				}
			}
		})
	}
	asking.Wait()
	slices.SortStableFunc(output.Drops, func(a, b *drop.Record) int { return a.Time.Compare(b.Time) })
	return output
}

func askDrops(ctx context.Context, client *kube.Client, agent string) (*drop.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	said, err := client.ExecAgent(ctx, agent, nil, agentProgram, "dropped")
	if err != nil {
		return nil, fmt.Errorf("its agent does not answer: %w", err)
	}
	report := &drop.Report{}
	if err := json.Unmarshal(said, report); err != nil {
		return nil, fmt.Errorf("its agent's answer is not understood, which may be of another version: %w", err)
	}
	return report, nil
}

// write writes records, one a line if it is for people; if it is for programs,
// so that more can follow.
func (o *dropsOptions) write(to io.Writer, records []*drop.Record) error {
	for _, record := range records {
		var err error
		switch o.output.name {
		case inJSON:
			err = json.NewEncoder(to).Encode(record)
		case inYAML:
			if _, err = io.WriteString(to, "---\n"); err == nil {
				err = o.output.print(to, record)
			}
		default:
			_, err = fmt.Fprintln(to, dropLine(record, paletteOf(to)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropLine is a record for people.
func dropLine(r *drop.Record, colours palette) string {
	to := r.Destination.String()
	switch {
	case r.Service != "":
		to += fmt.Sprintf(" (svc %s)", r.Service)
	case r.Called.IsValid():
		to += fmt.Sprintf(" (%s)", r.Called)
	}
	return fmt.Sprintf("%s  %s  %s → %s  %s  %s",
		r.Time.Local().Format(time.StampMilli), r.Node, colours.bold(r.Source.String()), colours.bold(to), r.Port(), r.Why())
}

// writeTroubles says what is missing, and tells whether a node did not answer.
func writeTroubles(to io.Writer, nodes []dropsNode, counts bool) (silent bool) {
	for _, node := range nodes {
		if node.Trouble != "" {
			silent = true
			fmt.Fprintf(to, "%s: %s\n  next: %s\n", node.Node, node.Trouble, node.Next)
		}
		if counts && node.Counts != nil && node.Counts.Suppressed+node.Counts.Lost > 0 {
			fmt.Fprintf(to, "%s: besides, %d were dropped and not logged, since they were many, and %d were lost from the log\n",
				node.Node, node.Counts.Suppressed, node.Counts.Lost)
		}
	}
	return silent
}
