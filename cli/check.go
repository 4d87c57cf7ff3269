package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/probe"
)

// Exit codes of check. Success is 0, also with warnings.
const (
	exitBroken    exitCode = 1
	exitUnchecked exitCode = 2
)

const (
	// fewNodes are probed all from all; of more, each probes somePeers.
	fewNodes  = 12
	somePeers = 4
	// askTime is what a node may take for all its probes; askAbreast is how many
	// nodes are asked at a time.
	askTime    = 25 * time.Second
	askAbreast = 24
)

// checkOutput is what check -o json prints. It only grows.
type checkOutput struct {
	State   probe.State `json:"state"`
	Error   string      `json:"error,omitempty"` // why nothing could be checked
	Next    string      `json:"next,omitempty"`  // what to do then
	Seconds float64     `json:"seconds"`
	Nodes   int         `json:"nodes"`
	// Agentless are nodes that are not to have an agent, and so were left out.
	Agentless []agentlessOutput `json:"withoutAgent,omitempty"`
	Peers     int               `json:"peersOfEach"` // other nodes that each was to probe
	Pairs     []probe.Pair      `json:"pairs,omitempty"`
	Findings  []probe.Finding   `json:"findings,omitempty"`
	Problems  []problemOutput   `json:"problems,omitempty"` // that the nodes report themselves
	Reports   []*probe.Report   `json:"reports,omitempty"`
}

// checkOptions are the flags of check.
type checkOptions struct {
	kube   kube.Options
	nodes  []string
	all    bool
	output format
}

func checkCommand() *cobra.Command {
	var options checkOptions
	command := &cobra.Command{
		Use:   "check",
		Short: "Send packets between all nodes and their pods, and say what is lost and why",
		Long: fmt.Sprintf(`Let every node send packets to the others: between pods, between nodes, and from
each to the other, by ICMP, UDP and TCP, over each address family, small and as
large as should pass. Say what is lost, why as far as can be told, and what to do.

It needs a kubeconfig that may run commands in the agents' pods. It works while
the pod network does not, takes a few seconds, and makes no pods.

In clusters of more than %d nodes, each node probes %d others; --all makes it
probe all. Nodes that have no agent, as their labels say, are left out and named.

Exit codes: 0 packets get everywhere, 1 some do not, 2 it cannot be told.`, fewNodes, somePeers),
		Example: `  fairlead check
  fairlead check --nodes node1,node7
  fairlead check -o wide`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			began := time.Now()
			options.kube.UserAgent = "fairlead-check/" + Version
			result, err := check(command.Context(), &options)
			if err != nil {
				result = checkOutput{State: probe.Unknown, Error: err.Error(), Next: nextOf(err, seeCluster)}
			}
			result.Seconds = time.Since(began).Seconds()
			if err := printCheck(command.OutOrStdout(), &options.output, result); err != nil {
				return err
			}
			switch result.State {
			case probe.Failed:
				return exitBroken
			case probe.Unknown:
				return exitUnchecked
			default:
				return nil
			}
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.kube.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	flags.StringSliceVar(&options.nodes, "nodes", nil, "check only these, and only between them")
	flags.BoolVar(&options.all, "all", false, "let every node probe all others, however many there are")
	formatFlag(command, &options.output, inText, inWide, inJSON, inYAML)
	completeNodeList(command, "nodes", &options.kube)
	return command
}

func check(ctx context.Context, options *checkOptions) (result checkOutput, err error) {
	client, err := kube.Connect(options.kube)
	if err != nil {
		return result, err
	}
	overview, err := client.Overview(ctx)
	if err != nil {
		return result, err
	}
	nodes, err := chosenNodes(overview, options.nodes)
	if err != nil {
		return result, err
	}
	if len(options.nodes) == 0 {
		result.Agentless = agentlessNodes(overview.Nodes)
	}
	asked := whatToAsk(nodes, options.all)
	result.Nodes = len(nodes)
	for _, a := range asked {
		result.Peers = max(result.Peers, len(a.Peers)-1)
	}
	askAll(ctx, client, nodes, asked)
	result.Pairs, result.Findings = probe.Judge(asked)
	for _, f := range result.Findings {
		result.State = max(result.State, f.State)
	}
	for _, a := range asked {
		if a.Report != nil {
			result.Reports = append(result.Reports, a.Report)
		}
	}
	result.Problems = problemOutputs(reported(nodes))
	return result, nil
}

// chosenNodes are those that are named, or all that are to have an agent.
func chosenNodes(overview *kube.Overview, names []string) ([]kube.NodeOverview, error) {
	if !overview.Installed {
		return nil, fmt.Errorf("this cluster has no Fairlead yet: kubectl apply --server-side -f fairlead.yaml")
	}
	if len(overview.Nodes) == 0 {
		return nil, fmt.Errorf("the cluster has no nodes")
	}
	var chosen []kube.NodeOverview
	if len(names) == 0 {
		for _, node := range overview.Nodes {
			if agentlessNode(node.Node) == nil {
				chosen = append(chosen, node)
			}
		}
		if len(chosen) == 0 {
			first := agentlessNode(overview.Nodes[0].Node)
			return nil, fmt.Errorf("no node is to have an agent: %s has none, %s", first.Name, first.why())
		}
		return chosen, nil
	}
	for _, name := range names {
		at := slices.IndexFunc(overview.Nodes, func(n kube.NodeOverview) bool { return n.Node.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("--nodes: there is no node %q; kubectl get nodes lists them", name)
		}
		if node := agentlessNode(overview.Nodes[at].Node); node != nil {
			return nil, fmt.Errorf("--nodes: node %s has no agent that could be asked, %s", name, node.why())
		}
		chosen = append(chosen, overview.Nodes[at])
	}
	slices.SortFunc(chosen, func(a, b kube.NodeOverview) int { return strings.Compare(a.Node.Name, b.Node.Name) })
	return slices.CompactFunc(chosen, func(a, b kube.NodeOverview) bool { return a.Node.Name == b.Node.Name }), nil
}

// whatToAsk says which nodes each node is to probe, itself among them.
func whatToAsk(nodes []kube.NodeOverview, all bool) (asked []probe.Asked) {
	var names []string
	for _, node := range nodes {
		names = append(names, node.Node.Name)
	}
	for _, name := range names {
		peers := names
		if len(names) > fewNodes && !all {
			peers = append([]string{name}, probe.Choose(name, names, somePeers)...)
		}
		asked = append(asked, probe.Asked{Node: name, Peers: peers})
	}
	return asked
}

// askAll fills in what the nodes answer.
func askAll(ctx context.Context, client *kube.Client, nodes []kube.NodeOverview, asked []probe.Asked) {
	var asking sync.WaitGroup
	slots := make(chan struct{}, askAbreast)
	for i, place := range places(&kube.Overview{Nodes: nodes}) {
		a := &asked[i]
		if place.Trouble != "" {
			a.Error, a.Next = place.Trouble, place.Next
			continue
		}
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, askTime)
			defer cancel()
			said, err := client.ExecAgent(ctx, place.Agent, nil, append([]string{"/fairlead", "probe"}, a.Peers...)...)
			if err == nil {
				a.Report = &probe.Report{}
				err = json.Unmarshal(said, a.Report)
			}
			if err != nil {
				a.Report, a.Error = nil, err.Error()
				if kube.IsForbidden(err) {
					a.Error, _ = kube.Forbidden(err) // which is the same for all nodes, and so is told once
				}
				a.Next = nextOf(err, seeAgent(place.Agent))
			}
		})
	}
	asking.Wait()
}

// seeAgent is what to do when the agent in a pod does not answer.
func seeAgent(pod string) string {
	return "see whether its agent and its kubelet run: kubectl -n kube-system describe pod " + pod
}

// reported are the problems that nodes say of themselves: the likeliest causes,
// such as the chain of a firewall that drops what pods send.
func reported(nodes []kube.NodeOverview) (problems []model.Problem) {
	for _, node := range nodes {
		if node.Report == nil {
			continue
		}
		for _, problem := range node.Report.Status.Problems {
			problems = append(problems, model.Problem(problem))
		}
	}
	slices.SortFunc(problems, model.Problem.Compare)
	return slices.Compact(problems)
}
