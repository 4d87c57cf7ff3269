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
	"github.com/fairlead-net/fairlead/observe/trace"
	"github.com/fairlead-net/fairlead/observe/traffic"
)

// gatewayAddress is the gateway's --health-address, as seen by itself.
const gatewayAddress = "127.0.0.1:9817"

// passingCommand is how ingress top and status ask a gateway: it runs in its container.
func passingCommand() *cobra.Command {
	var address string
	command := &cobra.Command{
		Use:    "passing PATH",
		Hidden: true,
		Short:  "Say what the gateway of this pod tells (ingress top and status ask it)",
		Long: `Say what the gateway of this pod tells below /debug/, as JSON: top, or status. It
reads, and changes nothing.

Exit codes: 0 success, 3 there is no gateway, 4 it does not understand the question.`,
		Example: `  fairlead passing 'top?over=2s'`,
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			err := askNaming(command.Context(), command.OutOrStdout(), address, args[0])
			var none *noServer
			var bad *refusedQuestion
			switch {
			case errors.As(err, &none):
				fmt.Fprintln(command.ErrOrStderr(), err)
				return exitNoServer
			case errors.As(err, &bad):
				fmt.Fprintln(command.ErrOrStderr(), err)
				return exitRefused
			}
			return err
		},
	}
	command.Flags().StringVar(&address, "health-address", gatewayAddress, "of the gateway")
	return command
}

// ingressTopOutput is what ingress top -o json prints. It only grows.
type ingressTopOutput struct {
	*traffic.Report
	Gateways []silentGateway `json:"gateways,omitempty"` // those that have not answered
}

// silentGateway is a gateway that has not answered.
type silentGateway struct {
	Pod     string `json:"pod"`
	Node    string `json:"node"`
	Trouble string `json:"trouble"`
	Next    string `json:"next"`
}

// ingressTopOptions are the flags of ingress top.
type ingressTopOptions struct {
	kube            kube.Options
	namespace, node string
	once            bool
	interval        time.Duration
	most            int
	output          format
}

func ingressTopCommand() *cobra.Command {
	var options ingressTopOptions
	command := &cobra.Command{
		Use:   "top",
		Short: "Show what goes through the gateways: requests, errors, how long they take, bytes",
		Long: `Show which routes of the gateways of all nodes have most requests: how many in a
second, how many of them were refused (4xx) and failed (5xx), within how long half of
them and 99 of a hundred were answered, and bytes of answers. It goes on until it is
ended; with --once, or another output than text, it measures once.

Host _ is a rule without a host; host - are requests that no rule takes.

Exit codes: 0 all gateways have answered, 2 some have not.`,
		Example: `  fairlead ingress top
  fairlead ingress top --once -n shop
  fairlead ingress top --node worker-1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return runIngressTop(command, &options)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&options.once, "once", false, "measure once, and end")
	flags.DurationVar(&options.interval, "interval", 2*time.Second, "for how long is measured, up to 30s")
	flags.IntVar(&options.most, "most", 20, "routes at most")
	flags.StringVarP(&options.namespace, "namespace", "n", "", "only Ingresses of this one; all if empty")
	flags.StringVar(&options.node, "node", "", "ask only the gateway of this one")
	flags.StringVar(&options.kube.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	formatFlag(command, &options.output, inText, inJSON, inYAML)
	err := command.RegisterFlagCompletionFunc("node", func(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return nodeNames(command.Context(), options.kube), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag is defined above
	}
	return command
}

func runIngressTop(command *cobra.Command, options *ingressTopOptions) error {
	ctx, to, stderr := command.Context(), command.OutOrStdout(), command.ErrOrStderr()
	options.kube.UserAgent = "fairlead-ingress/" + Version
	if options.interval < 100*time.Millisecond || options.interval > 30*time.Second {
		return &usageError{fmt.Errorf("--interval %s is not between 100ms and 30s", options.interval), command.CommandPath()}
	}
	client, err := kube.Connect(options.kube)
	if err != nil {
		return ingressUntold(command, err)
	}
	live := !options.once && !options.output.structured()
	for {
		pods, err := options.gateways(ctx, client)
		if err != nil && ctx.Err() == nil {
			return ingressUntold(command, err)
		}
		output := options.ask(ctx, pods, client.ExecGateway)
		if ctx.Err() != nil {
			return nil // the user has ended it
		}
		if options.output.structured() {
			err = options.output.print(to, output)
		} else {
			if len(output.Gateways) < len(pods) {
				err = options.print(to, output, live && isTerminal(to))
			}
			for _, gateway := range output.Gateways {
				fmt.Fprintf(stderr, "%s\n  next: %s\n", gateway.Trouble, gateway.Next)
			}
		}
		switch {
		case err != nil:
			return err
		case live && len(output.Gateways) < len(pods):
		case len(output.Gateways) > 0:
			return exitUntold
		default:
			return nil
		}
	}
}

// gateways are those to ask.
func (o *ingressTopOptions) gateways(ctx context.Context, client *kube.Client) ([]kube.GatewayPod, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	pods, err := client.Gateways(ctx)
	if err != nil {
		return nil, err
	}
	if o.node != "" {
		pods = slices.DeleteFunc(pods, func(p kube.GatewayPod) bool { return p.Node != o.node })
	}
	switch {
	case len(pods) == 0 && o.node != "":
		return nil, refuse("fairlead ingress top, without --node; kubectl -n kube-system get pods -o wide -l app.kubernetes.io/name=fairlead-gateway", "there is no gateway on node %s", o.node)
	case len(pods) == 0:
		return nil, refuse("kubectl apply --server-side -f deploy/gateway.yaml", "there is no gateway in the cluster")
	}
	return pods, nil
}

// ask lets all gateways measure at the same time.
func (o *ingressTopOptions) ask(ctx context.Context, pods []kube.GatewayPod, exec execGateway) ingressTopOutput {
	ctx, cancel := context.WithTimeout(ctx, o.interval+askTime)
	defer cancel()
	var output ingressTopOutput
	var reports []*traffic.Report
	var mu sync.Mutex
	var asking sync.WaitGroup
	slots := make(chan struct{}, askAbreast)
	for _, pod := range pods {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			report := &traffic.Report{}
			err := askPassing(ctx, pod, exec, "top?over="+o.interval.String(), report)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				reports = append(reports, report)
				return
			}
			silent := silentGateway{Pod: pod.Name, Node: pod.Node, Trouble: err.Error()}
			if u := (*trace.Unasked)(nil); errors.As(err, &u) {
				silent.Next = u.Next
			}
			output.Gateways = append(output.Gateways, silent)
		})
	}
	asking.Wait()
	output.Report = traffic.Merge(reports...)
	if o.namespace != "" {
		output.Routes = slices.DeleteFunc(output.Routes, func(r traffic.Route) bool { return r.Namespace != o.namespace })
	}
	slices.SortFunc(output.Gateways, func(a, b silentGateway) int { return strings.Compare(a.Node+" "+a.Pod, b.Node+" "+b.Pod) })
	return output
}

// execGateway is as kube.Client's ExecGateway.
type execGateway = func(ctx context.Context, pod string, command ...string) ([]byte, error)

// askPassing has a gateway tell something.
func askPassing(ctx context.Context, pod kube.GatewayPod, exec execGateway, path string, to any) error {
	see := "kubectl -n kube-system describe pod " + pod.Name
	if pod.Phase != "Running" {
		return refuse(see, "%s: the gateway does not run: its pod is %s", pod.Node, pod.Phase)
	}
	said, err := exec(ctx, pod.Name, agentProgram, "passing", path)
	var exit *kube.ExitError
	switch {
	case errors.As(err, &exit) && exit.Code == int(exitNoServer):
		return refuse("kubectl -n kube-system logs "+pod.Name, "%s: the gateway does not tell: %w", pod.Node, err)
	case errors.As(err, &exit):
		return refuse("use a fairlead of the same version as the gateway: "+see, "%s: %w", pod.Node, err)
	case err != nil:
		return refuse(nextOf(err, "see whether the gateway and its kubelet run: "+see), "%s: the gateway does not answer: %w", pod.Node, err)
	}
	if err := json.Unmarshal(said, to); err != nil {
		return refuse("use a fairlead of the same version as the gateway: "+see, "what the gateway on %s says is not understood: %w", pod.Node, err)
	}
	return nil
}

// print writes a measurement for people, in the place of the last one if there is a
// terminal for it.
func (o *ingressTopOptions) print(to io.Writer, output ingressTopOutput, over bool) error {
	var b strings.Builder
	if over {
		b.WriteString("\x1b[H\x1b[2J") // home, and clear (ECMA-48)
	}
	var all, failed uint64
	for i := range output.Routes {
		all += output.Routes[i].Requests
		failed += output.Routes[i].Errors
	}
	fmt.Fprintf(&b, "%s requests a second, %s of them failed, over %.1f s\n\n", rate(all, output.Seconds), share(failed, all), output.Seconds)
	routes := &table{}
	routes.add("HOST", "PATH", "INGRESS", "SERVICE", "REQUESTS/S", "4XX", "5XX", "P50", "P99", "BYTES/S", "TOTAL")
	for i := range output.Routes[:min(len(output.Routes), o.most)] {
		r := &output.Routes[i]
		ingress, service := "", r.Service
		if r.Ingress != "" {
			ingress = r.Namespace + "/" + r.Ingress
		}
		if r.Canary {
			service += " (canary)"
		}
		routes.add(r.Host, r.Path, ingress, service, rate(r.Requests, output.Seconds), share(r.Refused, r.Requests), share(r.Errors, r.Requests),
			span(r.P50), span(r.P99), rate(r.Sent, output.Seconds), fmt.Sprint(r.Total))
	}
	if err := routes.write(&b); err != nil {
		return err
	}
	if more := len(output.Routes) - o.most; more > 0 {
		fmt.Fprintf(&b, "… and %d more: --most\n", more)
	}
	if !over {
		b.WriteString("\n")
	}
	_, err := io.WriteString(to, b.String())
	return err
}

// span is a time such as 1.2ms, with two digits that mean something.
func span(seconds float64) string {
	switch {
	case seconds >= 1:
		return fmt.Sprintf("%.1fs", seconds)
	case seconds >= 0.01:
		return fmt.Sprintf("%.0fms", seconds*1e3)
	}
	return fmt.Sprintf("%.1fms", seconds*1e3)
}
