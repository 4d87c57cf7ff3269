package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// Version is the version of this build, set by the linker.
var Version = "v0.1.0-dev"

// versionOutput is what version -o json prints. It only grows.
type versionOutput struct {
	Version string `json:"version"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Go      string `json:"go"`
}

func versionCommand() *cobra.Command {
	var output format
	command := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			v := versionOutput{Version, runtime.GOOS, runtime.GOARCH, runtime.Version()}
			if output.structured() {
				return output.print(command.OutOrStdout(), v)
			}
			_, err := fmt.Fprintf(command.OutOrStdout(), "fairlead %s %s/%s %s\n", v.Version, v.OS, v.Arch, v.Go)
			return err
		},
	}
	formatFlag(command, &output, inText, inJSON, inYAML)
	return command
}
