package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
)

// namingAddress is the DNS server's --health-address.
const namingAddress = "127.0.0.1:9814"

// exitNoServer says that there is no DNS server on a node, or that it does not
// answer.
const exitNoServer exitCode = 3

// exitRefused says that the question is not understood. An agent that does not
// know the command at all ends with exitUsage.
const exitRefused exitCode = 4

// namingCommand is how dns trace, dns top and debug bundle ask a node: it runs in
// the agent's container, which is in the network of the node as the DNS server is.
func namingCommand() *cobra.Command {
	var address string
	command := &cobra.Command{
		Use:    "naming PATH",
		Hidden: true,
		Short:  "Say what the DNS server of this node tells (dns trace and dns top ask it)",
		Long: `Say what the DNS server of this node tells below /debug/, as JSON: clients, or
trace with a query. It reads, and changes nothing.

Exit codes: 0 success, 3 there is no DNS server, 4 it does not understand the
question.`,
		Example: `  fairlead naming clients
  fairlead naming 'trace?client=10.244.0.5&name=www.example.com'`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			err := askNaming(command.Context(), command.OutOrStdout(), address, args[0])
			var none *noServer
			var bad *refusedQuestion
			switch {
			case errors.As(err, &none):
				fmt.Fprintln(command.ErrOrStderr(), err)
				return exitNoServer
			case errors.As(err, &bad):
				fmt.Fprintln(command.ErrOrStderr(), err)
				return exitRefused
			}
			return err
		},
	}
	command.Flags().StringVar(&address, "health-address", namingAddress, "of the DNS server of this node")
	return command
}

// noServer says that nobody answers where a DNS server would.
type noServer struct{ err error }

func (e *noServer) Error() string { return e.err.Error() }
func (e *noServer) Unwrap() error { return e.err }

// refusedQuestion says what is wrong with what was asked.
type refusedQuestion struct{ text string }

func (e *refusedQuestion) Error() string { return e.text }

// namingTime is for one answer of a server: a little more than it takes for itself
// at most.
const namingTime = 40 * time.Second

// askNaming copies what the DNS server of this node serves.
func askNaming(ctx context.Context, to io.Writer, address, path string) error {
	ctx, cancel := context.WithTimeout(ctx, namingTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/debug/"+path, nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: &http.Transport{}}).Do(request) // not by way of a proxy
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) { // which repeats the question
			err = failed.Err
		}
		return &noServer{fmt.Errorf("%w; there is none, it is starting, or has another --health-address", err)}
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
		_, err = io.Copy(to, answer.Body)
		return err
	case http.StatusBadRequest:
		said, _ := io.ReadAll(io.LimitReader(answer.Body, 1000))
		return &refusedQuestion{strings.TrimSpace(string(said))}
	}
	return fmt.Errorf("ask the server for %s: %s; it may be of another version", path, answer.Status)
}

// dnsLabel selects the pods of the DNS servers.
const dnsLabel = "app.kubernetes.io/name=fairlead-dns"

// execNaming asks the DNS server of a node by way of its agent.
func execNaming(ctx context.Context, client *kube.Client, node, agent string, args ...string) ([]byte, error) {
	said, err := client.ExecAgent(ctx, agent, nil, append([]string{agentProgram, "naming"}, args...)...)
	var exit *kube.ExitError
	switch {
	case errors.As(err, &exit) && exit.Code == int(exitNoServer):
		return nil, refuse(
			fmt.Sprintf("kubectl -n kube-system get pods -o wide -l %s --field-selector spec.nodeName=%s; if there is none: kubectl apply --server-side -f deploy/dns.yaml", dnsLabel, node),
			"no DNS server of Fairlead answers on %s: %w", node, err)
	case errors.As(err, &exit) && exit.Code == int(exitRefused):
		return nil, refuse("fairlead dns --help", "%s", err.Error())
	case errors.As(err, &exit):
		return nil, refuse("use a fairlead of the same version as the agent: kubectl -n kube-system describe pod "+agent, "%s: %w", node, err)
	case err != nil:
		return nil, refuse(nextOf(err, seeAgent(agent)), "%s: its agent does not answer: %w", node, err)
	}
	return said, nil
}
