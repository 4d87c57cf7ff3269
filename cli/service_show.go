package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/service"
	"github.com/fairlead-net/fairlead/observe/trace"
	planned "github.com/fairlead-net/fairlead/plan/service"
)

// serviceShowOutput is what service show -o json prints. It only grows.
type serviceShowOutput struct {
	State   string         `json:"state"`           // served, problems or unknown
	Error   string         `json:"error,omitempty"` // why it is unknown
	Next    string         `json:"next,omitempty"`
	Service *serviceOutput `json:"service,omitempty"`
	// Report is what the node makes of it. It is planned here if the node cannot
	// be asked: Silence says why.
	Report   *service.Report   `json:"report,omitempty"`
	Chosen   bool              `json:"chosen,omitempty"` // nobody has asked for this node
	Silence  string            `json:"silence,omitempty"`
	Others   []differingOutput `json:"otherNodes,omitempty"` // on which other answers are given
	Problems []problemOutput   `json:"problems,omitempty"`
}

// differingOutput are nodes that give other answers than the one shown.
type differingOutput struct {
	Nodes   []string `json:"nodes"`
	Answers []string `json:"answers"`
}

// showOptions are the flags of service show.
type showOptions struct {
	kube            kube.Options
	namespace, node string
	output          format
}

func serviceShowCommand() *cobra.Command {
	var options showOptions
	command := &cobra.Command{
		Use:   "show [NAMESPACE/]NAME",
		Short: "Show where each address of a Service leads, on one node, and why",
		Long: `Show what a node makes of a Service: where each of its addresses leads, for pods
and for clients outside; which endpoints are used, and why the others are not; how
many connections are open through this node; and where the node's kernel is not
as planned. Other nodes are only named if they give other answers.

It needs a kubeconfig that may run commands in the agents' pods.

Exit codes: 0 the Service is served, or has nothing to serve, 1 there are problems,
or connections are refused, 2 it cannot be told.`,
		Example: `  fairlead service show web
  fairlead service show shop/web --node node2
  fairlead service show kube-system/kube-dns -o json | jq '.report.ports[].endpoints'`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(command.Context(), serviceTime)
			defer cancel()
			options.kube.UserAgent = "fairlead-service/" + Version
			show := showService(ctx, &options, args[0])
			var err error
			if options.output.structured() {
				err = options.output.print(command.OutOrStdout(), show)
			} else {
				err = printService(command.OutOrStdout(), show)
			}
			if err != nil {
				return err
			}
			return exitOfServices(show.State)
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.kube.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	flags.StringVarP(&options.namespace, "namespace", "n", "", "of the Service; that of the kubeconfig if empty")
	flags.StringVar(&options.node, "node", "", "whose view it is; one that can be asked if empty")
	formatFlag(command, &options.output, inText, inJSON, inYAML)
	command.ValidArgsFunction = onlyFirst(completeServices(&options.kube, &options.namespace))
	err := command.RegisterFlagCompletionFunc("node", func(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return nodeNames(command.Context(), options.kube), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag is defined above
	}
	return command
}

// showService finds out all there is to say.
func showService(ctx context.Context, options *showOptions, name string) serviceShowOutput {
	namespace, service, ok := strings.Cut(name, "/")
	if !ok {
		namespace, service = cmp.Or(options.namespace, options.kube.Namespace()), name
	}
	key := model.ServiceKey{Namespace: namespace, Name: service}
	unknown := func(err error, next string) serviceShowOutput {
		return serviceShowOutput{State: stateUnknown, Error: err.Error(), Next: next}
	}
	found, err := findServices(ctx, options.kube, key)
	if err != nil {
		return unknown(err, nextOf(err, seeCluster))
	}
	if len(found.serving.Services) == 0 {
		return unknown(found.unknownService(ctx, key), "fairlead service list -A; another namespace is named with -n")
	}
	line := describe(&found.serving.Services[0], bySlices(found.serving.Snapshot))
	show := serviceShowOutput{State: stateServed, Service: &line, Problems: found.problems(), Chosen: options.node == ""}
	if line.Unserved != "" {
		return show
	}
	place, err := found.place(options.node)
	if err != nil {
		return unknown(err, "kubectl get nodes")
	}
	show.Report, err = found.ask(ctx, place, key)
	if err != nil {
		show.Silence = err.Error()
		show.Report = found.planned(place.Name, key)
	}
	show.Others = found.others(show.Report, key)
	for i := range show.Report.Ports {
		for j := range show.Report.Ports[i].Endpoints {
			endpoint := &show.Report.Ports[i].Endpoints[j]
			endpoint.Pod = found.serving.Pods[endpoint.Address.Addr()]
		}
	}
	switch {
	case len(show.Problems) > 0 || !show.Report.Well():
		show.State = stateProblems
	case show.Silence != "":
		show.State = stateUnknown
	}
	return show
}

// place is the node of a name, or the first that can be asked.
func (c *foundServices) place(name string) (trace.Place, error) {
	all := places(c.overview)
	var names []string
	for _, place := range all {
		if name == place.Name || name == "" && place.Trouble == "" {
			return place, nil
		}
		names = append(names, place.Name)
	}
	switch {
	case len(all) == 0:
		return trace.Place{}, fmt.Errorf("the cluster has no nodes")
	case name == "":
		return all[0], nil
	}
	const most = 10
	if len(names) > most {
		names = append(names[:most], "…")
	}
	return trace.Place{}, fmt.Errorf("there is no node %s; there are %s", name, strings.Join(names, ", "))
}

func (c *foundServices) ask(ctx context.Context, place trace.Place, key model.ServiceKey) (*service.Report, error) {
	if place.Trouble != "" {
		return nil, fmt.Errorf("%s; %s", place.Trouble, place.Next)
	}
	return askServing(ctx, c.client, place.Agent, key)
}

// planned is what a node will make of a Service, from what the API server knows.
func (c *foundServices) planned(node string, key model.ServiceKey) *service.Report {
	computed, _ := planned.Compute(nil, c.serving.Snapshot, node)
	return service.Of(computed, c.serving.Snapshot, node, key)
}

// mostLooked is how many endpoints of all nodes together are looked at to find
// nodes that differ: a second's work.
const mostLooked = 2_000_000

// others are the nodes that give other answers than the one that is shown.
func (c *foundServices) others(shown *service.Report, key model.ServiceKey) (all []differingOutput) {
	endpoints := 0
	for _, slice := range c.serving.Snapshot.Slices.All() {
		endpoints += len(slice.Endpoints)
	}
	if (endpoints+1)*len(c.overview.Nodes) > mostLooked {
		return nil
	}
	answers := shown.Answers()
	for _, node := range c.overview.Nodes {
		if node.Node.Name == shown.Node {
			continue
		}
		var differing []string
		for _, answer := range c.planned(node.Node.Name, key).Answers() {
			if !slices.Contains(answers, answer) {
				differing = append(differing, answer)
			}
		}
		if len(differing) == 0 {
			continue
		}
		same := slices.IndexFunc(all, func(d differingOutput) bool { return slices.Equal(d.Answers, differing) })
		if same < 0 {
			same = len(all)
			all = append(all, differingOutput{Answers: differing})
		}
		all[same].Nodes = append(all[same].Nodes, node.Node.Name)
	}
	return all
}
