package cli

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/lab"
	"github.com/fairlead-net/fairlead/lab/outside"
)

// labFlags are what all verbs of the lab share.
type labFlags struct{ name string }

func labCommand() *cobra.Command {
	flags := &labFlags{}
	command := &cobra.Command{
		Use:   "lab",
		Short: "Real Kubernetes clusters in network namespaces of this host",
		Long: `Makes real Kubernetes clusters (upstream components, containerd, runc) whose
machines are namespaces of this host, in a private world that no packet leaves.
It needs root, and leaves nothing behind after "down".`,
	}
	command.PersistentFlags().StringVar(&flags.name, "name", lab.DefaultName, "name of the lab")
	command.AddCommand(
		labUpCommand(flags), labDownCommand(flags), labListCommand(), labStatusCommand(flags),
		labKubectlCommand(flags), labExecCommand(flags), labShellCommand(flags), labLogsCommand(flags),
		labImagesCommand(flags), labNodeCommand(flags), labLinkCommand(flags), labPartitionCommand(flags),
		labAPIServerCommand(flags), labServiceCommand(flags), labAgentCommand(flags), labDNSCommand(flags),
		labMachineInitCommand(), labMachineEnterCommand(), labPortalCommand(), labOutsideCommand(),
	)
	return command
}

func (f *labFlags) open() (*lab.Lab, error) { return lab.Open(f.name) }

// change runs f on the lab while no other command changes it.
func (f *labFlags) change(ctx context.Context, change func(*lab.Lab) error) error {
	l, err := f.open()
	if err != nil {
		return err
	}
	unlock, err := l.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if l, err = f.open(); err != nil { // as it is now that nobody changes it
		return err
	}
	return change(l)
}

func labUpCommand(flags *labFlags) *cobra.Command {
	config := lab.Config{}
	command := &cobra.Command{
		Use:   "up",
		Short: "Make a lab and wait until its nodes are ready",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			config.Name = flags.name
			config.Family = lab.Family(command.Flag("family").Value.String())
			l, err := lab.Up(command.Context(), config, command.ErrOrStderr())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(command.OutOrStdout(), `
Lab %[1]s is up. Try:
  fairlead lab status --name %[1]s
  fairlead lab kubectl --name %[1]s get pods --all-namespaces
  export KUBECONFIG=%[2]s
`, l.Name(), l.Kubeconfig())
			return err
		},
	}
	set := command.Flags()
	set.IntVar(&config.Nodes, "nodes", 3, "number of nodes")
	set.IntVar(&config.Segments, "segments", 0, "L2 networks that nodes are spread over (default 2, or 1 for one node)")
	set.IntVar(&config.Zones, "zones", 0, "number of zones that nodes are labelled with in turn")
	set.String("family", string(lab.Dual), "address families: ipv4, ipv6 or dual")
	set.IntSliceVar(&config.MTU, "mtu", []int{1500}, "MTU of the segments, in bytes; one for each, such as 9000,1500")
	set.StringVar(&config.KubeProxy, "kube-proxy", "", "mode of kube-proxy: nftables, iptables or none (the default, unless the network is none)")
	set.StringVar(&config.DNS, "dns", "coredns", "cluster DNS: coredns, fairlead or none")
	set.StringVar(&config.Network, "network", "fairlead", "pod network: fairlead or none")
	set.StringVar(&config.Source, "source", "", "checkout of Fairlead to build (default: the one around the working directory)")
	return command
}

func labDownCommand(flags *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End a lab and remove all of it, also what a crash left",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			start := time.Now()
			if err := lab.Down(command.Context(), flags.name); err != nil {
				return err
			}
			_, err := fmt.Fprintf(command.OutOrStdout(), "Lab %s is gone (%.1fs).\n", flags.name, time.Since(start).Seconds())
			return err
		},
	}
}

func labListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the labs of this host",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			names, err := lab.List()
			if err != nil {
				return err
			}
			for _, name := range names {
				if _, err := fmt.Fprintln(command.OutOrStdout(), name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func labStatusCommand(flags *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the machines, services, memory and nodes of a lab",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			l, err := flags.open()
			if err != nil {
				return err
			}
			return l.WriteStatus(command.Context(), command.OutOrStdout())
		},
	}
}

func labImagesCommand(flags *labFlags) *cobra.Command {
	command := &cobra.Command{Use: "images", Short: "Images of the nodes"}
	command.AddCommand(labImagesBuildCommand(flags), &cobra.Command{
		Use:   "load TAR",
		Short: "Load an archive of images, such as docker save writes, into all nodes",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			l, err := flags.open()
			if err != nil {
				return err
			}
			return l.LoadImages(command.Context(), args[0])
		},
	})
	return command
}

func labImagesBuildCommand(flags *labFlags) *cobra.Command {
	var revision, manifest string
	command := &cobra.Command{
		Use:   "build NAME",
		Short: "Build Fairlead's image, of another commit if one is given, and load it into all nodes",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			l, err := flags.open()
			if err != nil {
				return err
			}
			return l.BuildImage(command.Context(), args[0], revision, manifest, command.ErrOrStderr())
		},
	}
	command.Flags().StringVar(&revision, "revision", "", "commit of the checkout to build; the checkout as it is if the commit is not there")
	command.Flags().StringVar(&manifest, "manifest", "", "file to write what that commit deploys to, with this image")
	return command
}

func labOutsideCommand() *cobra.Command {
	return &cobra.Command{
		Use: "outside ADDRESS…", Short: "Answer queries of DNS as a lab's internet", Hidden: true,
		Args: cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			addresses, err := parseAll("ADDRESS", args, netip.ParseAddr)
			if err != nil {
				return err
			}
			return outside.Run(command.Context(), addresses)
		},
	}
}

func labPortalCommand() *cobra.Command {
	return &cobra.Command{
		Use: "portal ADDRESS", Short: "Relay connections of the host into a lab", Hidden: true,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return lab.Portal(command.Context(), args[0])
		},
	}
}
