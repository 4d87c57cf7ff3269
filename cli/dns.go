package cli

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/agent"
	"github.com/fairlead-net/fairlead/servers/dns/daemon"
	"github.com/fairlead-net/fairlead/servers/dns/privilege"
)

// dnsUser is who the DNS server is once it has begun: no user of the node.
const dnsUser = agent.DNSUser

// dnsLinger is longer than it takes the next server of an upgrade to be told the
// names and to listen, which it has begun to do when this one is told to end; and
// shorter than the DaemonSet's grace.
const dnsLinger = 6 * time.Second

func dnsCommand() *cobra.Command {
	config := daemon.Config{Version: Version, Linger: dnsLinger}
	var listen, clients []string
	command := &cobra.Command{
		Use:   "dns",
		Short: "See what becomes of DNS queries; by itself, answer them (the DaemonSet does)",
		Long: `See what becomes of DNS queries, with one of the commands below.

By itself, without any, answer queries on this node, as the DaemonSet fairlead-dns
does: for names of the cluster as the agent tells of them, and for all others as
upstreams do. Started as root, it keeps the right to listen on port 53 and nothing
else.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) (err error) {
			config.Log = slog.New(slog.NewTextHandler(command.ErrOrStderr(), nil))
			if config.Listen, err = parseAll("--listen", listen, netip.ParseAddrPort); err != nil {
				return err
			}
			if config.Clients, err = parseAll("--client", clients, netip.ParsePrefix); err != nil {
				return err
			}
			config.Queries = command.OutOrStdout()
			if err := privilege.Drop(dnsUser, config.StateDir); err != nil {
				return err
			}
			return daemon.Run(command.Context(), config)
		},
	}
	command.AddCommand(dnsTopCommand(), dnsTraceCommand())
	flags := command.Flags()
	flags.StringVar(&config.Socket, "socket", "/run/fairlead/dns/dns.sock", "where the agent of this node tells what the names are")
	flags.StringVar(&config.StateDir, "state-dir", "/var/lib/fairlead-dns", "keeps the names for a start without an agent; empty: not at all")
	flags.StringVar(&config.HealthAddress, "health-address", namingAddress, "serves /healthz, /readyz, /metrics, /debug/clients, /debug/trace and /debug/pprof; empty: not at all")
	flags.StringVar(&config.MetricsAddress, "metrics-address", os.Getenv(metricsVariable), "serves /metrics alone, for Prometheus, such as :9816; empty: not at all")
	flags.StringVar(&config.ResolvConf, "resolv-conf", "/etc/resolv.conf", "who is asked about names that are not of the cluster, unless the Network says so")
	flags.StringSliceVar(&listen, "listen", nil, "address and port to answer at, by UDP and TCP, besides those that the agent says (repeatable)")
	flags.StringSliceVar(&clients, "client", nil, "range of addresses that are answered, such as 127.0.0.0/8, besides those that the agent says (repeatable)")
	return command
}

// parseAll reads all values of a flag.
func parseAll[T any](flag string, texts []string, parse func(string) (T, error)) (all []T, err error) {
	for _, text := range texts {
		one, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", flag, text, err)
		}
		all = append(all, one)
	}
	return all, nil
}
