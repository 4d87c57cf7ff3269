package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"

	"github.com/spf13/cobra"
)

// probeCommand is how check asks a node: it runs in the agent's container.
func probeCommand() *cobra.Command {
	var dir string
	command := &cobra.Command{
		Use:     "probe NODE…",
		Hidden:  true,
		Short:   "Probe nodes from this one (check asks each node)",
		Long:    "Let the agent of this node probe others, or itself, and print what it finds as JSON.",
		Example: "  kubectl -n kube-system exec fairlead-agent-2xk4t -- /fairlead probe node1 node2",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return probeNodes(command.Context(), command.OutOrStdout(), filepath.Join(dir, "probe.sock"), args)
		},
	}
	command.Flags().StringVar(&dir, "run-dir", "/run/fairlead", "where the agent has its sockets")
	return command
}

func probeNodes(ctx context.Context, to io.Writer, socket string, nodes []string) error {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/probe?"+url.Values{"peer": nodes}.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("the agent of this node does not answer on %s; it is starting, or runs with --probes=false: %w", socket, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the agent of this node says: %s", response.Status)
	}
	_, err = io.Copy(to, response.Body)
	return err
}
