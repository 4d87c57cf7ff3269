package cli

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// planOutput is what plan -o json prints. It only grows.
type planOutput struct {
	Node     string          `json:"node"`
	Plan     []string        `json:"plan"` // lines in the words of sysctl, ip, bridge and nft, sorted by kind
	Problems []problemOutput `json:"problems"`
}

type problemOutput struct {
	Object  string `json:"object"` // kind/name or kind/namespace/name
	Field   string `json:"field,omitempty"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

func planCommand() *cobra.Command {
	var file, node string
	var output format
	command := &cobra.Command{
		Use:   "plan --snapshot FILE --node NODE",
		Short: "Print what a node should look like, from a snapshot of the cluster",
		Long: `Print what a node should look like, from a snapshot of the cluster: the same
computation that the agent makes, without touching anything.

On a node, its agent gives the snapshot that it plans from:

  curl -s http://127.0.0.1:9811/debug/snapshot > snapshot.yaml

A snapshot is a YAML file of Nodes, Pods, Namespaces, Services, EndpointSlices,
ServiceCIDRs, NetworkPolicies, ClusterNetworkPolicies and the Network as kubectl
prints them, and of a NodeState for what the node knows of itself. What is left
out is planned as if there were none:

  kubectl get nodes,pods,namespaces,services,endpointslices,servicecidrs,networkpolicies,networks.fairlead.io \
    -A -o yaml > snapshot.yaml
  cat >> snapshot.yaml <<END
  ---
  apiVersion: fairlead.io/v1alpha1
  kind: NodeState
  links:
  - {name: eth0, mtu: 1500, addresses: [192.0.2.1/24]}
  END`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return printPlan(command.OutOrStdout(), file, node, output)
		},
	}
	flags := command.Flags()
	flags.StringVar(&file, "snapshot", "", "file of the snapshot; - reads standard input")
	flags.StringVar(&node, "node", "", "name of the node")
	formatFlag(command, &output, inText, inJSON, inYAML)
	for _, required := range []string{"snapshot", "node"} {
		if err := command.MarkFlagRequired(required); err != nil {
			panic(err) // the flag is defined above
		}
	}
	return command
}

func printPlan(to io.Writer, file, name string, output format) error {
	snapshot, err := readSnapshot(file)
	if err != nil {
		return err
	}
	node := plan.Compute(nil, snapshot, name)
	if !output.structured() {
		_, err := io.WriteString(to, plan.Text(node))
		return err
	}
	problems := node.Problems
	node.Problems = nil // Text has them as lines
	text := strings.TrimSuffix(plan.Text(node), "\n")
	return output.print(to, planOutput{Node: name, Plan: strings.Split(text, "\n"), Problems: problemOutputs(problems)})
}

func problemOutputs(problems []model.Problem) []problemOutput {
	outputs := make([]problemOutput, 0, len(problems))
	for _, p := range problems {
		outputs = append(outputs, problemOutput{p.Object(), p.Field, p.Reason, p.Message, p.Remedy})
	}
	return outputs
}
