package cli

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fairlead-net/fairlead/agent"
	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/dataplane/netlink"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/servers/udptunnel"
)

func agentCommand() *cobra.Command {
	var config agent.Config
	var api kube.Options
	command := &cobra.Command{
		Use:   "agent",
		Short: "Run the network of this node (the DaemonSet does)",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			config.Version = Version
			config.Log = slog.New(slog.NewTextHandler(command.ErrOrStderr(), nil))
			return runAgent(command, config, api)
		},
	}
	flags := command.Flags()
	directories(flags, &config)
	flags.StringVar(&config.Node, "node-name", os.Getenv("NODE_NAME"), "name of this node's Node object")
	flags.StringVar(&config.HealthAddress, "health-address", "127.0.0.1:9811", "serves /healthz, /readyz, /metrics, /debug/snapshot, /debug/status, /debug/drops and /debug/pprof; empty: not at all")
	flags.StringVar(&config.MetricsAddress, "metrics-address", os.Getenv(metricsVariable), "serves /metrics alone, for Prometheus, such as :9810; empty: not at all")
	flags.StringVar(&config.ServiceHealthAddress, "service-health-address", ":10256", "serves /healthz and /livez for load balancers, as kube-proxy does; empty: not at all")
	flags.StringVar(&config.ServiceMetricsAddress, "service-metrics-address", "127.0.0.1:10249", "serves /metrics and /proxyMode where kube-proxy does; empty: not at all")
	flags.StringVar(&config.DropLog, "drop-log", os.Getenv(dropLogVariable), "file of what policies deny, as JSON in the Elastic Common Schema, such as /var/lib/fairlead/drops.json; at most 50 MB; empty: none")
	flags.StringVar(&config.Cluster, "cluster-name", os.Getenv(clusterVariable), "what --drop-log calls the cluster; may be empty")
	flags.BoolVar(&config.Probes, "probes", true, "answer probes of other nodes on port 9815 of UDP and TCP, and probe four of them all the time")
	flags.StringSliceVar(&api.Servers, "apiserver", nil, "address of the API server (repeatable); without, the kubelet's configuration tells")
	flags.StringVar(&api.Kubeconfig, "kubeconfig", "", "how to reach the API server, when not run as a pod")
	return command
}

// These have the defaults of --metrics-address, --drop-log and --cluster-name, so
// that a ConfigMap can give them.
const (
	metricsVariable = "FAIRLEAD_METRICS_ADDRESS"
	dropLogVariable = "FAIRLEAD_DROP_LOG"
	clusterVariable = "FAIRLEAD_CLUSTER_NAME"
)

// directories are where an agent has its files on the node.
func directories(flags *pflag.FlagSet, config *agent.Config) {
	flags.StringVar(&config.CNIBinDir, "cni-bin-dir", "/opt/cni/bin", "where the container runtime looks for CNI plugins")
	flags.StringVar(&config.CNIConfDir, "cni-conf-dir", "/etc/cni/net.d", "where the container runtime looks for CNI configurations")
	flags.StringVar(&config.StateDir, "state-dir", "/var/lib/fairlead", "what is kept over reboots")
	flags.StringVar(&config.RunDir, "run-dir", "/run/fairlead", "sockets, gone with a reboot")
}

// dataplanes gives an agent all that there are, and what they serve with.
func dataplanes(config *agent.Config) (closeAll func(), err error) {
	routes, err := netlink.New()
	if err != nil {
		return nil, err
	}
	config.Former = agent.RememberSysctls(config.StateDir, config.Log)
	routes.Former = config.Former
	tunnel, filter, others := udptunnel.New(config.Log), nftables.New(), nftables.NewFirewall()
	config.Servers = []agent.Server{tunnel, routes, filter, others}
	others.Beside = filter
	// What opens the loopback interface comes after what guards it.
	routes.Guarded = filter.Guards
	config.Dataplanes = []dataplane.Dataplane{tunnel.Ahead(), filter, routes, tunnel.Behind(), others}
	config.Surveyor = others
	return routes.Close, nil
}

func runAgent(command *cobra.Command, config agent.Config, api kube.Options) error {
	api.UserAgent = "fairlead-agent/" + config.Version
	api.StateDir = config.StateDir
	client, err := kube.Connect(api)
	if err != nil {
		return err
	}
	closePlanes, err := dataplanes(&config)
	if err != nil {
		return err
	}
	defer closePlanes()
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the CNI plugin: %w", err)
	}
	config.Plugin = filepath.Join(filepath.Dir(executable), "fairlead-cni")
	config.Source, config.Publisher, config.Pods = client.Source(), client, client
	return agent.Run(command.Context(), config)
}
