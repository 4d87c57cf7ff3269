package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/lab"
)

// labVerb is a verb that changes the machine it is given.
func labVerb(flags *labFlags, use, short string, act func(context.Context, *lab.Lab, []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(strings.Count(use, " ")),
		RunE: func(command *cobra.Command, args []string) error {
			return flags.change(command.Context(), func(l *lab.Lab) error { return act(command.Context(), l, args) })
		},
	}
}

func labNodeCommand(flags *labFlags) *cobra.Command {
	command := &cobra.Command{Use: "node", Short: "Switch nodes off and on, add and delete them"}
	add := &cobra.Command{
		Use: "add", Short: "Add a node and wait until it is ready", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return flags.change(command.Context(), func(l *lab.Lab) error {
				_, err := l.AddNode(command.Context(), command.ErrOrStderr())
				return err
			})
		},
	}
	command.AddCommand(add,
		labVerb(flags, "delete NODE", "Remove a node from cluster and lab", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.DeleteNode(ctx, args[0])
		}),
		labVerb(flags, "stop MACHINE", "Shut a machine down", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.World().StopMachine(ctx, args[0], true)
		}),
		labVerb(flags, "kill MACHINE", "Switch a machine off, as if its power failed", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.World().StopMachine(ctx, args[0], false)
		}),
		labVerb(flags, "start MACHINE", "Boot a machine that is off", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.Start(ctx, args[0])
		}),
		labVerb(flags, "reboot MACHINE", "Shut a machine down and boot it", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.Reboot(ctx, args[0])
		}),
		labVerb(flags, "readdress NODE", "Reboot a node with other addresses, and wait until the cluster knows them", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.ReaddressNode(ctx, args[0])
		}),
		labVerb(flags, "rename NODE NAME", "Remove a node, and add it again under another name with the same addresses", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.RenameNode(ctx, args[0], args[1], os.Stderr)
		}),
	)
	return command
}

func labLinkCommand(flags *labFlags) *cobra.Command {
	device := "eth0"
	command := &cobra.Command{Use: "link", Short: "Break the link of a machine, and mend it"}
	command.PersistentFlags().StringVar(&device, "interface", device, "interface of the machine; those of the router are called like the segments")
	command.AddCommand(
		labVerb(flags, "down MACHINE", "Take the link down", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.World().SetLink(ctx, args[0], device, false)
		}),
		labVerb(flags, "up MACHINE", "Bring the link up", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.World().SetLink(ctx, args[0], device, true)
		}),
		labVerb(flags, "replace MACHINE", "Take the interface out, and put a new one of the same name in", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.World().ReplacePort(ctx, args[0], device)
		}),
		labVerb(flags, "loss MACHINE PERCENT", "Lose this part of the packets; 0 for none", func(ctx context.Context, l *lab.Lab, args []string) error {
			percent, err := strconv.ParseFloat(strings.TrimSuffix(args[1], "%"), 64)
			if err != nil || percent < 0 || percent > 100 {
				return fmt.Errorf("%q is not a percentage between 0 and 100", args[1])
			}
			return l.World().SetLoss(ctx, args[0], device, percent)
		}),
		labVerb(flags, "rate MACHINE RATE", "Limit the rate, such as 10mbit; 0 for no limit", func(ctx context.Context, l *lab.Lab, args []string) error {
			bits, err := parseRate(args[1])
			if err != nil {
				return err
			}
			return l.World().SetRate(ctx, args[0], device, bits)
		}),
	)
	return command
}

// parseRate reads a number with an optional kbit, mbit or gbit; in bits per
// second.
func parseRate(text string) (uint64, error) {
	number, unit := text, uint64(1)
	for suffix, factor := range map[string]uint64{"kbit": 1e3, "mbit": 1e6, "gbit": 1e9} {
		if head, ok := strings.CutSuffix(strings.ToLower(text), suffix); ok {
			number, unit = head, factor
		}
	}
	value, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a rate such as 800kbit, 10mbit or 0", text)
	}
	return value * unit, nil
}

func labPartitionCommand(flags *labFlags) *cobra.Command {
	heal := false
	command := labVerb(flags, "partition MACHINE MACHINE", "Let two machines exchange no packet",
		func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.World().Partition(ctx, args[0], args[1], !heal)
		})
	command.Flags().BoolVar(&heal, "heal", false, "let them again")
	return command
}

func labAPIServerCommand(flags *labFlags) *cobra.Command {
	command := &cobra.Command{Use: "apiserver", Short: "Stop the API server, and start it"}
	command.AddCommand(
		labVerb(flags, "stop", "Stop the API server; the rest goes on", func(ctx context.Context, l *lab.Lab, _ []string) error {
			return l.World().StopService(ctx, lab.Control, "kube-apiserver")
		}),
		labVerb(flags, "start", "Start the API server again", func(ctx context.Context, l *lab.Lab, _ []string) error {
			return l.World().StartService(ctx, lab.Control, "kube-apiserver")
		}),
	)
	return command
}

func labServiceCommand(flags *labFlags) *cobra.Command {
	command := &cobra.Command{Use: "service", Short: "Stop a program of a machine, and start it"}
	command.AddCommand(
		labVerb(flags, "stop MACHINE PROGRAM", "Stop a program, such as kube-proxy; the rest goes on", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.World().StopService(ctx, args[0], args[1])
		}),
		labVerb(flags, "start MACHINE PROGRAM", "Start a program again", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.World().StartService(ctx, args[0], args[1])
		}),
	)
	return command
}

func labDNSCommand(flags *labFlags) *cobra.Command {
	command := &cobra.Command{Use: "dns", Short: "Do harm to the DNS server of a node"}
	command.AddCommand(
		labVerb(flags, "kill NODE", "Kill it, as a crash does; the kubelet starts it again", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.KillDNS(ctx, args[0])
		}),
		labVerb(flags, "hang NODE", "Let it answer nobody, with its sockets as they are", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.HangDNS(ctx, args[0], true)
		}),
		labVerb(flags, "unhang NODE", "Let it go on", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.HangDNS(ctx, args[0], false)
		}),
	)
	return command
}

func labAgentCommand(flags *labFlags) *cobra.Command {
	command := &cobra.Command{Use: "agent", Short: "Do harm to the agent of a node"}
	command.AddCommand(
		labVerb(flags, "kill NODE", "Kill the agent, as a crash does; the kubelet starts it again", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.KillAgent(ctx, args[0])
		}),
		labVerb(flags, "starve NODE", "Let the agent have no more memory than it has: the kernel kills it soon", func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.StarveAgent(ctx, args[0])
		}),
		labVerb(flags, "files NODE NUMBER", "Let the agent, until it ends, have this many files open", func(ctx context.Context, l *lab.Lab, args []string) error {
			files, err := strconv.ParseUint(args[1], 10, 32)
			if err != nil {
				return fmt.Errorf("%q is not a number of files", args[1])
			}
			return l.LimitAgent(ctx, args[0], files)
		}),
	)
	return command
}
