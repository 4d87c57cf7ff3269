package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/lab"
	"github.com/fairlead-net/fairlead/lab/world"
)

func labKubectlCommand(flags *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl ARGUMENTS…",
		Short: "Run kubectl on the lab",
		Args:  cobra.ArbitraryArgs,
		// Flags are kubectl's, but for a leading --name.
		DisableFlagParsing: true,
		RunE: func(command *cobra.Command, args []string) error {
			name, args := leadingName(args, flags.name)
			l, err := lab.Open(name)
			if err != nil {
				return err
			}
			return attach(l.KubectlCommand(context.WithoutCancel(command.Context()), args...))
		},
	}
}

// leadingName takes --name NAME or --name=NAME off the front of args.
func leadingName(args []string, name string) (string, []string) {
	if len(args) > 1 && args[0] == "--name" {
		return args[1], args[2:]
	}
	if len(args) > 0 && strings.HasPrefix(args[0], "--name=") {
		return strings.TrimPrefix(args[0], "--name="), args[1:]
	}
	return name, args
}

func labExecCommand(flags *labFlags) *cobra.Command {
	command := &cobra.Command{
		Use:   "exec MACHINE [--] COMMAND…",
		Short: "Run a command on a node, or on router, control or internet",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(command *cobra.Command, args []string) error {
			machine, program := args[0], args[1:]
			if program[0] == "--" && len(program) > 1 {
				program = program[1:]
			}
			return flags.run(command.Context(), machine, program...)
		},
	}
	command.Flags().SetInterspersed(false) // flags after the machine are the program's
	return command
}

func labShellCommand(flags *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "shell MACHINE",
		Short: "Open a shell on a node, or on router, control or internet",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return flags.run(command.Context(), args[0], "/bin/bash")
		},
	}
}

func (f *labFlags) run(ctx context.Context, machine string, program ...string) error {
	l, err := f.open()
	if err != nil {
		return err
	}
	return attach(l.World().Command(context.WithoutCancel(ctx), machine, program...))
}

// attach runs a program with this terminal and returns its exit code. Ctrl-C
// is for that program: its context is one that the signal does not end.
func attach(program *exec.Cmd) error {
	program.Stdin, program.Stdout, program.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := program.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exitCode(exit.ExitCode())
	}
	return err
}

func labLogsCommand(flags *labFlags) *cobra.Command {
	follow, lines := false, 100
	command := &cobra.Command{
		Use:   "logs MACHINE [SERVICE]",
		Short: "Show the log of a service of a machine, or of all its services",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(command *cobra.Command, args []string) error {
			l, err := flags.open()
			if err != nil {
				return err
			}
			paths, err := l.Logs(args[0], args[1:]...)
			if err != nil {
				return err
			}
			tail := []string{fmt.Sprintf("--lines=%d", lines)}
			if follow {
				tail = append(tail, "--follow=name")
			}
			return attach(exec.CommandContext(context.WithoutCancel(command.Context()), "tail", append(tail, paths...)...))
		},
	}
	command.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is added")
	command.Flags().IntVar(&lines, "lines", lines, "number of lines to begin with")
	return command
}

func labMachineInitCommand() *cobra.Command {
	return &cobra.Command{
		Use: "machine-init DIR", Short: "Be the first process of a machine", Hidden: true,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return world.RunMachine(args[0]) },
	}
}

func labMachineEnterCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "machine-enter DIR MACHINE -- COMMAND…", Short: "Run a command on a machine", Hidden: true,
		Args: cobra.MinimumNArgs(3),
		RunE: func(_ *cobra.Command, args []string) error { return world.Enter(args[0], args[1], args[2:]) },
	}
	return command
}
