package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
)

// completeTime is how long the shell waits for names; without them it completes
// nothing.
const completeTime = 3 * time.Second

// completion is how cobra asks for what may follow.
type completion = func(command *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completeNodes completes names of nodes as arguments, most of them; each once.
func completeNodes(options *kube.Options, most int) completion {
	return func(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := nodeNames(command.Context(), *options)
		names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args, name) })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// nodeNames are nil if they cannot be had.
func nodeNames(ctx context.Context, options kube.Options) []string {
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	client, err := kube.Connect(options)
	if err != nil {
		return nil
	}
	names, err := client.NodeNames(ctx)
	if err != nil {
		return nil
	}
	return names
}
