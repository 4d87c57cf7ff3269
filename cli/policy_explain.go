package cli

import (
	"context"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/observe/policy"
)

// lookupTime is for finding the addresses of a name.
const lookupTime = 5 * time.Second

func policyExplainCommand() *cobra.Command {
	var options policyOptions
	var from, to, port string
	command := &cobra.Command{
		Use:   "explain --from END --to END --port PORT",
		Short: "Say whether policies allow a connection, and which rule says so",
		Long: `Say whether NetworkPolicies and ClusterNetworkPolicies allow a connection: by which
rule, in the words of its manifest; and of one that is denied, which rule comes
nearest to allowing it. No packet is sent, and no node is asked: it is what the
policies, labels and addresses in the API server mean at this moment.

An end is a pod (NAME or NAMESPACE/NAME), node/NAME or an address. --to may be a
Service, too (svc/NAME, svc/NAMESPACE/NAME or its address): then each endpoint is
judged that connections may be led to; or domain/NAME, a name of the outside, which
is looked up from here. PORT is 80/tcp, 53/udp, a name (http) or
icmp; of a Service, one of its own, which may be left out if it has just one.

It reads the whole cluster, so it needs a kubeconfig that may list nodes,
namespaces, pods, Services, EndpointSlices and policies of all namespaces. Offline:

  kubectl get nodes,namespaces,pods,services,endpointslices,networkpolicies -A -o yaml > cluster.yaml
  fairlead policy explain --snapshot cluster.yaml --from …

Exit codes: 0 it is allowed, 1 it is denied (or one of several ways is), 2 it cannot
be told.`,
		Example: `  fairlead policy explain --from front-7d9c --to db-0 --port 5432/tcp
  fairlead policy explain --from front-7d9c --to svc/db
  fairlead policy explain --from 203.0.113.7 --to shop/front-7d9c --port http
  fairlead policy explain --from shop/front-7d9c --to db-0 --port 5432 -o json | jq .verdict`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return explainPolicy(command, &options, policy.Query{From: from, To: to}, port)
		},
	}
	flags := command.Flags()
	flags.StringVar(&from, "from", "", "who connects: a pod, node/NAME or an address")
	flags.StringVar(&to, "to", "", "to whom: a pod, svc/NAME, node/NAME, domain/NAME or an address")
	flags.StringVar(&port, "port", "", "at which port, such as 80/tcp, http or icmp")
	options.flags(command, inText, inJSON, inYAML)
	for _, flag := range []string{"from", "to"} {
		if err := command.MarkFlagRequired(flag); err != nil {
			panic(err) // the flag is defined above
		}
		completeEnds(command, flag, &options.kube, &options.namespace)
	}
	return command
}

func explainPolicy(command *cobra.Command, options *policyOptions, query policy.Query, port string) error {
	var err error
	query.Namespace = options.in()
	if name := policy.DomainOf(query.To); name != "" {
		ctx, cancel := context.WithTimeout(command.Context(), lookupTime)
		defer cancel()
		query.Addresses, _ = net.DefaultResolver.LookupNetIP(ctx, "ip", name) // what is missing, Explain says
		for i := range query.Addresses {
			query.Addresses[i] = query.Addresses[i].Unmap()
		}
	}
	if query.Port, err = policy.ParsePort(port); err != nil {
		return untold(command, err)
	}
	snapshot, problems, err := options.read(command.Context())
	if err != nil {
		return untold(command, err)
	}
	explained, err := policy.Explain(snapshot, query)
	if err != nil {
		return untold(command, err)
	}
	if options.output.structured() {
		err = options.output.print(command.OutOrStdout(), explained)
	} else {
		err = explained.Text(command.OutOrStdout(), policy.Style{Colour: paletteOf(command.OutOrStdout()).on})
		doubts(command, problems)
	}
	if err == nil && explained.Verdict == policy.Denied {
		return exitDenied
	}
	return err
}
