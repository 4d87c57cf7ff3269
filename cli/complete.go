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

// completeFlag completes the value of a flag.
func completeFlag(command *cobra.Command, flag string, by completion) {
	if err := command.RegisterFlagCompletionFunc(flag, by); err != nil {
		panic(err) // the flag is defined by the caller
	}
}

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
	completeFlag(command, flag, func(command *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return nodeNames(command.Context(), *options), cobra.ShellCompDirectiveNoFileComp
	})
}

// completeNodeList completes names of nodes, separated by commas, as the value of a
// flag; each once.
func completeNodeList(command *cobra.Command, flag string, options *kube.Options) {
	completeFlag(command, flag, func(command *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
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

// completePods completes [NAMESPACE/]POD.
func completePods(options *kube.Options, namespace *string) completion {
	return completeNames(options, namespace, (*kube.Client).PodNames)
}

// completeServices completes [NAMESPACE/]SERVICE.
func completeServices(options *kube.Options, namespace *string) completion {
	return completeNames(options, namespace, (*kube.Client).ServiceNames)
}

// completeNames completes [NAMESPACE/]NAME by what there is in a namespace.
func completeNames(options *kube.Options, namespace *string, list func(*kube.Client, context.Context, string) ([]string, error)) completion {
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
		names, err := list(client, ctx, in)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return prefixed(prefix, names), cobra.ShellCompDirectiveNoFileComp
	}
}

// prefixed puts a prefix before each name.
func prefixed(prefix string, names []string) []string {
	for i := range names {
		names[i] = prefix + names[i]
	}
	return names
}

// onlyFirst completes the first argument, and none after it.
func onlyFirst(first completion) completion {
	return func(command *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return first(command, args, begun)
	}
}

// completeEnds completes names of pods and nodes, and of the Services that a packet goes
// to, as the value of a flag.
func completeEnds(command *cobra.Command, flag string, options *kube.Options, namespace *string) {
	pods, services := completePods(options, namespace), completeServices(options, namespace)
	completeFlag(command, flag, func(command *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		kind, rest, slash := strings.Cut(begun, "/")
		switch {
		case slash && kind == "node":
			return prefixed("node/", nodeNames(command.Context(), *options)), cobra.ShellCompDirectiveNoFileComp
		case slash && kind == "svc" && flag == "to":
			names, directive := services(command, args, rest)
			return prefixed("svc/", names), directive
		}
		names, directive := pods(command, args, begun)
		if !slash {
			names = append(names, "node/")
			if flag == "to" {
				names = append(names, "svc/")
			}
		}
		return names, directive | cobra.ShellCompDirectiveNoSpace
	})
}
