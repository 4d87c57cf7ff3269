package cli

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/servers/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway/daemon"
)

func gatewayCommand() *cobra.Command {
	config := daemon.Config{Version: Version}
	var api kube.Options
	var http, https []string
	var trusted, introduced []string
	var standard string
	access := accessLogOptions{}
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
			if config.Trusted, err = parseAll("--trusted-proxies", trusted, netip.ParsePrefix); err != nil {
				return err
			}
			if config.Introduced, err = parseAll("--proxy-protocol-from", introduced, netip.ParsePrefix); err != nil {
				return err
			}
			if config.DefaultCertificate, err = parseSecret(command, standard); err != nil {
				return err
			}
			if config.AccessLog, err = access.open(command); err != nil {
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
	flags.StringVar(&standard, "default-certificate", "", "Secret of hosts that have no certificate of their own, as NAMESPACE/NAME; without, theirs is one that nobody trusts")
	flags.StringSliceVar(&trusted, "trusted-proxies", nil, "proxies in front of the gateway, as CIDRs, whose word on clients holds: X-Forwarded-For, -Proto, -Host, -Port (repeatable)")
	flags.StringSliceVar(&introduced, "proxy-protocol-from", nil, "load balancers, as CIDRs, that begin each connection with the PROXY protocol, 1 or 2 (repeatable)")
	flags.BoolVar(&config.Compress, "gzip", false, "compress answers of texts for clients that can read it")
	flags.DurationVar(&config.SlowStart, "slow-start", 0, "for how long a new endpoint has fewer requests than those that were there before, such as 30s")
	access.flags(flags)
	flags.StringSliceVar(&api.Servers, "apiserver", nil, "address of the API server (repeatable); without, the pod's environment tells")
	flags.StringVar(&api.Kubeconfig, "kubeconfig", "", "how to reach the API server, when not run as a pod")
	return command
}

// parseSecret reads NAMESPACE/NAME.
func parseSecret(command *cobra.Command, text string) (key model.SecretKey, err error) {
	if text == "" {
		return key, nil
	}
	namespace, name, ok := strings.Cut(text, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return key, &usageError{fmt.Errorf("--default-certificate %q is not NAMESPACE/NAME", text), command.CommandPath()}
	}
	return model.SecretKey{Namespace: namespace, Name: name}, nil
}

// accessLogOptions say where requests are written down.
type accessLogOptions struct {
	to, form string
	oneIn    int
}

func (o *accessLogOptions) flags(flags *pflag.FlagSet) {
	flags.StringVar(&o.to, "access-log", "off", "where each request is written down: stdout, a file, or off")
	flags.StringVar(&o.form, "access-log-format", "json", "json, or upstreaminfo as ingress-nginx has it")
	flags.IntVar(&o.oneIn, "access-log-one-in", 1, "write down one in so many of the requests that did not fail with 5xx")
}

// open opens the log. A file is appended to, so that it may be copied and emptied
// while the gateway runs.
func (o *accessLogOptions) open(command *cobra.Command) (log daemon.AccessLog, err error) {
	log.OneIn = o.oneIn
	switch o.form {
	case "json":
	case "upstreaminfo":
		log.Form = gateway.Upstream
	default:
		return log, &usageError{fmt.Errorf("--access-log-format %q is neither json nor upstreaminfo", o.form), command.CommandPath()}
	}
	if o.oneIn < 1 {
		return log, &usageError{fmt.Errorf("--access-log-one-in %d is not 1 or more", o.oneIn), command.CommandPath()}
	}
	switch o.to {
	case "off":
	case "stdout", "-":
		log.To = command.OutOrStdout()
	default:
		file, err := os.OpenFile(o.to, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return log, fmt.Errorf("open the access log: %w; name a file that the gateway may write (--access-log), or stdout", err)
		}
		log.To = file
	}
	return log, nil
}
