package cli

import (
	"cmp"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/controller"
	"github.com/fairlead-net/fairlead/kube"
)

func controllerCommand() *cobra.Command {
	var options kube.Options
	var health, metrics string
	command := &cobra.Command{
		Use:   "controller",
		Short: "Run the controller of the cluster: it sums up what the agents report",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			options.UserAgent = "fairlead-controller/" + Version
			host, err := os.Hostname()
			if err != nil {
				return err
			}
			return controller.Run(command.Context(), controller.Options{
				Kube:     options,
				Identity: cmp.Or(os.Getenv("POD_NAME"), host),
				Version:  Version,
				Log:      slog.New(slog.NewTextHandler(command.ErrOrStderr(), nil)),

				HealthAddress: health, MetricsAddress: metrics,
			})
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.StateDir, "state-dir", "/var/lib/fairlead", "where the agent of this node keeps the addresses of the API servers")
	flags.StringSliceVar(&options.Servers, "apiserver", nil, "address of the API server to try first, host:port (repeatable)")
	flags.StringVar(&options.Kubeconfig, "kubeconfig", "", "how to reach the API server, when not run as a pod")
	flags.StringVar(&health, "health-address", "127.0.0.1:9812", "serves /healthz, /readyz, /metrics and /debug/pprof; empty: not at all")
	flags.StringVar(&metrics, "metrics-address", os.Getenv(metricsVariable), "serves /metrics alone, for Prometheus, such as :9813; empty: not at all")
	return command
}
