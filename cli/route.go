package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// Exit codes of route. Success, which is that it arrives, is 0.
const (
	exitStops  exitCode = 1
	exitUntold exitCode = 2
)

// routeOutput is what route -o json prints. It only grows.
type routeOutput struct {
	Outcome string       `json:"outcome"` // arrives, stops or unknown; of the worst path
	Paths   []pathOutput `json:"paths"`   // one for each address family
}

type pathOutput struct {
	*trace.Path
	Back *trace.Path `json:"back,omitempty"` // of the answer, if it can be followed
	// Missed are endpoints of the Service that were tried first, and that the
	// packet does not get to.
	Missed []missedOutput `json:"missed,omitempty"`
}

type missedOutput struct {
	Address netip.AddrPort `json:"address"`
	Why     string         `json:"why"`
}

// routeOptions are the flags of route.
type routeOptions struct {
	kube               kube.Options
	namespace          string
	from, to           string
	protocol           string
	protocolSaid       bool
	port               uint16
	backend            string
	onlyIPv4, onlyIPv6 bool
	back               bool
	output             format
}

func routeCommand() *cobra.Command {
	var options routeOptions
	command := &cobra.Command{
		Use:   "route --from POD|node/NODE --to POD|node/NODE|svc/SERVICE|ADDRESS[:PORT]",
		Short: "Follow a packet: every interface on its way, and where it ends",
		Long: `Follow a packet from a pod or a node to a pod, a node, a Service or an address:
every interface with its route, neighbour, tunnel and MTU, as the kernel of each
node has it, and where that is not as planned. No packet is sent: the nodes are
asked through the API server and their kubelets, so that it works while the pod
network does not.

To a Service, it says where the address is translated, to which endpoints it may
lead, and follows one: the first that is reached, or that of --backend.

The way of the answer is looked at, too, and shown if something is wrong on it
(--return shows it always).

Exit codes: 0 it arrives, 1 it does not, 2 it cannot be told.`,
		Example: `  fairlead route --from web-0 --to db-0
  fairlead route --from shop/web-0 --to 10.244.3.17
  fairlead route --from node/worker-1 --to db-0 -n shop --return
  fairlead route --from web-0 --to node/worker-2:8080
  fairlead route --from web-0 --to svc/shop/db
  fairlead route --from web-0 --to 10.96.0.10:53 --protocol udp --backend kube-system/coredns-0
  fairlead route --from web-0 --to 203.0.113.10`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return runRoute(command, &options)
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.from, "from", "", "where the packet comes from: [NAMESPACE/]POD or node/NODE")
	flags.StringVar(&options.to, "to", "", "where it goes: [NAMESPACE/]POD, node/NODE, svc/[NAMESPACE/]SERVICE or an address, with :PORT if it matters")
	flags.StringVarP(&options.namespace, "namespace", "n", "", "of pods and Services that are named without; that of the kubeconfig if empty")
	flags.Uint16Var(&options.port, "port", 0, "of the destination, if it may be a Service's or a host port")
	flags.StringVar(&options.protocol, "protocol", "TCP", "of the port: TCP, UDP or SCTP")
	flags.StringVar(&options.backend, "backend", "", "endpoint of the Service to follow: [NAMESPACE/]POD or ADDRESS[:PORT]; the first that is reached if empty")
	flags.BoolVarP(&options.onlyIPv4, "ipv4", "4", false, "only IPv4; without, both families if both ends have both")
	flags.BoolVarP(&options.onlyIPv6, "ipv6", "6", false, "only IPv6")
	flags.BoolVar(&options.back, "return", false, "show the way of the answer, too, whatever it is like")
	flags.StringVar(&options.kube.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	formatFlag(command, &options.output, inText, inJSON, inYAML)
	command.MarkFlagsMutuallyExclusive("ipv4", "ipv6")
	for _, flag := range []string{"from", "to"} {
		if err := command.MarkFlagRequired(flag); err != nil {
			panic(err) // the flag is defined above
		}
		completeEnds(command, flag, &options.kube, &options.namespace)
	}
	completeFlag(command, "backend", completePods(&options.kube, &options.namespace))
	complete(command, "protocol", "TCP", "UDP", "SCTP")
	return command
}

// routeTimeout is for all of the nodes together.
const routeTimeout = time.Minute

func runRoute(command *cobra.Command, options *routeOptions) error {
	ctx, cancel := context.WithTimeout(command.Context(), routeTimeout)
	defer cancel()
	options.kube.UserAgent = "fairlead-route/" + Version
	options.protocolSaid = command.Flags().Changed("protocol")
	output, err := options.follow(ctx)
	if err != nil {
		explain(command, err)
		return exitUntold
	}
	if options.output.structured() {
		err = options.output.print(command.OutOrStdout(), output)
	} else {
		err = printPaths(command.OutOrStdout(), output, options.back)
	}
	if err != nil {
		return err
	}
	switch trace.Outcome(output.Outcome) {
	case trace.Arrives:
		return nil
	case trace.Stops:
		return exitStops
	default:
		return exitUntold
	}
}

func printPaths(to io.Writer, output *routeOutput, back bool) error {
	for i, path := range output.Paths {
		if i > 0 {
			fmt.Fprintln(to)
		}
		colours := paletteOf(to)
		if err := trace.Text(to, path.Path, path.Back, back, trace.Style{Colour: colours.on}); err != nil {
			return err
		}
		for _, missed := range path.Missed {
			fmt.Fprintf(to, "%s another connection may go to %s, and does not get there: %s\n       next    --backend %s\n",
				colours.bad("✗"), missed.Address, missed.Why, missed.Address)
		}
	}
	return nil
}

// follow walks in all families that both ends have, side by side.
func (o *routeOptions) follow(ctx context.Context) (*routeOutput, error) {
	protocol, err := model.ParseProtocol(o.protocol)
	if err != nil {
		return nil, &trace.Unasked{Err: fmt.Errorf("--protocol %w", err), Next: "fairlead route --help"}
	}
	client, err := kube.Connect(o.kube)
	if err != nil {
		return nil, err
	}
	overview, err := client.Overview(ctx)
	if err != nil {
		return nil, err
	}
	search := &endSearch{client: client, cluster: places(overview), namespace: o.namespace, port: o.port}
	if o.protocolSaid {
		search.protocol = protocol
	}
	if o.namespace == "" {
		search.namespace = o.kube.Namespace()
	}
	trips, err := search.trips(ctx, o.from, o.to)
	if err == nil && o.backend != "" {
		err = search.through(ctx, trips, o.backend)
	}
	if err != nil {
		return nil, err
	}
	trips = slices.DeleteFunc(trips, func(t trace.Trip) bool {
		return o.onlyIPv4 && t.To.Address.Is6() || o.onlyIPv6 && t.To.Address.Is4()
	})
	if len(trips) == 0 {
		return nil, &trace.Unasked{
			Err:  fmt.Errorf("%s and %s have no addresses of the same family that is asked for", o.from, o.to),
			Next: "kubectl get pods,nodes -o wide shows what they have",
		}
	}
	output := &routeOutput{Outcome: string(trace.Arrives), Paths: make([]pathOutput, len(trips))}
	var walks sync.WaitGroup
	for i, trip := range trips {
		walks.Go(func() { output.Paths[i] = walkBoth(search.cluster, trip, askNode(ctx, client, search.cluster)) })
	}
	walks.Wait()
	for _, path := range output.Paths {
		output.worsen(path.Path)
		if path.Back != nil {
			output.worsen(path.Back)
		}
	}
	return output, nil
}

func (o *routeOutput) worsen(path *trace.Path) {
	switch {
	case path.Outcome == trace.Stops:
		o.Outcome = string(trace.Stops)
	case path.Outcome == trace.Unknown && o.Outcome != string(trace.Stops):
		o.Outcome = string(trace.Unknown)
	}
}

// walkBoth follows a packet, and its answer if it arrives.
func walkBoth(cluster []trace.Place, trip trace.Trip, ask trace.Ask) pathOutput {
	output := pathOutput{Path: trace.Walk(cluster, trip, ask)}
	output.tryOthers(cluster, trip, ask)
	if back, ok := output.Path.Return(); ok {
		output.Back = trace.Walk(cluster, back, ask)
	}
	return output
}

// mostTries are the endpoints that are followed until one is reached.
const mostTries = 5

// tryOthers follows other endpoints of the Service if the first is not reached,
// and none was asked for.
func (o *pathOutput) tryOthers(cluster []trace.Place, trip trace.Trip, ask trace.Ask) {
	led := o.Service
	if led == nil || o.Outcome == trace.Arrives || o.Outcome == trace.Leaves || trip.Backend.IsValid() {
		return
	}
	missed := []missedOutput{{led.To, o.Why()}}
	for _, choice := range led.Choices[:min(len(led.Choices), mostTries)] {
		if choice.Address == led.To {
			continue
		}
		trip.Backend = choice.Address
		path := trace.Walk(cluster, trip, ask)
		if path.Outcome == trace.Arrives || path.Outcome == trace.Leaves {
			o.Path, o.Missed = path, missed
			return
		}
		missed = append(missed, missedOutput{choice.Address, path.Why()})
	}
}

// places says of each node whether it can be asked.
func places(overview *kube.Overview) []trace.Place {
	var all []trace.Place
	for _, node := range overview.Nodes {
		place := trace.Place{Node: node.Node}
		name := node.Node.Name
		switch agent := node.Agent; {
		case !node.Ready:
			place.Trouble = fmt.Sprintf("%s cannot be asked: its kubelet is not ready", name)
			place.Next = "see whether the machine runs and reaches the API server: kubectl describe node " + name
		case agent == nil && agentlessNode(node.Node) != nil:
			place.Trouble = fmt.Sprintf("%s cannot be asked: it has no agent, %s", name, agentlessNode(node.Node).why())
			place.Next = "look at the node itself: what is there is none of Fairlead's"
		case agent == nil:
			place.Trouble = fmt.Sprintf("%s cannot be asked: it has no agent pod", name)
			place.Next = "see why there is none: kubectl -n kube-system describe daemonset fairlead-agent"
		case !agent.Ready && agent.State != "Running":
			place.Trouble = fmt.Sprintf("%s cannot be asked: its agent's pod %s does not run (%s)", name, agent.Name, agent.State)
			place.Next = "see why: kubectl -n kube-system describe pod " + agent.Name
		}
		if node.Agent != nil {
			place.Agent = node.Agent.Name
		}
		if node.Report != nil {
			for _, problem := range node.Report.Status.Problems {
				// Those of other objects say nothing of packets that pass here.
				if problem.Kind == "Node" || problem.Kind == "Network" {
					place.Problems = append(place.Problems, model.Problem(problem))
				}
			}
		}
		all = append(all, place)
	}
	return all
}

// askNode asks the agent of a node, in its container.
func askNode(ctx context.Context, client *kube.Client, cluster []trace.Place) trace.Ask {
	return func(node string, q trace.Question) (*trace.Answer, error) {
		at := slices.IndexFunc(cluster, func(p trace.Place) bool { return p.Name == node })
		agent := cluster[at].Agent
		question, err := json.Marshal(q)
		if err != nil {
			return nil, fmt.Errorf("write the question: %w", err)
		}
		said, err := client.ExecAgent(ctx, agent, nil, "/fairlead", "hop", string(question))
		if err != nil {
			return nil, &trace.Unasked{Err: err, Next: nextOf(err, seeAgent(agent))}
		}
		answer := &trace.Answer{}
		if err := json.Unmarshal(said, answer); err != nil {
			return nil, &trace.Unasked{
				Err:  fmt.Errorf("its agent answers something else: %w", err),
				Next: "use a fairlead of the same version as the agent: kubectl -n kube-system describe pod " + agent,
			}
		}
		return answer, nil
	}
}
