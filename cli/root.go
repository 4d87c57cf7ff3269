// Package cli is the command line of Fairlead: one file for each subcommand.
// It holds no logic of the network; commands call the packages that do. It is
// for cmd/fairlead only and not safe for concurrent use.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Main runs the command line and returns the exit code of the process: 0 for
// success, 1 for a failure that was printed, 2 for a command line that is not
// understood, or what an exitCode error says.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	command := root()
	if filepath.Base(os.Args[0]) == pluginProgram {
		command.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl fairlead"}
	}
	command.SetArgs(args)
	err := command.ExecuteContext(ctx)
	var code exitCode
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "%s: %v\n  next: %s --help\n", command.CommandPath(), err, usage.command)
		return int(exitUsage)
	default:
		fmt.Fprintf(os.Stderr, "%s: %v\n", command.CommandPath(), err)
		return 1
	}
}

// pluginProgram is the name under which kubectl finds the program as a plugin:
// kubectl fairlead runs it.
const pluginProgram = "kubectl-fairlead"

// exitCode ends the process with this code and prints nothing: the command has
// said all there is to say.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exitUsage is for a command line that is not understood.
const exitUsage exitCode = 2

// usageError says what is wrong with a command line.
type usageError struct {
	err     error
	command string // whose help has the right one
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// groups are the headings of the help, each with its commands.
var groups = []struct {
	title    string
	commands []string
}{
	{"See how the network does:", []string{"status", "check", "route", "service", "policy", "ingress", "drops", "dns", "debug"}},
	{"Install and uninstall:", []string{"preflight", "uninstall", "image"}},
	{"Run in the cluster:", []string{"agent", "controller", "gateway"}},
	{"Try and develop:", []string{"demo", "lab", "plan"}},
	{"More:", []string{"completion", "help", "version"}},
}

func root() *cobra.Command {
	command := &cobra.Command{
		Use:           "fairlead",
		Short:         "The whole Kubernetes network in one program",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	command.AddCommand(
		agentCommand(),
		checkCommand(),
		controllerCommand(),
		debugCommand(),
		demoCommand(),
		dnsCommand(),
		droppedCommand(),
		dropsCommand(),
		dumpCommand(),
		gatewayCommand(),
		hopCommand(),
		imageCommand(),
		ingressCommand(),
		labCommand(),
		namingCommand(),
		passingCommand(),
		planCommand(),
		policyCommand(),
		preflightCommand(),
		probeCommand(),
		routeCommand(),
		serviceCommand(),
		servingCommand(),
		statusCommand(),
		uninstallCommand(),
		versionCommand(),
	)
	command.InitDefaultHelpCmd()
	command.InitDefaultCompletionCmd()
	group(command)
	strict(command)
	return command
}

// group sorts the commands under the headings of the help.
func group(command *cobra.Command) {
	for _, g := range groups {
		command.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, child := range command.Commands() {
			if slices.Contains(g.commands, child.Name()) {
				child.GroupID = g.title
			}
		}
	}
}

// strict makes a command and all below it refuse what they do not understand
// with a usageError. cobra by itself prints the help of a group of commands,
// and succeeds, for one that is not in it.
func strict(command *cobra.Command) {
	refuse := func(command *cobra.Command, err error) error {
		if err == nil {
			return nil
		}
		return &usageError{err, command.CommandPath()}
	}
	command.SetFlagErrorFunc(refuse)
	if args := command.Args; args != nil {
		command.Args = func(command *cobra.Command, given []string) error { return refuse(command, args(command, given)) }
	}
	if command.HasSubCommands() && !command.Runnable() {
		command.Args = func(command *cobra.Command, given []string) error {
			return refuse(command, unknownCommand(command, given))
		}
		command.RunE = func(command *cobra.Command, _ []string) error { return command.Help() }
	}
	command.PreRunE = func(command *cobra.Command, _ []string) error { // cobra asks the same later, past SetFlagErrorFunc
		return refuse(command, cmp.Or(command.ValidateRequiredFlags(), command.ValidateFlagGroups()))
	}
	for _, child := range command.Commands() {
		strict(child)
	}
}

func unknownCommand(command *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	command.SuggestionsMinimumDistance = 2 // edits
	text := fmt.Sprintf("%q is no command of %s", args[0], command.CommandPath())
	if similar := command.SuggestionsFor(args[0]); len(similar) > 0 {
		text += "; did you mean " + strings.Join(similar, " or ") + "?"
	}
	return errors.New(text)
}
