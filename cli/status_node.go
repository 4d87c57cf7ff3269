package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/agent"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// nodeStatusOutput is what status NODE -o json prints. It only grows.
type nodeStatusOutput struct {
	State     string           `json:"state"`           // healthy, unhealthy or unknown
	Error     string           `json:"error,omitempty"` // why it is unknown
	Next      string           `json:"next,omitempty"`  // what to do then
	Node      *nodeOutput      `json:"node,omitempty"`
	Agentless *agentlessOutput `json:"withoutAgent,omitempty"` // if it is not to have an agent
	Gateways  *gatewaysOutput  `json:"gateways,omitempty"`     // of the node, if it has any
	Problems  []problemOutput  `json:"problems,omitempty"`
	Details   *agent.Details   `json:"details,omitempty"` // as its agent says now
	Silence   string           `json:"silence,omitempty"` // why there are no details
}

// agentProgram is where the image has this program.
const agentProgram = "/fairlead"

// detailsTime is how long an agent has to answer.
const detailsTime = 10 * time.Second

func nodeStatus(command *cobra.Command, options kube.Options, output *format, name string) error {
	status, now := nodeStatusOutput{State: "unknown"}, time.Now()
	client, err := kube.Connect(options)
	var found *kube.Overview
	var gateways *gatewaysFound
	if err == nil {
		found, err = client.Overview(command.Context())
	}
	if err == nil {
		now = found.Time
	}
	if err == nil {
		gateways, err = findGateways(command.Context(), client, name)
	}
	if err == nil {
		status, err = judgeOne(found, gateways, name, now)
	}
	if err != nil {
		status.Error, status.Next = err.Error(), nextOf(err, "kubectl get nodes")
	} else {
		status.Details, err = nodeDetails(command.Context(), client, found, name)
		if err != nil {
			status.Silence = err.Error()
		}
	}
	if output.structured() {
		err = output.print(command.OutOrStdout(), status)
	} else {
		err = printNodeStatus(command.OutOrStdout(), status, output.name == inWide, now)
	}
	if err != nil {
		return err
	}
	return exitOf(status.State)
}

// judgeOne decides on the health of one node.
func judgeOne(overview *kube.Overview, gateways *gatewaysFound, name string, now time.Time) (nodeStatusOutput, error) {
	snapshot := &model.Snapshot{}
	at := -1
	var names []string
	for i := range overview.Nodes {
		node := overview.Nodes[i].Node
		snapshot.Nodes = snapshot.Nodes.With(node.Name, node)
		names = append(names, node.Name)
		if node.Name == name {
			at = i
		}
	}
	if at < 0 {
		const most = 10
		if len(names) > most {
			names = append(names[:most], "…")
		}
		return nodeStatusOutput{State: "unknown"}, fmt.Errorf("there is no node %s; there are %s", name, strings.Join(names, ", "))
	}
	line, problems := judgeNode(&overview.Nodes[at], now)
	passing, more := judgeGateways(gateways)
	problems = append(problems, more...)
	for _, problem := range plan.Cluster(snapshot) {
		if problem.Kind == "Node" && problem.Name == name {
			problems = append(problems, problem)
		}
	}
	slices.SortFunc(problems, model.Problem.Compare)
	problems = slices.Compact(problems)
	return nodeStatusOutput{
		State: stateOf(problems), Node: &line, Agentless: agentlessNode(overview.Nodes[at].Node),
		Gateways: passing, Problems: problemOutputs(problems),
	}, nil
}

// nodeDetails asks the agent of a node, through the API server and the kubelet.
func nodeDetails(ctx context.Context, client *kube.Client, overview *kube.Overview, name string) (*agent.Details, error) {
	at := slices.IndexFunc(overview.Nodes, func(n kube.NodeOverview) bool { return n.Node.Name == name })
	if overview.Nodes[at].Agent == nil {
		return nil, errors.New("the node has no agent pod")
	}
	ctx, cancel := context.WithTimeout(ctx, detailsTime)
	defer cancel()
	text, err := client.ExecAgent(ctx, overview.Nodes[at].Agent.Name, nil, agentProgram, "dump", "status")
	if err != nil {
		return nil, fmt.Errorf("its agent does not answer: %w", err)
	}
	details := &agent.Details{}
	if err := json.Unmarshal(text, details); err != nil {
		return nil, fmt.Errorf("its agent's answer is not understood, which may be of another version: %w", err)
	}
	return details, nil
}

func printNodeStatus(to io.Writer, status nodeStatusOutput, wide bool, now time.Time) error {
	colours := paletteOf(to)
	if status.Error != "" {
		_, err := fmt.Fprintf(to, "%s: %s\n  next: %s\n", colours.doubt("unknown"), status.Error, status.Next)
		return err
	}
	node := status.Node
	switch {
	case status.State == "healthy" && status.Agentless != nil:
		fmt.Fprintf(to, "%s: node %s has no agent, %s\n", colours.good("healthy"), node.Name, status.Agentless.why())
	case status.State == "healthy":
		fmt.Fprintf(to, "%s: the network of node %s is ready\n", colours.good("healthy"), node.Name)
	default:
		fmt.Fprintf(to, "%s: %s of node %s\n", colours.bad("unhealthy"), count(len(status.Problems), "problem"), node.Name)
	}
	printProblems(to, colours, status.Problems)
	fmt.Fprintln(to)
	facts := &table{}
	fact := func(name, text string) { facts.add("  "+name, text) }
	fact("agent", fmt.Sprintf("%s, version %s, last seen %s", orNone(node.Agent), orNone(node.Version), ago(node.LastSeen, now)))
	fact("kubelet", node.Kubelet)
	fact("addresses", orNone(commas(node.Addresses)))
	fact("pod ranges", orNone(commas(node.PodCIDRs)))
	fact("uplink", fmt.Sprintf("%s, MTU %d", orNone(node.Uplink), node.MTU))
	fact("pods", strconv.Itoa(node.Pods))
	if g := status.Gateways; g != nil {
		if g.Silence != "" {
			fact("gateway", colours.doubt("not known: "+g.Silence))
		}
		for _, one := range g.Pods {
			fact("gateway", fmt.Sprintf("%s, %s, its routes are %s", one.Pod, one.State, one.Routes))
		}
	}
	if status.Details == nil {
		fact("peers", fmt.Sprintf("%d direct, %d tunnelled", node.Direct, node.Tunnelled))
		fact("more", colours.doubt("not known: "+status.Silence))
		return facts.write(to)
	}
	factsOf(status.Details, colours, now, fact)
	if err := facts.write(to); err != nil {
		return err
	}
	return printDetails(to, status.Details, wide)
}

// factsOf gives what is said in a line each.
func factsOf(d *agent.Details, colours palette, now time.Time, fact func(name, text string)) {
	fact("running", fmt.Sprintf("for %s", now.Sub(d.Began).Truncate(time.Second)))
	var checks []string
	for _, check := range d.Checks {
		if check.Done {
			checks = append(checks, check.Name+" "+colours.good("ok"))
		} else {
			checks = append(checks, check.Name+" "+colours.bad("waits: "+check.Why))
		}
	}
	fact("checks", strings.Join(checks, ", "))
	fact("kernel", fmt.Sprintf("has revision %d of %d; %s of the plan refused", d.Snapshot.Applied, d.Snapshot.Revision, count(d.Snapshot.Refused, "part")))
	for _, a := range d.Addresses {
		text := fmt.Sprintf("%d of %d in use", a.InUse, a.Capacity)
		if a.Capacity >= 1<<53 {
			text = fmt.Sprintf("%d in use, of more than anyone could", a.InUse)
		}
		if a.Cooling > 0 {
			text += fmt.Sprintf(", %d freed not long ago", a.Cooling)
		}
		fact(a.Family, text)
	}
	if c := d.Conntrack; c != nil {
		fact("conntrack", fmt.Sprintf("%d of %d connections", c.Used, c.Limit))
	}
	if remark, ok := strings.CutPrefix(d.Message, agent.AsPlanned+"; "); d.Ready && ok {
		fact("remark", remark)
	}
}

// mostPeers are shown if the user does not ask for more.
const mostPeers = 20

func printDetails(to io.Writer, d *agent.Details, wide bool) error {
	links := &table{}
	links.add("LINK", "MTU", "ROLE", "ADDRESSES")
	for _, l := range d.Links {
		role := "other"
		if l.Name == d.Uplink {
			role = "uplink"
		}
		links.add(l.Name, strconv.Itoa(l.MTU), role, commas(l.Addresses))
	}
	for _, l := range d.Tunnels {
		links.add(l.Name, strconv.Itoa(l.MTU), "tunnel", commas(l.Addresses))
	}
	peers := &table{}
	peers.add("PEER", "WAY", "ADDRESSES", "WHY")
	for i, p := range d.Peers {
		if i == mostPeers && !wide {
			break
		}
		peers.add(p.Node, p.Way, commas(p.Addresses), p.Why)
	}
	all := []*table{links, peers}
	if wide {
		pods := &table{}
		pods.add("POD", "LINK", "ADDRESSES")
		for _, p := range d.Pods {
			pods.add(strings.Trim(p.Namespace+"/"+p.Name, "/"), p.Device, commas(p.Addresses))
		}
		all = append(all, pods)
	}
	for _, t := range all {
		if len(t.rows) < 2 {
			continue
		}
		if _, err := fmt.Fprintln(to); err != nil {
			return err
		}
		if err := t.write(to); err != nil {
			return err
		}
	}
	if more := len(d.Peers) - mostPeers; more > 0 && !wide {
		_, err := fmt.Fprintf(to, "… and %d more peers: -o wide\n", more)
		return err
	}
	return nil
}
