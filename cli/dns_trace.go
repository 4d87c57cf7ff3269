package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/observe/lookup"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// exitNotFound says that the name was looked for, and is not there.
const exitNotFound exitCode = 1

// dnsTraceOptions are the flags of dns trace.
type dnsTraceOptions struct {
	kube            kube.Options
	namespace, from string
	types           []string
	noCompletion    bool
	noCache         bool
	details         bool
	output          format
}

func dnsTraceCommand() *cobra.Command {
	var options dnsTraceOptions
	command := &cobra.Command{
		Use:   "trace NAME --from [NAMESPACE/]POD",
		Short: "Look for a name as a pod would: each query, who answered, how long it took",
		Long: `Look for a name as a program in a pod would, and show each query that its resolver
puts, and what the DNS server of its node does for it: which names it tries, who
says what of them (the names of the cluster, the cache, which upstream), and how
long that takes. The server does it for real, as if the pod had asked; the pod
itself sends nothing, so that policies and the way to the server are not tried.

A name with a dot at the end is written in full, and no search path is followed.

Exit codes: 0 the name was found, 1 it was not, 2 that cannot be told.`,
		Example: `  fairlead dns trace www.example.com --from shop/web-0
  fairlead dns trace www.example.com --from shop/web-0 --no-completion
  fairlead dns trace db --from web-0 -n shop --type A
  fairlead dns trace _http._tcp.db.shop.svc.cluster.local. --from shop/web-0 --type SRV -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return runDNSTrace(command, &options, args[0])
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.from, "from", "", "who looks for it: [NAMESPACE/]POD")
	flags.StringVarP(&options.namespace, "namespace", "n", "", "of a pod that is named without; that of the kubeconfig if empty")
	flags.StringSliceVar(&options.types, "type", []string{"A", "AAAA"}, "types of records that are asked for")
	flags.BoolVar(&options.noCompletion, "no-completion", false, "as if the server did not follow the search path for the pod")
	flags.BoolVar(&options.noCache, "no-cache", false, "ask upstreams, whatever of theirs is in the cache")
	flags.BoolVar(&options.details, "details", false, "show what was done for each name, such as which upstreams were asked after which")
	flags.StringVar(&options.kube.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	formatFlag(command, &options.output, inText, inJSON, inYAML)
	if err := errors.Join(command.MarkFlagRequired("from"), command.RegisterFlagCompletionFunc("from", completePods(&options.kube, &options.namespace))); err != nil {
		panic(err) // the flag is defined above
	}
	complete(command, "type", "A", "AAAA", "SRV", "PTR", "TXT", "CNAME", "MX", "NS", "SOA", "HTTPS")
	return command
}

// dnsTraceTime is for all of it.
const dnsTraceTime = time.Minute

func runDNSTrace(command *cobra.Command, options *dnsTraceOptions, name string) error {
	ctx, cancel := context.WithTimeout(command.Context(), dnsTraceTime)
	defer cancel()
	options.kube.UserAgent = "fairlead-dns/" + Version
	found, err := options.trace(ctx, name)
	if err != nil {
		explain(command, err)
		return exitUntold
	}
	if options.output.structured() {
		err = options.output.print(command.OutOrStdout(), found)
	} else {
		colours := paletteOf(command.OutOrStdout())
		err = lookup.Text(command.OutOrStdout(), found, options.details, lookup.Style{Good: colours.good, Bad: colours.bad, Doubt: colours.doubt, Bold: colours.bold})
	}
	switch {
	case err != nil:
		return err
	case !found.Found:
		return exitNotFound
	}
	return nil
}

func (o *dnsTraceOptions) trace(ctx context.Context, name string) (*lookup.Lookup, error) {
	name, err := lookup.CheckName(name)
	if err != nil {
		return nil, refuse("name what a program looks for, such as www.example.com or web.shop", "that is no name: %w", err)
	}
	client, err := kube.Connect(o.kube)
	if err != nil {
		return nil, err
	}
	overview, err := client.Overview(ctx)
	if err != nil {
		return nil, err
	}
	asker, err := o.asker(ctx, client, places(overview))
	if err != nil {
		return nil, err
	}
	question := lookup.Question{
		Client: asker.Address, Name: name, NoCompletion: o.noCompletion, Anew: o.noCache,
		Resolver: lookup.Resolver{
			None: asker.resolver.Policy == "None", Nameservers: asker.resolver.Nameservers,
			Search: asker.resolver.Search, NDots: asker.resolver.NDots,
		},
	}
	for _, kind := range o.types {
		question.Types = append(question.Types, strings.ToUpper(kind))
	}
	said, err := execNaming(ctx, client, asker.Node, asker.agent, "trace?"+question.Values().Encode())
	if err != nil {
		return nil, err
	}
	found := &lookup.Lookup{}
	if err := json.Unmarshal(said, found); err != nil {
		return nil, refuse("use a fairlead of the same version as the agent: kubectl -n kube-system describe pod "+asker.agent, "what %s says is not understood: %w", asker.Node, err)
	}
	found.Node, found.Pod = asker.Node, asker.Name
	return found, nil
}

// dnsAsker is the pod that looks for a name.
type dnsAsker struct {
	trace.End
	agent    string // of its node
	resolver kube.PodResolver
}

// asker finds the pod, and refuses one that does not ask the cluster's servers.
func (o *dnsTraceOptions) asker(ctx context.Context, client finder, cluster []trace.Place) (*dnsAsker, error) {
	namespace, name, ok := strings.Cut(strings.TrimPrefix(o.from, "pod/"), "/")
	if !ok {
		namespace, name = cmp.Or(o.namespace, o.kube.Namespace()), namespace
	}
	ends, err := (&endSearch{client: client, cluster: cluster}).pod(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	place, err := client.FindPod(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	full := namespace + "/" + name
	switch {
	case place.Resolver.Policy == "Default":
		return nil, refuse(
			fmt.Sprintf("dig on %s shows what it gets; a pod asks the cluster's servers with dnsPolicy ClusterFirst, or ClusterFirstWithHostNet in the host's network", place.Node),
			"pod %s does not ask the cluster's DNS: its resolver has the resolv.conf of node %s (dnsPolicy Default, which ClusterFirst means in the host's network, too)", full, place.Node)
	case place.HostNetwork:
		return nil, refuse("name a pod with an address of its own, --from [NAMESPACE/]POD",
			"pod %s is in the network of node %s, so that no server can tell its queries from the node's own", full, place.Node)
	}
	at := slices.IndexFunc(cluster, func(p trace.Place) bool { return p.Name == place.Node })
	if at < 0 {
		return nil, refuse("kubectl get nodes", "pod %s is on node %s, which there is not any more", full, place.Node)
	}
	if cluster[at].Trouble != "" {
		return nil, refuse(cluster[at].Next, "%s", cluster[at].Trouble)
	}
	return &dnsAsker{ends[0], cluster[at].Agent, place.Resolver}, nil
}
