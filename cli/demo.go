package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/lab"
	"github.com/fairlead-net/fairlead/lab/demo"
)

func demoCommand() *cobra.Command {
	var down bool
	command := &cobra.Command{
		Use:   "demo",
		Short: "Show Fairlead in a real cluster on this machine",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if !down {
				return demo.Run(command.Context(), command.OutOrStdout())
			}
			if err := lab.Down(command.Context(), demo.Name); err != nil {
				return err
			}
			_, err := fmt.Fprintln(command.OutOrStdout(), "The demo is gone.")
			return err
		},
	}
	command.Flags().BoolVar(&down, "down", false, "take the demo away")
	return command
}
