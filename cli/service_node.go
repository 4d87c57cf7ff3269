package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/hop"
	"github.com/fairlead-net/fairlead/observe/service"
	"github.com/fairlead-net/fairlead/plan"
)

// servingCommand is how service show asks a node: it runs in the agent's
// container.
func servingCommand() *cobra.Command {
	var node, agent string
	command := &cobra.Command{
		Use:    "serving NAMESPACE/NAME",
		Hidden: true,
		Short:  "Say what this node makes of a Service (service show asks it)",
		Long: `Say as JSON what the plan and the kernel of this node make of a Service, and how
many connections are open. It reads, and changes nothing.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			namespace, name, ok := strings.Cut(args[0], "/")
			if !ok {
				return errors.New("the Service is to be named as NAMESPACE/NAME")
			}
			report, err := serveReport(command.Context(), node, agent, model.ServiceKey{Namespace: namespace, Name: name})
			if err != nil {
				return err
			}
			return printJSON(command.OutOrStdout(), report)
		},
	}
	flags := command.Flags()
	flags.StringVar(&node, "node-name", os.Getenv("NODE_NAME"), "name of this node's Node object")
	flags.StringVar(&agent, "agent", "127.0.0.1:9811", "the agent's --health-address")
	return command
}

func serveReport(ctx context.Context, node, agent string, key model.ServiceKey) (*service.Report, error) {
	snapshot, err := askSnapshot(ctx, agent, key.String())
	if err != nil {
		return nil, err
	}
	computed := plan.Compute(nil, snapshot, node)
	report := service.Of(computed.Service, snapshot, node, key)
	if report == nil {
		return nil, fmt.Errorf("the agent of %s knows no Service %s", node, key)
	}
	if err := hop.Serve(computed.Service, report); err != nil {
		return nil, fmt.Errorf("read the kernel: %w", err)
	}
	return report, nil
}

// askServing asks the agent of a node.
func askServing(ctx context.Context, client *kube.Client, agent string, key model.ServiceKey) (*service.Report, error) {
	said, err := client.ExecAgent(ctx, agent, nil, agentProgram, "serving", key.String())
	if err != nil {
		return nil, fmt.Errorf("its agent does not answer: %w", err)
	}
	report := &service.Report{}
	if err := json.Unmarshal(said, report); err != nil {
		return nil, fmt.Errorf("its agent's answer is not understood, which may be of another version: %w", err)
	}
	return report, nil
}
