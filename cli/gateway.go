package cli

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/servers/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway/daemon"
)

func gatewayCommand() *cobra.Command {
	o := gatewayOptions{config: daemon.Config{Version: Version}}
	command := &cobra.Command{
		Use:   "gateway",
		Short: "Serve requests from outside by Ingresses (the DaemonSet does)",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := o.read(command); err != nil {
				return err
			}
			o.config.Log = slog.New(slog.NewTextHandler(command.ErrOrStderr(), nil))
			if err := o.connect(); err != nil {
				return err
			}
			return daemon.Run(command.Context(), o.config)
		},
	}
	o.flags(command.Flags())
	return command
}

// gatewayOptions are those of fairlead gateway, as they are given.
type gatewayOptions struct {
	config                           daemon.Config
	api                              kube.Options
	http, https, trusted, introduced []string
	certificate                      string
	access                           accessLogOptions
}

func (o *gatewayOptions) flags(flags *pflag.FlagSet) {
	flags.StringSliceVar(&o.http, "http", []string{"0.0.0.0:8080", "[::]:8080"}, "address and port where HTTP is served (repeatable)")
	flags.StringSliceVar(&o.https, "https", []string{"0.0.0.0:8443", "[::]:8443"}, "address and port where HTTPS is served (repeatable)")
	flags.DurationVar(&o.config.Linger, "linger", 5*time.Second, "how long clients are served as before when it is told to end, until they are sent elsewhere")
	flags.StringVar(&o.config.HealthAddress, "health-address", ":9817", "serves /healthz, /readyz, /metrics and, to this machine, /debug/pprof; empty: not at all")
	flags.StringVar(&o.certificate, "default-certificate", "", "Secret of hosts that have no certificate of their own, as NAMESPACE/NAME; without, theirs is one that nobody trusts")
	flags.StringSliceVar(&o.trusted, "trusted-proxies", nil, "proxies in front of the gateway, as CIDRs, whose word on clients holds: X-Forwarded-For, -Proto, -Host, -Port (repeatable)")
	flags.StringSliceVar(&o.introduced, "proxy-protocol-from", nil, "load balancers, as CIDRs, that begin each connection with the PROXY protocol, 1 or 2 (repeatable)")
	flags.StringVar(&o.config.StrictTransport, "strict-transport-security", "max-age=31536000; includeSubDomains", "what browsers are told by TLS of hosts with a certificate, as hsts* in the ConfigMap of ingress-nginx; empty: nothing")
	flags.BoolVar(&o.config.Gzip, "gzip", false, "compress answers of texts for clients that can read it")
	flags.BoolVar(&o.config.Zstd, "zstd", false, "compress them by zstd, which needs less CPU, for clients that ask for it")
	flags.DurationVar(&o.config.SlowStart, "slow-start", 0, "for how long a new endpoint has fewer requests than those that were there before, such as 30s")
	o.access.flags(flags)
	flags.StringSliceVar(&o.api.Servers, "apiserver", nil, "address of the API server (repeatable); without, the pod's environment tells")
	flags.StringVar(&o.api.Kubeconfig, "kubeconfig", "", "how to reach the API server, when not run as a pod")
}

// read reads what is given as text.
func (o *gatewayOptions) read(command *cobra.Command) (err error) {
	if o.config.HTTP, err = parseAll("--http", o.http, netip.ParseAddrPort); err != nil {
		return err
	}
	if o.config.HTTPS, err = parseAll("--https", o.https, netip.ParseAddrPort); err != nil {
		return err
	}
	if o.config.Trusted, err = parseAll("--trusted-proxies", o.trusted, netip.ParsePrefix); err != nil {
		return err
	}
	if o.config.Introduced, err = parseAll("--proxy-protocol-from", o.introduced, netip.ParsePrefix); err != nil {
		return err
	}
	if err := judgeStrictTransport(command, o.config.StrictTransport); err != nil {
		return err
	}
	if o.config.DefaultCertificate, err = parseSecret(command, o.certificate); err != nil {
		return err
	}
	o.config.AccessLog, err = o.access.open(command)
	return err
}

// connect finds the API server, and who this gateway is among the others.
func (o *gatewayOptions) connect() error {
	o.api.UserAgent = "fairlead-gateway/" + Version
	if host := os.Getenv("KUBERNETES_SERVICE_HOST"); host != "" && len(o.api.Servers) == 0 {
		o.api.Servers = []string{"https://" + net.JoinHostPort(host, os.Getenv("KUBERNETES_SERVICE_PORT"))}
	}
	client, err := kube.Connect(o.api)
	if err != nil {
		return err
	}
	o.config.Source = client.GatewaySource()
	if namespace, pod := os.Getenv("POD_NAMESPACE"), os.Getenv("POD_NAME"); namespace != "" && pod != "" {
		said := ""
		o.config.Register = client.GatewayRegister(namespace, pod, func(err error) {
			if text := err.Error(); text != said {
				said = text
				o.config.Log.Warn("cannot ask whether this gateway is to write the status of Ingresses", "error", err)
			}
		})
	}
	return nil
}

var strictTransport = regexp.MustCompile(`^max-age=\d+(; *includeSubDomains)?(; *preload)?$`)

// judgeStrictTransport refuses what browsers would not understand: they would pass
// over it, and nobody would know.
func judgeStrictTransport(command *cobra.Command, value string) error {
	if value != "" && !strictTransport.MatchString(value) {
		return &usageError{fmt.Errorf("--strict-transport-security %q is not as in max-age=31536000; includeSubDomains; preload, of which the last two may be left out", value), command.CommandPath()}
	}
	return nil
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
