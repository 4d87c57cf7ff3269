package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
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
	State      string            `json:"state"`           // healthy, unhealthy or unknown
	Error      string            `json:"error,omitempty"` // why it is unknown
	Next       string            `json:"next,omitempty"`  // what to do then
	Controller *controllerOutput `json:"controller,omitempty"`
	Nodes      []nodeOutput      `json:"nodes,omitempty"`
	Agentless  []agentlessOutput `json:"withoutAgent,omitempty"` // of the nodes, those that are not to have an agent
	Gateways   *gatewaysOutput   `json:"gateways,omitempty"`     // if there are, or are to be, any, or that is not known
	Problems   []problemOutput   `json:"problems,omitempty"`
}

// controllerOutput is the leader among the controllers; nil if the user must not
// know.
type controllerOutput struct {
	Leader  string    `json:"leader,omitempty"` // empty: none leads
	Renewed time.Time `json:"renewed,omitzero"`
	Silent  bool      `json:"silent"`
}

type nodeOutput struct {
	Name      string         `json:"name"`
	State     string         `json:"state"` // ready, NoAgent of a node that is not to have one, or the reason why it is not ready
	Pods      int            `json:"pods"`
	Direct    int            `json:"direct"`    // other nodes that are reached by a plain route
	Tunnelled int            `json:"tunnelled"` // and through a tunnel
	Uplink    string         `json:"uplink,omitempty"`
	MTU       int            `json:"mtu,omitempty"` // of the uplink, in bytes
	Version   string         `json:"version,omitempty"`
	Addresses []netip.Addr   `json:"addresses,omitempty"`
	PodCIDRs  []netip.Prefix `json:"podCIDRs,omitempty"`
	LastSeen  time.Time      `json:"lastSeen,omitzero"` // its agent's report
	Agent     string         `json:"agent,omitempty"`   // its pod
	Kubelet   string         `json:"kubelet"`           // ready or notready
}

func statusCommand() *cobra.Command {
	var options kube.Options
	var output format
	command := &cobra.Command{
		Use:   "status [NODE]",
		Short: "Say whether the network is healthy, or what is wrong and what to do",
		Long: `Say whether the network is healthy, or what is wrong, why, and what to do next;
of the cluster, or of one node with all that its agent can tell. It needs nothing
but a kubeconfig. Without the controller, it computes itself what that would say.
A node that no agent is to run on, as its label says, is no problem.
Gateways and certificates that end soon count; what is wrong with single Ingresses
is only summed up.

Exit codes: 0 healthy, 1 unhealthy, 2 it cannot be told.`,
		Example: `  fairlead status
  fairlead status node1
  fairlead status -o json | jq -r '.problems[].message'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			options.UserAgent = "fairlead-status/" + Version
			if len(args) == 1 {
				return nodeStatus(command, options, &output, args[0])
			}
			status, now, err := clusterStatus(command.Context(), options)
			if err != nil {
				status = statusOutput{State: "unknown", Error: err.Error(), Next: nextOf(err, seeCluster)}
			}
			if err := printStatus(command.OutOrStdout(), &output, status, now); err != nil {
				return err
			}
			return exitOf(status.State)
		},
	}
	command.Flags().StringVar(&options.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	formatFlag(command, &output, inText, inWide, inJSON, inYAML)
	command.ValidArgsFunction = completeNodes(&options, 1)
	return command
}

// exitOf is nil for a healthy state.
func exitOf(state string) error {
	switch state {
	case "healthy":
		return nil
	case "unhealthy":
		return exitUnhealthy
	default:
		return exitUnknown
	}
}

// clusterStatus returns the time by the API server, too.
func clusterStatus(ctx context.Context, options kube.Options) (status statusOutput, now time.Time, err error) {
	client, err := kube.Connect(options)
	if err != nil {
		return status, now, err
	}
	overview, err := client.Overview(ctx)
	if err != nil {
		return status, now, err
	}
	var gateways *gatewaysFound
	if overview.Installed {
		if gateways, err = findGateways(ctx, client, ""); err != nil {
			return status, now, err
		}
	}
	return judge(overview, gateways, overview.Time), overview.Time, nil
}

// judge decides on health. The controller's summary is not asked, so that it
// may be down; what it would say of the cluster is computed here.
func judge(overview *kube.Overview, gateways *gatewaysFound, now time.Time) statusOutput {
	if !overview.Installed {
		return statusOutput{State: "unhealthy", Problems: problemOutputs([]model.Problem{{
			Kind: "Cluster", Name: "fairlead", Reason: "NotInstalled",
			Message: "Fairlead is not installed in this cluster",
			Remedy:  "kubectl apply --server-side -f fairlead.yaml",
		}})}
	}
	var status statusOutput
	var problems []model.Problem
	if leader := overview.Leader; leader != nil {
		problem, silent := controller.LeaderProblem(leader, now)
		status.Controller = &controllerOutput{Leader: leader.Identity, Renewed: leader.Renewed, Silent: silent}
		if silent {
			problems = append(problems, problem)
		}
	}
	snapshot := &model.Snapshot{}
	for i := range overview.Nodes {
		node := &overview.Nodes[i]
		snapshot.Nodes = snapshot.Nodes.With(node.Node.Name, node.Node)
		line, found := judgeNode(node, now)
		problems = append(problems, found...)
		status.Nodes = append(status.Nodes, line)
	}
	status.Agentless = agentlessNodes(overview.Nodes)
	problems = append(problems, plan.Cluster(snapshot)...)
	var found []model.Problem
	status.Gateways, found = judgeGateways(gateways)
	problems = append(problems, found...)
	slices.SortFunc(problems, model.Problem.Compare)
	status.Problems = problemOutputs(slices.Compact(problems))
	status.State = stateOf(problems)
	return status
}

func stateOf(problems []model.Problem) string {
	if len(problems) > 0 {
		return "unhealthy"
	}
	return "healthy"
}

// stateNoAgent is of nodes that are not to have an agent.
const stateNoAgent = "NoAgent"

// judgeNode also returns the problems that concern the node.
func judgeNode(node *kube.NodeOverview, now time.Time) (line nodeOutput, problems []model.Problem) {
	line = nodeOutput{
		Name: node.Node.Name, State: "ready", Kubelet: "ready",
		Addresses: node.Node.Addresses, PodCIDRs: node.Node.PodCIDRs,
	}
	if !node.Ready {
		line.Kubelet = "notready"
	}
	if node.Agent != nil {
		line.Agent = node.Agent.Name
	}
	if agentlessNode(node.Node) != nil {
		line.State = stateNoAgent
		return line, nil // what an agent has said there is of another time
	}
	if problem, ok := controller.NodeProblem(node.Node.Name, node.Report, now); ok {
		problem = explained(problem, *node)
		line.State = problem.Reason
		problems = append(problems, problem)
	}
	if node.Report != nil {
		said := node.Report.Status
		line.Pods, line.Uplink, line.MTU, line.Version = int(said.Pods), said.Uplink, int(said.MTU), said.AgentVersion
		line.Direct, line.Tunnelled = int(said.Peers.Direct), int(said.Peers.Tunnelled)
		line.LastSeen = said.HeartbeatTime.Time
		for _, problem := range said.Problems {
			problems = append(problems, model.Problem(problem))
		}
	}
	return line, problems
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

func printStatus(to io.Writer, output *format, status statusOutput, now time.Time) error {
	if output.structured() {
		return output.print(to, status)
	}
	colours := paletteOf(to)
	switch {
	case status.Error != "":
		fmt.Fprintf(to, "%s: %s\n  next: %s\n", colours.doubt("unknown"), status.Error, status.Next)
	case status.State == "healthy":
		fmt.Fprintf(to, "%s: %s\n", colours.good("healthy"), controller.AllReady(len(status.Nodes), len(status.Agentless)))
	default:
		fmt.Fprintf(to, "%s: %s\n", colours.bad("unhealthy"), count(len(status.Problems), "problem"))
	}
	printAgentless(to, status.Agentless)
	printProblems(to, colours, status.Problems)
	if c := status.Controller; output.name == inWide && c != nil && c.Leader != "" {
		fmt.Fprintf(to, "\ncontroller: %s leads, heard of %s\n", c.Leader, ago(c.Renewed, now))
	}
	if len(status.Nodes) == 0 {
		return nil
	}
	fmt.Fprintln(to)
	if err := nodeTable(status.Nodes, output.name == inWide, colours, now).write(to); err != nil || status.Gateways == nil {
		return err
	}
	fmt.Fprintln(to)
	return gatewayTable(to, status.Gateways, output.name == inWide, colours)
}

func nodeTable(nodes []nodeOutput, wide bool, colours palette, now time.Time) *table {
	lines := &table{paint: func(column int, cell string) string {
		switch {
		case column != 1, cell == stateNoAgent:
			return cell
		case cell == "ready":
			return colours.good(cell)
		default:
			return colours.bad(cell)
		}
	}}
	head := []string{"NODE", "NETWORK", "PODS", "DIRECT", "TUNNELLED", "UPLINK", "MTU", "VERSION"}
	if wide {
		head = append(head, "KUBELET", "LAST SEEN", "ADDRESSES", "POD RANGES", "AGENT")
	}
	lines.add(head...)
	for _, n := range nodes {
		row := []string{
			n.Name, n.State, strconv.Itoa(n.Pods), strconv.Itoa(n.Direct), strconv.Itoa(n.Tunnelled),
			n.Uplink, strconv.Itoa(n.MTU), n.Version,
		}
		if wide {
			row = append(row, n.Kubelet, ago(n.LastSeen, now), orNone(commas(n.Addresses)), orNone(commas(n.PodCIDRs)), orNone(n.Agent))
		}
		lines.add(row...)
	}
	return lines
}

func printProblems(to io.Writer, colours palette, problems []problemOutput) {
	for _, problem := range problems {
		fmt.Fprintf(to, "\n%s\n  what: %s\n", colours.bold(strings.TrimSpace(problem.Object+" "+problem.Field)), problem.Message)
		if problem.Remedy != "" {
			fmt.Fprintf(to, "  next: %s\n", problem.Remedy)
		}
	}
}

// count is such as "1 problem" and "2 problems".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// ago is how long ago something was.
func ago(then, now time.Time) string {
	if then.IsZero() {
		return "never"
	}
	return max(0, now.Sub(then)).Truncate(time.Second).String() + " ago"
}

func orNone(text string) string { return cmp.Or(text, "none") }

func commas[T fmt.Stringer](items []T) string {
	var texts []string
	for _, item := range items {
		texts = append(texts, item.String())
	}
	return strings.Join(texts, ",")
}
