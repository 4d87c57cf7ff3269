package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// agentlessOutput is a node that has no agent because it is not to have one.
type agentlessOutput struct {
	Name    string `json:"name"`
	Label   string `json:"label"`             // that keeps agents away, such as fairlead.io/agent=none
	Flannel string `json:"flannel,omitempty"` // its backend, if flannel serves the node
}

// agentlessNode is nil for a node that is to have an agent.
func agentlessNode(node *model.Node) *agentlessOutput {
	label := node.WithoutAgent()
	if label == "" {
		return nil
	}
	return &agentlessOutput{node.Name, label, node.Flannel}
}

func agentlessNodes(nodes []kube.NodeOverview) (all []agentlessOutput) {
	for i := range nodes {
		if node := agentlessNode(nodes[i].Node); node != nil {
			all = append(all, *node)
		}
	}
	return all
}

// why is such as "as its label fairlead.io/agent=none says".
func (a *agentlessOutput) why() string { return a.whyOf("its") }

func (a *agentlessOutput) whyOf(whose string) string {
	text := fmt.Sprintf("as %s label %s says", whose, a.Label)
	if a.Flannel != "" {
		text += "; flannel serves " + map[string]string{"its": "it", "their": "them"}[whose]
	}
	return text
}

// mostAgentless are named of those that have no agent for the same reason.
const mostAgentless = 10

// printAgentless has a line for each reason that nodes have no agent for.
func printAgentless(to io.Writer, nodes []agentlessOutput) {
	var reasons []agentlessOutput // without names
	names := map[agentlessOutput][]string{}
	for _, node := range nodes {
		reason := node
		reason.Name = ""
		if names[reason] == nil {
			reasons = append(reasons, reason)
		}
		names[reason] = append(names[reason], node.Name)
	}
	for _, reason := range reasons {
		of := names[reason]
		have, whose := "nodes have", "their"
		if len(of) == 1 {
			have, whose = "node has", "its"
		}
		text := strings.Join(of[:min(len(of), mostAgentless)], ", ")
		if more := len(of) - mostAgentless; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		fmt.Fprintf(to, "%d %s no agent, %s: %s\n", len(of), have, reason.whyOf(whose), text)
	}
}
