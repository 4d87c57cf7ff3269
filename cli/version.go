package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// Version is the version of this build, set by the linker.
var Version = "v0.1.0-dev"

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(command.OutOrStdout(), "fairlead %s %s/%s %s\n",
				Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
}
