package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

// exitPodsLeft is for a node on which pods of Fairlead's still run.
const exitPodsLeft exitCode = 3

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
Fairlead's objects. With --node it does so on this machine alone.

Pods that run keep their network until they end: the node connects no new ones,
and keeps what these need. Delete them, or drain the nodes, and uninstall again;
what is done is not done twice. --cut-off does not wait for them.

The exit code is 0 if all is gone, 3 if pods are left, else 1.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if o.node {
				return o.uninstallNode(command.Context(), command.OutOrStdout())
			}
			ctx, cancel := context.WithTimeout(command.Context(), o.timeout)
			defer cancel()
			return o.uninstallCluster(ctx, command.OutOrStdout())
		},
	}
	flags := command.Flags()
	flags.BoolVar(&o.node, "node", false, "only this machine, which has to be a node without an agent")
	flags.BoolVar(&o.cutOff, "cut-off", false, "also what pods that run need")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait for all nodes")
	flags.StringVar(&o.api.Kubeconfig, "kubeconfig", "", "how to reach the cluster; without, as kubectl does")
	directories(flags, &o.config)
	return command
}

func (o *uninstallOptions) uninstallNode(ctx context.Context, out io.Writer) error {
	closePlanes, err := dataplanes(&o.config)
	if err != nil {
		return err
	}
	defer closePlanes()
	err = agent.Uninstall(ctx, o.config, o.cutOff, func(step string) { fmt.Fprintln(out, step) })
	if errors.As(err, new(*agent.PodsLeftError)) {
		fmt.Fprintln(out, err)
		return exitPodsLeft
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
		say("There is no DaemonSet of the agents, so no node is touched; on a node, run: fairlead uninstall --node")
		return client.DeleteManifest(ctx, deploy.Manifest, nil, say)
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
	if err := o.uninstallNodes(ctx, client, agents, say); err != nil {
		return err
	}
	return errors.Join(client.DeleteManifest(ctx, deploy.Manifest, nil, say), client.Unlock(ctx, kube.SystemNamespace, kube.LeaderLease))
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

func (o *uninstallOptions) uninstallNodes(ctx context.Context, client *kube.Client, agents *kube.AgentSet, say func(string)) error {
	overview, err := client.Overview(ctx)
	if err != nil {
		return err
	}
	args := []string{"uninstall", "--node"}
	if o.cutOff {
		args = append(args, "--cut-off")
	}
	var group errgroup.Group
	group.SetLimit(nodesAtOnce)
	var mu sync.Mutex
	var failed []error
	left := false
	for _, node := range overview.Nodes {
		if node.Report == nil {
			continue // it never had an agent
		}
		group.Go(func() error {
			run, err := client.RunOnNode(ctx, agents, node.Node.Name, "uninstall", args...)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failed = append(failed, err)
			case run.Code == int(exitPodsLeft):
				left = true
				say("node " + node.Node.Name + ": " + lastLine(run.Output))
			case run.Code != 0:
				failed = append(failed, fmt.Errorf("node %s: %s", node.Node.Name, run.Output))
			default:
				say("node " + node.Node.Name + " is as it was")
			}
			return nil
		})
	}
	_ = group.Wait()
	if len(failed) > 0 {
		return errors.Join(append(failed, errors.New("the objects of Fairlead stay until all nodes are done: mend those, or delete their Node objects, and run it again"))...)
	}
	if left {
		say("Fairlead's objects stay until no pods are left: run it again then, or with --cut-off")
		return exitPodsLeft
	}
	return nil
}

func lastLine(text string) string {
	return text[strings.LastIndexByte(text, '\n')+1:]
}
