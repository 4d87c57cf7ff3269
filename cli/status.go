package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/controller"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// Exit codes of status. Success is 0.
const (
	exitUnhealthy exitCode = 1
	exitUnknown   exitCode = 2
)

// statusOutput is what status -o json prints. It only grows.
type statusOutput struct {
	State    string          `json:"state"`           // healthy, unhealthy or unknown
	Error    string          `json:"error,omitempty"` // why it is unknown
	Nodes    []nodeOutput    `json:"nodes,omitempty"`
	Problems []problemOutput `json:"problems,omitempty"`
}

type nodeOutput struct {
	Name      string `json:"name"`
	State     string `json:"state"` // ready, or the reason why not
	Pods      int    `json:"pods"`
	Direct    int    `json:"direct"`    // other nodes that are reached by a plain route
	Tunnelled int    `json:"tunnelled"` // and through a tunnel
	Uplink    string `json:"uplink,omitempty"`
	MTU       int    `json:"mtu,omitempty"` // of the uplink, in bytes
	Version   string `json:"version,omitempty"`
}

func statusCommand() *cobra.Command {
	var options kube.Options
	var output string
	command := &cobra.Command{
		Use:   "status",
		Short: "Say whether the network is healthy, or what is wrong and what to do",
		Long: `Say whether the network is healthy, or what is wrong, why, and what to do next.
It needs nothing but a kubeconfig.

Exit codes: 0 healthy, 1 unhealthy, 2 it cannot be told.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				fmt.Fprintf(command.ErrOrStderr(), "fairlead: -o %s: not a format; text and json are\n", output)
				return exitUnknown // 1 would say that the network is unhealthy
			}
			options.UserAgent = "fairlead-status/" + Version
			overview, err := overview(command.Context(), options)
			status := statusOutput{State: "unknown"}
			if err != nil {
				status.Error = err.Error()
			} else {
				status = judge(overview, time.Now())
			}
			if err := printStatus(command.OutOrStdout(), output, status); err != nil {
				return err
			}
			switch status.State {
			case "healthy":
				return nil
			case "unhealthy":
				return exitUnhealthy
			default:
				return exitUnknown
			}
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	flags.StringVarP(&output, "output", "o", "text", "text or json")
	return command
}

func overview(ctx context.Context, options kube.Options) (*kube.Overview, error) {
	client, err := kube.Connect(options)
	if err != nil {
		return nil, err
	}
	return client.Overview(ctx)
}

// judge decides on health. The controller's summary is not asked, so that it
// may be down; what it would say of the cluster is computed here.
func judge(overview *kube.Overview, now time.Time) statusOutput {
	if !overview.Installed {
		return statusOutput{State: "unhealthy", Problems: problemOutputs([]model.Problem{{
			Kind: "Cluster", Name: "fairlead", Reason: "NotInstalled",
			Message: "Fairlead is not installed in this cluster",
			Remedy:  "kubectl apply --server-side -f fairlead.yaml",
		}})}
	}
	var status statusOutput
	var problems []model.Problem
	snapshot := &model.Snapshot{}
	for _, node := range overview.Nodes {
		snapshot.Nodes = snapshot.Nodes.With(node.Node.Name, node.Node)
		line := nodeOutput{Name: node.Node.Name, State: "ready"}
		if problem, ok := controller.NodeProblem(node.Node.Name, node.Report, now); ok {
			problem = explained(problem, node)
			line.State = problem.Reason
			problems = append(problems, problem)
		}
		if node.Report != nil {
			said := node.Report.Status
			line.Pods, line.Uplink, line.MTU, line.Version = int(said.Pods), said.Uplink, int(said.MTU), said.AgentVersion
			line.Direct, line.Tunnelled = int(said.Peers.Direct), int(said.Peers.Tunnelled)
			for _, problem := range said.Problems {
				problems = append(problems, model.Problem(problem))
			}
		}
		status.Nodes = append(status.Nodes, line)
	}
	problems = append(problems, plan.Cluster(snapshot)...)
	slices.SortFunc(problems, model.Problem.Compare)
	status.Problems = problemOutputs(slices.Compact(problems))
	status.State = "healthy"
	if len(problems) > 0 {
		status.State = "unhealthy"
	}
	return status
}

// explained says more of a node that is not ready, from what Kubernetes knows
// of its kubelet and of its agent's pod.
func explained(problem model.Problem, node kube.NodeOverview) model.Problem {
	switch agent := node.Agent; {
	case !node.Ready && problem.Reason == "AgentSilent":
		problem.Message += ", and its kubelet is not ready either"
		problem.Remedy = "see whether the machine runs and reaches the API server: kubectl describe node " + node.Node.Name
	case agent == nil:
		problem.Message += "; it has no agent pod"
		problem.Remedy = "see why there is none: kubectl -n kube-system describe daemonset fairlead-agent"
	case !agent.Ready:
		problem.Message += fmt.Sprintf("; its pod %s is not ready (%s)", agent.Name, agent.State)
		problem.Remedy = "see why: kubectl -n kube-system describe pod " + agent.Name +
			"; kubectl -n kube-system logs " + agent.Name
	default:
		problem.Remedy = "see why: kubectl -n kube-system logs " + agent.Name
	}
	return problem
}

func printStatus(to io.Writer, output string, status statusOutput) error {
	if output == "json" {
		return printJSON(to, status)
	}
	switch {
	case status.Error != "":
		fmt.Fprintf(to, "unknown: %s\n  next: see whether the cluster can be reached: kubectl get nodes\n", status.Error)
	case status.State == "healthy":
		fmt.Fprintf(to, "healthy: the network is ready on all %d nodes\n", len(status.Nodes))
	default:
		fmt.Fprintf(to, "unhealthy: %d problems\n", len(status.Problems))
	}
	for _, problem := range status.Problems {
		fmt.Fprintf(to, "\n%s\n  what: %s\n", strings.TrimSpace(problem.Object+" "+problem.Field), problem.Message)
		if problem.Remedy != "" {
			fmt.Fprintf(to, "  next: %s\n", problem.Remedy)
		}
	}
	if len(status.Nodes) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(to, 0, 0, 3, ' ', 0)
	fmt.Fprintf(table, "\nNODE\tNETWORK\tPODS\tDIRECT\tTUNNELLED\tUPLINK\tMTU\tVERSION\n")
	for _, n := range status.Nodes {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\t%d\t%s\n",
			n.Name, n.State, n.Pods, n.Direct, n.Tunnelled, n.Uplink, n.MTU, n.Version)
	}
	return table.Flush()
}
