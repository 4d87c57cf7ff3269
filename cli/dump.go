package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/observe/dump"
)

// dumpParts are what an agent and its node can tell, by the path that the agent
// serves it at; the kernel is read here.
var dumpParts = []struct{ name, path string }{
	{"status", "/debug/status"},
	{"snapshot", "/debug/snapshot"},
	{"drops", "/debug/drops"},
	{"metrics", "/metrics"},
	{"ready", "/readyz?verbose"},
	{"kernel", ""},
}

func dumpCommand() *cobra.Command {
	var names []string
	for _, part := range dumpParts {
		names = append(names, part.name)
	}
	var address string
	command := &cobra.Command{
		Use:   "dump PART",
		Short: "Print what this node can tell: " + strings.Join(names, ", "),
		Long: `Print what this node can tell, in the network namespace of its agent: for
fairlead status NODE and fairlead debug bundle, which run it there.`,
		Hidden:    true,
		ValidArgs: names,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(command *cobra.Command, args []string) error {
			if args[0] == "kernel" {
				return printJSON(command.OutOrStdout(), dump.Read())
			}
			at := slices.Index(names, args[0])
			return fetch(command.Context(), command.OutOrStdout(), "http://"+address+dumpParts[at].path)
		},
	}
	command.Flags().StringVar(&address, "health-address", "127.0.0.1:9811", "of the agent of this node")
	return command
}

// fetch copies what an agent serves. One that is not ready says so, and tells all
// the same.
func fetch(ctx context.Context, to io.Writer, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: &http.Transport{}}).Do(request) // not by way of a proxy
	if err != nil {
		return fmt.Errorf("ask the agent: %w; it may be starting, or have another --health-address", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusServiceUnavailable {
		return fmt.Errorf("ask the agent for %s: %s; it may be of another version", url, answer.Status)
	}
	_, err = io.Copy(to, answer.Body)
	return err
}
