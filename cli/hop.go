package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/hop"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// hopCommand is how route asks a node: it runs in the agent's container.
func hopCommand() *cobra.Command {
	var node, agent string
	command := &cobra.Command{
		Use:    "hop QUESTION",
		Hidden: true,
		Short:  "Say what becomes of a packet on this node (route asks each node)",
		Long: `Say as JSON what the kernel and the plan of this node make of a packet. The
question is JSON, too: what trace.Question has. It reads, and changes nothing.`,
		Example: `  fairlead hop '{"from": "10.244.0.5", "to": "10.244.1.7", "enter": {"by": "pod"}}'`,
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			var q trace.Question
			if err := json.Unmarshal([]byte(args[0]), &q); err != nil {
				return fmt.Errorf("read the question: %w", err)
			}
			if !q.To.IsValid() || q.Enter.By == "" || q.Enter.By != trace.ByNode && !q.From.IsValid() {
				return errors.New("the question lacks to, enter.by or, of what the node has not made, from")
			}
			answer, err := answerHop(command.Context(), node, agent, q)
			if err != nil {
				return err
			}
			return printJSON(command.OutOrStdout(), answer)
		},
	}
	flags := command.Flags()
	flags.StringVar(&node, "node-name", os.Getenv("NODE_NAME"), "name of this node's Node object")
	flags.StringVar(&agent, "agent", "127.0.0.1:9811", "the agent's --health-address")
	return command
}

func answerHop(ctx context.Context, node, agent string, q trace.Question) (*trace.Answer, error) {
	snapshot, silent := askSnapshot(ctx, agent, netip.AddrPortFrom(q.To, q.Port).String())
	answer, err := hop.Answer(node, snapshot, q)
	if err == nil && silent != nil {
		answer.Silent = silent.Error()
	}
	return answer, err
}

// snapshotTimeout is short: it is only read from memory, on this node.
const snapshotTimeout = 5 * time.Second

// askSnapshot gets what the agent of this node plans from, of Services only
// those that are meant: see Snapshot.OfServices.
func askSnapshot(ctx context.Context, agent, services string) (*model.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+agent+"/debug/snapshot?services="+url.QueryEscape(services), nil)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the agent: %s", response.Status)
	}
	snapshot, err := kube.ReadSnapshot(response.Body)
	if err != nil {
		return nil, fmt.Errorf("what the agent says: %w", err)
	}
	return snapshot, nil
}
