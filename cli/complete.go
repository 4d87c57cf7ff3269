package cli

import (
	"context"
	"slices"
	"strings"
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

// completeNode completes the name of a node as the value of a flag.
func completeNode(command *cobra.Command, flag string, options *kube.Options) {
	err := command.RegisterFlagCompletionFunc(flag, func(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return nodeNames(command.Context(), *options), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag is defined by the caller
	}
}

// completeNodeList completes names of nodes, separated by commas, as the value of a
// flag; each once.
func completeNodeList(command *cobra.Command, flag string, options *kube.Options) {
	err := command.RegisterFlagCompletionFunc(flag, func(command *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		before := begun[:strings.LastIndexByte(begun, ',')+1]
		chosen := strings.Split(before, ",")
		var values []string
		for _, name := range nodeNames(command.Context(), *options) {
			if !slices.Contains(chosen, name) {
				values = append(values, before+name)
			}
		}
		return values, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	})
	if err != nil {
		panic(err) // the flag is defined by the caller
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

// completePods completes [NAMESPACE/]POD as the value of a flag.
func completePods(options *kube.Options, namespace *string) completion {
	return func(command *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(command.Context(), completeTime)
		defer cancel()
		client, err := kube.Connect(*options)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		in, prefix := *namespace, ""
		if before, _, ok := strings.Cut(begun, "/"); ok {
			in, prefix = before, before+"/"
		} else if in == "" {
			in = options.Namespace()
		}
		names, err := client.PodNames(ctx, in)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for i := range names {
			names[i] = prefix + names[i]
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
