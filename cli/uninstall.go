package cli

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/agent"
)

func uninstallCommand() *cobra.Command {
	config := agent.Config{Log: slog.New(slog.DiscardHandler)}
	command := &cobra.Command{
		Use:   "uninstall",
		Short: "Take away all that Fairlead has put on this node",
		Long: `Takes away all that Fairlead has put on this node: the CNI configuration and
plugin, the links of pods, routes, tunnels, nftables' table and directories. Run
it on each node after "kubectl delete -f deploy/fairlead.yaml". Pods that run
are cut off; another network has to make them anew. Sysctls stay.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			closePlanes, err := dataplanes(&config)
			if err != nil {
				return err
			}
			defer closePlanes()
			return agent.Uninstall(command.Context(), config, func(step string) {
				fmt.Fprintln(command.OutOrStdout(), step)
			})
		},
	}
	directories(command.Flags(), &config)
	return command
}
