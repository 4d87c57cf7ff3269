package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/plan"
)

func debugCommand() *cobra.Command {
	command := &cobra.Command{Use: "debug", Short: "Collect what is needed to find a fault"}
	command.AddCommand(bundleCommand())
	return command
}

// bundleOptions are the flags of debug bundle.
type bundleOptions struct {
	api   kube.Options
	file  string
	nodes []string // empty: all, those in trouble first
	most  int      // nodes
	lines int64    // of each log
}

func bundleCommand() *cobra.Command {
	var options bundleOptions
	command := &cobra.Command{
		Use:   "bundle [-o FILE]",
		Short: "Write all that helps to find a fault into one file, to send to somebody",
		Long: `Write all that helps to find a fault into one file, a compressed tar of less
than 25 MB: of each node what its agent planned and what its kernel has, metrics
and logs; the Network, what the nodes report, and Events. It needs the right to
run commands in the agents' pods, and works while the pod network does not. Nodes
that do not answer are named.

It never has a secret: no Secret, no environment, no kubeconfig is read, and what
looks like a token or a key in a log is taken out. It does have names and
addresses of nodes and pods.

Exit codes: 0 the file was written, 1 it was not.`,
		Example: `  fairlead debug bundle
  fairlead debug bundle --nodes node1,node7 -o trouble.tar.gz`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			options.api.UserAgent = "fairlead-bundle/" + Version
			return writeBundle(command, &options)
		},
	}
	flags := command.Flags()
	flags.StringVarP(&options.file, "output", "o", "", "file to write (default fairlead-bundle-TIME.tar.gz)")
	flags.StringVar(&options.api.Kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl finds it if empty")
	flags.StringSliceVar(&options.nodes, "nodes", nil, "names of nodes, separated by commas (default: all)")
	flags.IntVar(&options.most, "most", 30, "nodes at most, those in trouble first, if none are named")
	flags.Int64Var(&options.lines, "lines", 5000, "lines of each log at most")
	completeNodeList(command, "nodes", &options.api)
	return command
}

// cluster is what a bundle is collected from; kube.Client is one.
type cluster interface {
	Overview(ctx context.Context) (*kube.Overview, error)
	ExecAgent(ctx context.Context, pod string, input io.Reader, command ...string) ([]byte, error)
	AgentLogs(ctx context.Context, pod string, previous bool, lines int64) ([]byte, error)
	ControllerLogs(ctx context.Context, previous bool, lines int64) (map[string][]byte, error)
	Events(ctx context.Context) ([]string, error)
	ServerVersion(ctx context.Context) (string, error)
	gatewayReader
}

// exitNoBundle is for a file that was not written.
const exitNoBundle exitCode = 1

func writeBundle(command *cobra.Command, options *bundleOptions) error {
	client, err := kube.Connect(options.api)
	var path string
	var silent []string
	if err == nil {
		path, silent, err = makeBundle(command.Context(), client, options, progressTo(command.ErrOrStderr()))
	}
	if err != nil {
		explain(command, err)
		return exitNoBundle
	}
	stat, err := os.Stat(path)
	if err != nil {
		return err
	}
	to := command.OutOrStdout()
	fmt.Fprintf(to, "%s has %s; its README.txt says what is in it.\n", path, bytesText(stat.Size()))
	if len(silent) > 0 {
		fmt.Fprintf(to, "No answer from %s: %s\n  next: kubectl -n kube-system get pods -o wide -l app.kubernetes.io/name=fairlead-agent\n",
			count(len(silent), "node"), strings.Join(silent, ", "))
	}
	return nil
}

// makeBundle returns the name of the file, and the names of the nodes whose agents
// did not answer. A file of that name stays as it is while there is nothing whole to
// put in its place.
func makeBundle(ctx context.Context, from cluster, options *bundleOptions, progress io.Writer) (path string, silent []string, err error) {
	wanted, err := survey(ctx, from, options)
	if err != nil {
		return "", nil, err
	}
	unwritten := func(err error) error {
		return refuse("name a file that can be written, where there is room for 25 MB: -o FILE", "writing the bundle: %w", err)
	}
	began := time.Now().UTC()
	name := "fairlead-bundle-" + began.Format("20060102-150405")
	path = cmp.Or(options.file, name+".tar.gz")
	file, err := draftOf(path)
	if err != nil {
		return "", nil, unwritten(err)
	}
	silent, err = wanted.collect(ctx, from, newArchive(file, name, began, largestBundle), progress)
	switch {
	case ctx.Err() != nil: // what is there looks as if all nodes were silent
		return "", nil, errors.Join(refuse("run it again, perhaps with fewer nodes: --nodes", "stopped before all was collected: %w", ctx.Err()), file.drop())
	case err != nil:
		return "", nil, unwritten(errors.Join(err, file.drop()))
	}
	if err := file.keep(); err != nil {
		return "", nil, unwritten(err)
	}
	return path, silent, nil
}

// bytesText is such as "37 kB" and "4.2 MB".
func bytesText(size int64) string {
	if size < 1e6 {
		return fmt.Sprintf("%d kB", (size+999)/1000)
	}
	return fmt.Sprintf("%.1f MB", float64(size)/1e6)
}

// wanted is what a bundle is to have.
type wanted struct {
	overview *kube.Overview
	gateways *gatewaysFound
	chosen   []*kube.NodeOverview
	options  *bundleOptions
}

func survey(ctx context.Context, from cluster, options *bundleOptions) (*wanted, error) {
	overview, err := from.Overview(ctx)
	if err != nil {
		return nil, err
	}
	chosen, err := choose(overview, options, time.Now())
	if err != nil {
		return nil, err
	}
	w := &wanted{overview: overview, chosen: chosen, options: options}
	if overview.Installed {
		if w.gateways, err = findGateways(ctx, from, ""); err != nil {
			w.gateways = &gatewaysFound{unread: err.Error()} // as the rest may show why
		}
	}
	return w, nil
}

// collect returns the names of the nodes whose agents did not answer. An error is of
// what is written to.
func (w *wanted) collect(ctx context.Context, from cluster, to *archive, progress io.Writer) (silent []string, err error) {
	overview, chosen, options := w.overview, w.chosen, w.options
	if left := len(overview.Nodes) - len(chosen); left > 0 {
		to.note("%s of %d were left out (--nodes, --most)", count(left, "node"), len(overview.Nodes))
	}
	fmt.Fprintln(progress, "reading the cluster")
	addCluster(ctx, from, to, w)
	nodes := fetchNodes(ctx, from, chosen, options)
	for i := range chosen {
		material := <-nodes[i]
		fmt.Fprintf(progress, "node %s (%d of %d)\n", material.node, i+1, len(chosen))
		to.share(len(chosen) - i)
		for _, part := range material.parts {
			to.add("nodes/"+material.node+"/"+part.name, part.text, part.tail)
		}
		for _, failure := range material.failures {
			to.note("node %s: %s", material.node, failure)
		}
		if material.silent {
			silent = append(silent, material.node)
		}
	}
	if len(silent) > 0 {
		to.note("no answer from %s", strings.Join(silent, ", "))
	}
	return silent, to.close()
}

// choose returns the nodes that are wanted, those in trouble first.
func choose(overview *kube.Overview, options *bundleOptions, now time.Time) (chosen []*kube.NodeOverview, err error) {
	var well []*kube.NodeOverview
	for i := range overview.Nodes {
		node := &overview.Nodes[i]
		if len(options.nodes) > 0 && !slices.Contains(options.nodes, node.Node.Name) {
			continue
		}
		if _, problems := judgeNode(node, now); len(problems) > 0 {
			chosen = append(chosen, node)
		} else {
			well = append(well, node)
		}
	}
	chosen = append(chosen, well...)
	for _, name := range options.nodes {
		if !slices.ContainsFunc(chosen, func(n *kube.NodeOverview) bool { return n.Node.Name == name }) {
			return nil, refuse("kubectl get nodes", "there is no node %s", name)
		}
	}
	if len(options.nodes) == 0 && len(chosen) > options.most {
		chosen = chosen[:max(0, options.most)]
	}
	return chosen, nil
}

// addCluster adds what is of no node.
func addCluster(ctx context.Context, from cluster, to *archive, w *wanted) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var text strings.Builder
	status := judge(w.overview, w.gateways, w.overview.Time)
	if err := printStatus(&text, &format{name: inWide}, status, w.overview.Time); err == nil {
		to.add("cluster/status.txt", []byte(text.String()), false)
	}
	text.Reset()
	if err := printJSON(&text, status); err == nil {
		to.add("cluster/status.json", []byte(text.String()), false)
	}
	network, nodes, err := w.overview.ObjectsYAML()
	to.failed(err)
	to.add("cluster/network.yaml", network, false)
	to.add("cluster/nodenetworks.yaml", nodes, false)
	events, err := from.Events(ctx)
	to.failed(err)
	to.add("cluster/events.txt", []byte(strings.Join(events, "\n")+"\n"), true)
	version, err := from.ServerVersion(ctx)
	to.failed(err)
	to.add("cluster/versions.txt", fmt.Appendf(nil, "fairlead debug bundle %s\nKubernetes %s\n", Version, version), false)
	for name, previous := range map[string]bool{"": false, "-previous": true} {
		logs, err := from.ControllerLogs(ctx, previous, w.options.lines)
		if !previous { // there need not be one of before
			to.failed(err)
		}
		for pod, text := range logs {
			to.add("cluster/"+pod+name+".log", text, true)
		}
	}
}

// part is a file of a node.
type part struct {
	name string
	text []byte
	tail bool // of it the end counts most
}

// material is what there is of a node.
type material struct {
	node     string
	parts    []part
	failures []string
	silent   bool // the agent did not answer
}

// atOnce is how many nodes are asked at a time.
const atOnce = 8

// fetchNodes asks the nodes, and gives the answer of each in its channel. They
// have to be taken in order, all of them: what is not taken yet counts among
// those at once, so that not all of it is ever in memory.
func fetchNodes(ctx context.Context, from cluster, nodes []*kube.NodeOverview, options *bundleOptions) []chan material {
	answers, slots := make([]chan material, len(nodes)), make(chan struct{}, atOnce)
	for i := range nodes {
		answers[i] = make(chan material)
	}
	go func() {
		for i, node := range nodes {
			slots <- struct{}{}
			go func() {
				answers[i] <- fetchNode(ctx, from, node, options)
				<-slots
			}()
		}
	}()
	return answers
}

// partTime is how long a node has for each part.
const partTime = 45 * time.Second

func fetchNode(ctx context.Context, from cluster, node *kube.NodeOverview, options *bundleOptions) material {
	m := material{node: node.Node.Name}
	if node.Agent == nil {
		m.silent, m.failures = true, []string{"it has no agent pod"}
		if without := agentlessNode(node.Node); without != nil {
			m.silent = false // there is none to wait for
			m.failures[0] += ", " + without.why()
		}
		return m
	}
	get := func(name string, tail bool, ask func(context.Context) ([]byte, error)) []byte {
		ctx, cancel := context.WithTimeout(ctx, partTime)
		defer cancel()
		text, err := ask(ctx)
		if len(text) > 0 {
			m.parts = append(m.parts, part{name, text, tail})
		}
		if err != nil {
			m.failures = append(m.failures, fmt.Sprintf("%s: %v", name, err))
		}
		return text
	}
	answered := false
	for _, p := range dumpParts {
		name := p.name + map[string]string{"status": ".json", "snapshot": ".yaml", "kernel": ".json"}[p.name]
		if !strings.Contains(name, ".") {
			name += ".txt"
		}
		text := get(name, false, func(ctx context.Context) ([]byte, error) {
			return from.ExecAgent(ctx, node.Agent.Name, nil, agentProgram, "dump", p.name)
		})
		if answered = answered || len(text) > 0; !answered {
			break // the others would not fare better, and each takes its time
		}
		if p.name == "snapshot" {
			get("plan.txt", false, func(context.Context) ([]byte, error) { return planText(text, m.node) })
		}
	}
	m.silent = !answered
	if answered {
		get("dns-clients.json", false, func(ctx context.Context) ([]byte, error) {
			text, err := from.ExecAgent(ctx, node.Agent.Name, nil, agentProgram, "naming", "clients")
			if exit := (*kube.ExitError)(nil); errors.As(err, &exit) && exit.Code == int(exitNoServer) {
				return nil, nil // there need not be a DNS server
			}
			return text, err
		})
	}
	get("agent.log", true, func(ctx context.Context) ([]byte, error) {
		return from.AgentLogs(ctx, node.Agent.Name, false, options.lines)
	})
	failures := len(m.failures)
	get("agent-previous.log", true, func(ctx context.Context) ([]byte, error) {
		return from.AgentLogs(ctx, node.Agent.Name, true, options.lines)
	})
	m.failures = m.failures[:failures] // there need not be one of before
	return m
}

// planText is what the node should look like.
func planText(snapshot []byte, node string) ([]byte, error) {
	if len(snapshot) == 0 {
		return nil, nil
	}
	read, err := kube.ReadSnapshot(strings.NewReader(string(snapshot)))
	if err != nil {
		return nil, err
	}
	return []byte(plan.Text(plan.Compute(nil, read, node))), nil
}
