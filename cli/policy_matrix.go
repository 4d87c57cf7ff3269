package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/observe/policy"
)

func policyMatrixCommand() *cobra.Command {
	var options policyOptions
	var port string
	var all bool
	command := &cobra.Command{
		Use:   "matrix",
		Short: "Show who reaches whom, and at which ports",
		Long: `Show who reaches whom and at which ports, as NetworkPolicies and
ClusterNetworkPolicies have it: from, to and within a namespace. What is not listed
is denied. Pods of a Deployment, a StatefulSet and so on are one line; addresses that
are no pod's are told apart as policies do, and the rest are "others".

Exit codes: 0 it is shown, 2 it cannot be.`,
		Example: `  fairlead policy matrix -n shop
  fairlead policy matrix -A --port 5432/tcp
  fairlead policy matrix -A -o json | jq '.reach[] | select(.to == "shop/db")'`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			query := policy.MatrixQuery{Namespace: options.in()}
			if all {
				query.Namespace = ""
			}
			if port != "" {
				asked, err := policy.ParsePort(port)
				if err != nil {
					return untold(command, err)
				}
				query.Port = &asked
			}
			snapshot, problems, err := options.read(command.Context())
			if err != nil {
				return untold(command, err)
			}
			matrix, err := policy.MatrixOf(snapshot, query)
			if err != nil {
				return untold(command, err)
			}
			if options.output.structured() {
				return options.output.print(command.OutOrStdout(), matrix)
			}
			doubts(command, problems)
			return printMatrix(command.OutOrStdout(), matrix)
		},
	}
	flags := command.Flags()
	flags.StringVar(&port, "port", "", "only this one, such as 80/tcp or icmp")
	flags.BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces")
	options.flags(command, inText, inJSON, inYAML)
	return command
}

func printMatrix(to io.Writer, matrix *policy.Matrix) error {
	t := &table{}
	t.add("FROM", "TO", "PORTS")
	for _, row := range matrix.Rows() {
		t.add(row[:]...)
	}
	if err := t.write(to); err != nil {
		return err
	}
	for _, note := range append([]string{"what is not listed is denied"}, matrix.Notes...) {
		if _, err := fmt.Fprintf(to, "\nnote: %s", note); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(to)
	return err
}
