package cli

import (
	"log/slog"
	"net"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/servers/gateway/daemon"
)

func gatewayCommand() *cobra.Command {
	config := daemon.Config{Version: Version}
	var api kube.Options
	var http, https []string
	command := &cobra.Command{
		Use:   "gateway",
		Short: "Serve requests from outside by Ingresses (the DaemonSet does)",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) (err error) {
			if config.HTTP, err = parseAll("--http", http, netip.ParseAddrPort); err != nil {
				return err
			}
			if config.HTTPS, err = parseAll("--https", https, netip.ParseAddrPort); err != nil {
				return err
			}
			config.Log = slog.New(slog.NewTextHandler(command.ErrOrStderr(), nil))
			api.UserAgent = "fairlead-gateway/" + Version
			if host := os.Getenv("KUBERNETES_SERVICE_HOST"); host != "" && len(api.Servers) == 0 {
				api.Servers = []string{"https://" + net.JoinHostPort(host, os.Getenv("KUBERNETES_SERVICE_PORT"))}
			}
			client, err := kube.Connect(api)
			if err != nil {
				return err
			}
			config.Source = client.GatewaySource()
			if namespace, pod := os.Getenv("POD_NAMESPACE"), os.Getenv("POD_NAME"); namespace != "" && pod != "" {
				said := ""
				config.Register = client.GatewayRegister(namespace, pod, func(err error) {
					if text := err.Error(); text != said {
						said = text
						config.Log.Warn("cannot ask whether this gateway is to write the status of Ingresses", "error", err)
					}
				})
			}
			return daemon.Run(command.Context(), config)
		},
	}
	flags := command.Flags()
	flags.StringSliceVar(&http, "http", []string{"0.0.0.0:8080", "[::]:8080"}, "address and port where HTTP is served (repeatable)")
	flags.StringSliceVar(&https, "https", []string{"0.0.0.0:8443", "[::]:8443"}, "address and port where HTTPS is served (repeatable)")
	flags.StringVar(&config.HealthAddress, "health-address", ":9817", "serves /healthz, /readyz, /metrics and, to this machine, /debug/pprof; empty: not at all")
	flags.StringSliceVar(&api.Servers, "apiserver", nil, "address of the API server (repeatable); without, the pod's environment tells")
	flags.StringVar(&api.Kubeconfig, "kubeconfig", "", "how to reach the API server, when not run as a pod")
	return command
}
