package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead-net/fairlead/agent"
	"github.com/fairlead-net/fairlead/deploy"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/preflight"
)

// preflightOptions are the flags of fairlead preflight.
type preflightOptions struct {
	node, nodes bool
	root        string
	image       string
	timeout     time.Duration
	output      format
	api         kube.Options
	config      agent.Config // directories of the node
}

// preflightOutput is what preflight -o json prints. It only grows.
type preflightOutput struct {
	Level   preflight.Level                `json:"level"`             // the worst
	Cluster []preflight.Finding            `json:"cluster,omitempty"` //
	Nodes   map[string][]preflight.Finding `json:"nodes,omitempty"`   // by name; of --node, "this machine"
	// NotLookedAt are nodes that there was no time for, or no right, with what became of that.
	NotLookedAt map[string]string `json:"notLookedAt,omitempty"`
	Next        string            `json:"next,omitempty"` // what to do about them
}

func preflightCommand() *cobra.Command {
	var o preflightOptions
	command := &cobra.Command{
		Use:   "preflight",
		Short: "Tell what will keep Fairlead from working, before it is installed",
		Long: `Tell what will keep Fairlead from working, before it is installed. It looks at the
cluster through the API server, and needs no rights on the nodes; with --node, it
looks at this machine instead, which should be a node, best as root; with --nodes,
at the cluster and at all nodes, each from a privileged pod of Fairlead's image.

Nothing is changed. The exit code is 0 if all is well or there are only warnings,
1 if something fails, 2 if it could not be told, as of nodes that --timeout left no
time for.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(command.Context(), o.timeout)
			defer cancel()
			found, err := o.look(ctx)
			if err != nil {
				explain(command, err)
				return exitUnknown
			}
			return o.print(command.OutOrStdout(), found)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&o.node, "node", false, "look at this machine alone")
	flags.BoolVar(&o.nodes, "nodes", false, "look at all nodes, too")
	flags.StringVar(&o.image, "image", "", "image for --nodes; without, that of deploy/fairlead.yaml")
	flags.StringVar(&o.root, "root", "/", "where the files of the machine are")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait for all nodes")
	flags.StringVar(&o.api.Kubeconfig, "kubeconfig", "", "how to reach the cluster; without, as kubectl does")
	directories(flags, &o.config)
	for _, name := range []string{"root", "run-dir", "state-dir", "cni-bin-dir"} {
		_ = flags.MarkHidden(name) // it is defined above
	}
	formatFlag(command, &o.output, inText, inJSON, inYAML)
	return command
}

func (o *preflightOptions) look(ctx context.Context) (*preflightOutput, error) {
	found := &preflightOutput{Nodes: map[string][]preflight.Finding{}}
	if o.node {
		facts, err := preflight.ReadNode(o.root, o.config.CNIConfDir)
		if err != nil {
			return nil, refuse("run it on a node, as root", "%w", err)
		}
		found.Nodes["this machine"] = preflight.Node(facts)
	} else {
		client, err := kube.Connect(o.api)
		if err != nil {
			return nil, err
		}
		survey, err := client.Survey(ctx)
		if err != nil {
			return nil, err
		}
		found.Cluster = preflight.Cluster(survey)
		if o.nodes {
			agents, err := kube.AgentsOf(deploy.Manifest, o.image)
			if err != nil {
				return nil, err
			}
			lookAtNodes(ctx, survey.Nodes, found, func(node string) ([]preflight.Finding, error) {
				return lookAtNode(ctx, client, agents, node)
			})
		}
	}
	all := found.Cluster
	for _, of := range found.Nodes {
		all = append(all, of...)
	}
	found.Level = preflight.Worst(all)
	return found, nil
}

// lookAtNodes looks at all nodes that are to have an agent, until the context ends. Those
// that do not answer come last: they may keep a place until then.
func lookAtNodes(ctx context.Context, nodes []kube.NodeSurvey, found *preflightOutput, look func(node string) ([]preflight.Finding, error)) {
	found.NotLookedAt = map[string]string{}
	var mu sync.Mutex // guards found
	note := func(node string, findings []preflight.Finding, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil && ctx.Err() != nil: // which says nothing of the node
			found.NotLookedAt[node] = err.Error()
			found.Next = "run it again with a longer --timeout; where a pod does not start, see kubectl describe node NODE; is the image in a registry that nodes reach (--image)?"
			return
		case lacksRight(err):
			found.NotLookedAt[node], _ = kube.Forbidden(err)
			found.Next = nextOf(err, "")
			return
		case err != nil:
			findings = []preflight.Finding{{
				Check: "reached", Level: preflight.Fail, What: err.Error(), Why: "an agent could not run there either",
				Next: "see kubectl describe node " + node + "; is the image in a registry that the node reaches (--image)?",
			}}
		}
		found.Nodes[node] = findings
	}
	var group errgroup.Group
	group.SetLimit(nodesAtOnce)
	for _, silent := range []bool{false, true} {
		for _, node := range nodes {
			if node.Silent != silent || node.NoAgent || node.OS != "" && node.OS != "linux" {
				continue
			}
			name := node.Node.Name
			group.Go(func() error {
				if ctx.Err() != nil {
					note(name, nil, errors.New("not begun in time"))
					return nil
				}
				findings, err := look(name)
				note(name, findings, err)
				return nil
			})
		}
	}
	_ = group.Wait() // which has no error
}

// lacksRight tells whether the user may not do something. What forbids pods as such, to
// everybody, forbids those of agents as well.
func lacksRight(err error) bool {
	if !kube.IsForbidden(err) {
		return false
	}
	_, right := kube.Forbidden(err)
	return right != ""
}

func lookAtNode(ctx context.Context, client *kube.Client, agents *kube.AgentSet, node string) ([]preflight.Finding, error) {
	run, err := client.RunOnNode(ctx, agents, node, "preflight", "preflight", "--node", "--root=/host", "--output=json")
	if err != nil {
		return nil, err
	}
	var said preflightOutput
	if err := json.Unmarshal([]byte(run.Output), &said); err != nil {
		return nil, errors.New(run.Output)
	}
	for _, findings := range said.Nodes {
		return findings, nil
	}
	return nil, errors.New("it found nothing")
}

func (o *preflightOptions) print(to io.Writer, found *preflightOutput) error {
	if o.output.structured() {
		if err := o.output.print(to, found); err != nil {
			return err
		}
	} else if err := printPreflight(to, found); err != nil {
		return err
	}
	switch {
	case found.Level == preflight.Fail:
		return exitUnhealthy
	case len(found.NotLookedAt) > 0:
		return exitUnknown
	}
	return nil
}

func printPreflight(to io.Writer, found *preflightOutput) error {
	colours := paletteOf(to)
	var text strings.Builder
	write := func(title string, findings []preflight.Finding) {
		fmt.Fprintf(&text, "%s\n", colours.bold(title))
		for _, f := range findings {
			level := colours.good("ok  ")
			switch f.Level {
			case preflight.Warn:
				level = colours.doubt("warn")
			case preflight.Fail:
				level = colours.bad("fail")
			}
			fmt.Fprintf(&text, "  %s  %-10s  %s\n", level, f.Check, f.What)
			for _, line := range [][2]string{{"why", f.Why}, {"next", f.Next}} {
				if line[1] != "" {
					fmt.Fprintf(&text, "                    %s: %s\n", line[0], line[1])
				}
			}
		}
	}
	if found.Cluster != nil {
		write("cluster", found.Cluster)
	}
	for _, name := range sortedNames(found.Nodes) {
		write(name, found.Nodes[name])
	}
	if len(found.NotLookedAt) > 0 {
		text.WriteString(notLookedAt(found, colours))
	}
	_, err := io.WriteString(to, text.String())
	return err
}

// notLookedAt has the nodes of each reason on a line.
func notLookedAt(found *preflightOutput, colours palette) string {
	text := colours.doubt(fmt.Sprintf("%d of %s not looked at", len(found.NotLookedAt), count(len(found.NotLookedAt)+len(found.Nodes), "node"))) + "\n"
	names := map[string][]string{}
	for _, name := range sortedNames(found.NotLookedAt) {
		names[found.NotLookedAt[name]] = append(names[found.NotLookedAt[name]], name)
	}
	for _, why := range sortedNames(names) {
		text += fmt.Sprintf("  %s: %s\n", strings.Join(names[why], " "), why)
	}
	return text + "  next: " + found.Next + "\n"
}

func sortedNames[V any](of map[string]V) []string { return slices.Sorted(maps.Keys(of)) }
