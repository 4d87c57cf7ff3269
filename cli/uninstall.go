package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead-net/fairlead/agent"
	"github.com/fairlead-net/fairlead/deploy"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// Exit codes of uninstall. Success is 0.
const (
	exitUndone   exitCode = 1
	exitPodsLeft exitCode = 3 // pods of Fairlead's still run, and nothing else is in the way
)

// uninstallOptions are the flags of fairlead uninstall.
type uninstallOptions struct {
	node    bool
	cutOff  bool
	timeout time.Duration
	api     kube.Options
	config  agent.Config // directories of the node
}

func uninstallCommand() *cobra.Command {
	o := uninstallOptions{config: agent.Config{Log: slog.New(slog.DiscardHandler)}}
	command := &cobra.Command{
		Use:   "uninstall",
		Short: "Take Fairlead away, from all nodes and from the cluster",
		Long: `Take Fairlead away. It ends the agents, removes from each node all that Fairlead
has put there (the CNI configuration and plugin, links, routes, tunnels, nftables'
table, directories), puts sysctls back to what they were, and then deletes
Fairlead's objects, DNS servers and gateways among them. With --node it does so on
this machine alone.

Pods that run keep their network until they end: the node connects no new ones,
and keeps what these need. Delete them, or drain the nodes, and uninstall again;
what is done is not done twice. --cut-off does not wait for them. Nodes that are
off are not waited for either, and named at the end.

Exit codes: 0 all is gone, 3 only pods that run keep the rest, 1 something else does.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return o.run(command) },
	}
	flags := command.Flags()
	flags.BoolVar(&o.node, "node", false, "only this machine, which has to be a node without an agent")
	flags.BoolVar(&o.cutOff, "cut-off", false, "also what pods that run need")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait for all nodes")
	flags.StringVar(&o.api.Kubeconfig, "kubeconfig", "", "how to reach the cluster; without, as kubectl does")
	directories(flags, &o.config)
	return command
}

// undone is what keeps Fairlead here, and what to do about it.
type undone struct {
	err  error
	next string
}

func (u *undone) Error() string { return u.err.Error() }
func (u *undone) Unwrap() error { return u.err }

func (o *uninstallOptions) run(command *cobra.Command) error {
	ctx, out := command.Context(), command.OutOrStdout()
	var err error
	next := seeCluster
	if o.node {
		next = "mend that"
		err = o.uninstallNode(ctx, out)
	} else {
		ctx, cancel := context.WithTimeout(ctx, o.timeout)
		defer cancel()
		err = o.uninstallCluster(ctx, out)
	}
	if err == nil || errors.As(err, new(exitCode)) {
		return err
	}
	next = nextOf(err, next) + "; then run it again, what is done is not done twice"
	if notEnded := (*kube.NotEndedError)(nil); errors.As(err, &notEnded) {
		next = "see why it does not end: kubectl -n " + kube.SystemNamespace + " describe pod " + notEnded.Pod + "; then run it again, with a longer --timeout if it only takes its time"
	}
	if u := (*undone)(nil); errors.As(err, &u) {
		next = u.next
	}
	fmt.Fprintf(command.ErrOrStderr(), "%s: %v\n  next: %s\n", command.CommandPath(), err, next)
	return exitUndone
}

func (o *uninstallOptions) uninstallNode(ctx context.Context, out io.Writer) error {
	closePlanes, err := dataplanes(&o.config)
	if err != nil {
		return err
	}
	defer closePlanes()
	err = agent.Uninstall(ctx, o.config, o.cutOff, func(step string) { fmt.Fprintln(out, step) })
	switch {
	case errors.As(err, new(*agent.PodsLeftError)):
		fmt.Fprintln(out, err)
		return exitPodsLeft
	case errors.Is(err, agent.ErrAgentRuns):
		return &undone{err, "for the whole cluster, run: fairlead uninstall; to end the agent of this node alone: kubectl label node NODE fairlead.io/agent=none"}
	}
	return err
}

func (o *uninstallOptions) uninstallCluster(ctx context.Context, out io.Writer) error {
	say := func(step string) { fmt.Fprintln(out, step) }
	client, err := kube.Connect(o.api)
	if err != nil {
		return err
	}
	if err := uninstallGateway(ctx, client, say); err != nil {
		return err
	}
	agents, err := client.Agents(ctx)
	if kube.IsNotFound(err) {
		return o.uninstallRest(ctx, client, say)
	}
	if err != nil {
		return err
	}
	// The controller first, which would make the Network anew.
	if err := client.DeleteManifest(ctx, deploy.Manifest, func(kind, _ string) bool { return kind != "Deployment" }, say); err != nil {
		return err
	}
	if err := client.ParkAgents(ctx); err != nil {
		return err
	}
	say("ended the agents")
	overview, err := client.Overview(ctx)
	if err != nil {
		return err
	}
	hasDNS, err := client.HasDNSServers(ctx)
	if err != nil {
		return err
	}
	done := uninstallNodes(ctx, overview.Nodes, say, func(node string) (kube.NodeRun, error) {
		args := []string{"uninstall", "--node"}
		if o.cutOff {
			args = append(args, "--cut-off")
		}
		return client.RunOnNode(ctx, agents, node, "uninstall", args...)
	})
	if done.again() {
		if hasDNS {
			say("left the DNS servers meanwhile: they answer what they knew when the agents ended")
		}
	} else if err := o.uninstallDNS(ctx, client, say); err != nil {
		return err
	}
	if err := done.verdict(say); err != nil {
		return err
	}
	// The DaemonSet last: without it, what agents have reported stands for nodes that are
	// still to be done, should this be stopped in the middle.
	if err := client.DeleteManifest(ctx, deploy.Manifest, func(kind, _ string) bool { return kind == "DaemonSet" }, say); err != nil {
		return err
	}
	return errors.Join(client.DeleteManifest(ctx, deploy.Manifest, nil, say), client.Unlock(ctx, kube.SystemNamespace, kube.LeaderLease))
}

// uninstallRest takes away what is left when the DaemonSet of the agents is gone: no node
// can be visited, since nothing else says with which image.
func (o *uninstallOptions) uninstallRest(ctx context.Context, client *kube.Client, say func(string)) error {
	overview, err := client.Overview(ctx)
	if err != nil {
		return err
	}
	if err := unvisited(overview.Nodes); err != nil {
		return err
	}
	say("There is no DaemonSet of the agents, so no node is touched; on a node, run: fairlead uninstall --node")
	return errors.Join(o.uninstallDNS(ctx, client, say), client.DeleteManifest(ctx, deploy.Manifest, nil, say))
}

// unvisited is an error if agents have reported from nodes: the reports go with the last
// of Fairlead's objects, when all nodes are done, and the nodes would be forgotten.
func unvisited(nodes []kube.NodeOverview) error {
	var names []string
	for _, node := range nodes {
		if node.Report != nil {
			names = append(names, node.Node.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return &undone{
		fmt.Errorf("there is no DaemonSet of the agents, so no node can be visited, and these have what an agent has put there: %s", strings.Join(names, " ")),
		"apply the manifest that Fairlead was installed by, and run it again. Or on each of these nodes: fairlead uninstall --node; after all of them: kubectl delete nodenetworks.fairlead.io --all, and run it again",
	}
}

// uninstallDNS ends the DNS servers, and tells who answers now. The Service stays: it
// is the cluster's, and its address is what kubelets give to pods.
func (o *uninstallOptions) uninstallDNS(ctx context.Context, client *kube.Client, say func(string)) error {
	had := false
	err := client.DeleteManifest(ctx, deploy.DNS, nil, func(step string) { had = true; say(step) })
	if err != nil || !had {
		return err
	}
	overview, err := client.Overview(ctx)
	if err != nil {
		return err
	}
	if err := client.AwaitDNSEnd(ctx); err != nil {
		return err
	}
	service := overview.Config.DNS.Service
	others, err := client.AnsweredByOthers(ctx, service, func(address string) bool {
		addr, err := netip.ParseAddr(address)
		return o.cutOff && err == nil && slices.ContainsFunc(overview.Nodes, func(node kube.NodeOverview) bool {
			return slices.ContainsFunc(node.Node.PodCIDRs, func(pods netip.Prefix) bool { return pods.Contains(addr) })
		})
	})
	if err != nil {
		return err
	}
	if others {
		say("the other endpoints of Service " + service.String() + " stay")
		return nil
	}
	say("the cluster has no DNS now: no endpoint of Service " + service.String() + " is ready. Have a server there, such as CoreDNS: kubeadm init phase addon coredns")
	return nil
}

// uninstallGateway ends what serves Ingresses, and takes from their status what it
// has written: its addresses lead nowhere any more.
func uninstallGateway(ctx context.Context, client *kube.Client, say func(string)) error {
	had := false
	kept := func(kind, _ string) bool { return kind == "Namespace" } // with what authorities do not give as often as one likes
	if err := client.DeleteManifest(ctx, deploy.GatewayACME, kept, func(step string) { had = true; say(step) }); err != nil {
		return err
	}
	if had {
		say("left the certificates that were ordered: kubectl delete namespace " + model.CertificateNamespace)
	}
	if err := client.DeleteManifest(ctx, deploy.Gateway, nil, func(step string) { had = true; say(step) }); err != nil {
		return err
	}
	if err := errors.Join(client.WithdrawIngresses(ctx), client.Unlock(ctx, kube.SystemNamespace, kube.GatewayName)); err != nil || !had {
		return err
	}
	say("took the gateway's addresses from the status of Ingresses")
	return nil
}

// nodesAtOnce is how many nodes are uninstalled at the same time.
const nodesAtOnce = 20

// nodesDone is what became of the nodes.
type nodesDone struct {
	left       bool     // some have pods that run
	silent     []string // could not be asked
	unreported []string // no agent has reported from them: none has run there, or their Node objects are new
	late       []string // were not begun in time
	stopped    []error  // were begun, and not done in time
	failed     []error
}

// uninstallNodes runs what uninstalls a node on all that have, or had, an agent. When
// the context ends, no further node is begun.
func uninstallNodes(ctx context.Context, nodes []kube.NodeOverview, say func(string), run func(node string) (kube.NodeRun, error)) *nodesDone {
	done := &nodesDone{}
	var group errgroup.Group
	group.SetLimit(nodesAtOnce)
	var mu sync.Mutex // guards done, and what is said
	visit := func(node string) func() error {
		return func() error {
			if ctx.Err() != nil {
				mu.Lock()
				defer mu.Unlock()
				done.late = append(done.late, node)
				return nil
			}
			ran, err := run(node)
			mu.Lock()
			defer mu.Unlock()
			if err != nil && ctx.Err() != nil {
				done.stopped = append(done.stopped, err)
				return nil
			}
			done.note(node, ran, err, say)
			return nil
		}
	}
	var silent, unreported []string
	for _, ready := range []bool{true, false} { // those last: they may keep a place until the time is over
		for _, node := range nodes {
			switch {
			case node.Ready != ready || node.Report == nil && agentlessNode(node.Node) != nil:
			case node.Report == nil:
				unreported = append(unreported, node.Node.Name)
			case node.Silent:
				silent = append(silent, node.Node.Name)
			default:
				group.Go(visit(node.Node.Name))
			}
		}
	}
	_ = group.Wait()
	done.silent, done.unreported = silent, unreported
	slices.Sort(done.late)
	return done
}

func (d *nodesDone) note(node string, ran kube.NodeRun, err error, say func(string)) {
	switch {
	case err != nil:
		d.failed = append(d.failed, err)
	case ran.Code == int(exitPodsLeft):
		d.left = true
		say("node " + node + ": " + lastLine(ran.Output))
	case ran.Code != 0:
		why, _, _ := strings.Cut(ran.Output, "\n  next: ") // which is for who is there
		d.failed = append(d.failed, fmt.Errorf("node %s: %s", node, why))
	default:
		say("node " + node + " is as it was")
	}
}

// again tells whether nodes that are there are not done: their pods still need names.
func (d *nodesDone) again() bool { return d.left || len(d.failed)+len(d.stopped)+len(d.late) > 0 }

// verdict says what keeps the objects of Fairlead, by which the rest is done later.
func (d *nodesDone) verdict(say func(string)) error {
	if d.left {
		say("Fairlead's objects stay until no pods are left: run it again then, or with --cut-off")
	}
	if len(d.unreported) > 0 {
		say("nothing was done on nodes from which no agent has reported: " + strings.Join(d.unreported, " ") +
			". If one has run there all the same, as before its Node object was made anew, run there: fairlead uninstall --node")
	}
	failed := slices.Concat(d.failed, d.stopped)
	var next []string
	if len(d.failed) > 0 {
		next = append(next, "mend these nodes and run it again; one that will not come back: kubectl delete node NODE")
	}
	if len(d.late) > 0 {
		failed = append(failed, fmt.Errorf("not reached in time: %s", strings.Join(d.late, " ")))
	}
	if len(d.stopped)+len(d.late) > 0 {
		next = append(next, "run it again, with a longer --timeout if that was too short; where a pod does not start, kubectl describe node NODE may say why")
	}
	if len(d.silent) > 0 {
		names := strings.Join(d.silent, " ")
		failed = append(failed, fmt.Errorf("nothing was done on nodes that are off, or cut off (their kubelets have said nothing for a while): %s", names))
		next = append(next, "bring what is off back and run it again; what will not come back: kubectl delete node "+names+", and run it again")
	}
	switch {
	case len(failed) > 0:
		return &undone{errors.Join(failed...), strings.Join(next, "; ") + ". Fairlead's objects stay until then"}
	case d.left:
		return exitPodsLeft
	}
	return nil
}

func lastLine(text string) string {
	return text[strings.LastIndexByte(text, '\n')+1:]
}
