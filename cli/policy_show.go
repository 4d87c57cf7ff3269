package cli

import (
	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/observe/policy"
)

func policyShowCommand() *cobra.Command {
	var options policyOptions
	command := &cobra.Command{
		Use:   "show POD",
		Short: "Show the rules that are for a pod, with the policies that they are from",
		Long: `Show which rules of NetworkPolicies and ClusterNetworkPolicies are for a pod, in both
directions and in the order in which they are asked; whether it is isolated, and by
which policies; and how many pods each rule is about at this moment.

Exit codes: 0 the pod is shown, 2 it cannot be.`,
		Example: `  fairlead policy show db-0
  fairlead policy show shop/db-0 -o json | jq '.ingress.rules[].name'`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			snapshot, problems, err := options.read(command.Context())
			if err != nil {
				return untold(command, err)
			}
			shown, err := policy.Show(snapshot, args[0], options.in())
			if err != nil {
				return untold(command, err)
			}
			if options.output.structured() {
				return options.output.print(command.OutOrStdout(), shown)
			}
			doubts(command, problems)
			return shown.Text(command.OutOrStdout())
		},
	}
	options.flags(command, inText, inJSON, inYAML)
	command.ValidArgsFunction = onlyFirst(completePods(&options.kube, &options.namespace))
	return command
}
