// Package cli is the command line of Fairlead: one file for each subcommand.
// It holds no logic of the network; commands call the packages that do. It is
// for cmd/fairlead only and not safe for concurrent use.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Main runs the command line and returns the exit code of the process: 0 for
// success, 1 for a failure that was printed, or what an exitCode error says.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	command := root()
	command.SetArgs(args)
	err := command.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	default:
		fmt.Fprintf(os.Stderr, "fairlead: %v\n", err)
		return 1
	}
}

// exitCode ends the process with this code and prints nothing: the command has
// said all there is to say.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func root() *cobra.Command {
	command := &cobra.Command{
		Use:           "fairlead",
		Short:         "The whole Kubernetes network in one program",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	command.AddCommand(
		agentCommand(),
		controllerCommand(),
		demoCommand(),
		imageCommand(),
		labCommand(),
		planCommand(),
		statusCommand(),
		uninstallCommand(),
		versionCommand(),
	)
	return command
}
