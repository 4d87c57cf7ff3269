package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
)

// Config is what an agent is made of. All fields are needed unless it says
// otherwise. It works on the network namespace of the process.
type Config struct {
	Node       string // name of this node's Node object
	Version    string // of this build, for the status
	Source     Source
	Publisher  Publisher
	Pods       PodReader             // of pods that the source does not know yet; nil: it is waited for
	Servers    []Server              // that run beside; may be none
	Dataplanes []dataplane.Dataplane // in the order in which they are applied; pods wait for all
	Surveyor   Surveyor              // of the firewalls of others; nil: those are not looked at
	// Former is told what a sysctl of connection tracking was before it is
	// changed; nil: those are left alone.
	Former func(path, was, set string)

	RunDir        string // for the socket of the CNI plugin, on a tmpfs; made if missing
	StateDir      string // for what the agent must not forget; made if missing
	Plugin        string // the CNI plugin to install; empty: it is installed already
	CNIBinDir     string // to which
	CNIConfDir    string // where the container runtime looks for configurations
	HealthAddress string // host:port; empty: no health checks
	Probes        bool   // answer probes of other nodes, and probe some
	Log           *slog.Logger

	MetricsAddress string // host:port that serves the metrics alone; empty: they are at HealthAddress only

	Cluster string // name of the cluster in DropLog; may be empty
	DropLog string // file of what policies deny; empty: none

	// Where kube-proxy has its health and its metrics, host:port; empty: nowhere.
	ServiceHealthAddress, ServiceMetricsAddress string
}

// Server is a part that serves until its context ends.
type Server interface {
	Run(ctx context.Context) error
}

// Source tells the feed what the cluster is; kube.Source is one.
type Source interface {
	Run(ctx context.Context, feed *model.Feed) error
	Synced() <-chan struct{} // closed once a plan can be made: all nodes, all pods and the Network are known
	// PoliciesRead is closed once policies, and what they choose by, have come too,
	// just before the feed is told that they are known.
	PoliciesRead() <-chan struct{}
	FollowNames() // what only names are made of is wanted as well, from now on
	troubled      // of objects that were not understood
}

// Publisher tells the cluster what this node is; kube.Client is one.
type Publisher interface {
	PublishNode(ctx context.Context, status kube.NodeStatus) error
	WriteEvent(ctx context.Context, event kube.Event) error
}

// PodReader reads one pod from the API server; kube.Client is one, and
// kube.IsNotFound tells if there is none.
type PodReader interface {
	Pod(ctx context.Context, key model.PodKey) (*model.Pod, error)
}

// socketName is that of the CNI plugin's socket, in Config.RunDir.
const socketName = "cni.sock"

// Run is the agent, until the context ends or a part of it fails for good. All
// that it has programmed stays.
func Run(ctx context.Context, c Config) error {
	socket := filepath.Join(c.RunDir, socketName)
	if err := c.prepare(socket); err != nil {
		return err
	}
	metrics := newMetrics()
	c.Log = metrics.logged(c.Log)
	node, err := nodeNetns()
	if err != nil {
		return err
	}
	feed, notices := &model.Feed{}, &notices{}
	transition := &transition{feed: feed, path: filepath.Join(c.StateDir, "routing.json"), log: c.Log}
	transition.recall()
	links := newLinks(feed, c.Log)
	memory := newMemory(&c, feed, notices) // is the source from now on
	names := newNameServers(&c, feed, notices)
	loop := names.domains.begin(newLoop(&c, feed, c.Source.Synced(), links.known, names.asked))
	loop.metrics = metrics
	foreign := &foreign{node: c.Node, feed: feed, synced: c.Source.Synced(), known: links.known, notices: notices, reserved: make(chan struct{})}
	attacher := newAttacher(&c, feed, loop, foreign.reserved, notices)
	foreign.attacher, attacher.need, attacher.answered, memory.attacher, memory.began = attacher, memory.need, memory.distrust, attacher, loop.began
	if err := attacher.takeOver(time.Now()); err != nil {
		return err
	}
	server := &server{path: socket, listening: make(chan struct{}), log: c.Log}
	checks := newChecks(c.Source, links, attacher, loop, server)
	server.answer = (&verbs{attacher: attacher, node: node, starting: memory.starting(checks), metrics: metrics, log: c.Log}).Answer

	state := &state{
		node: c.Node, version: c.Version, began: time.Now(), feed: feed, loop: loop, source: c.Source,
		notices: notices, attacher: attacher, checks: checks, metrics: metrics, traffic: newTraffic(), drops: newDrops(&c, loop),
	}
	metrics.registry.MustRegister(state.collectors()...)
	return c.together(ctx, feed, []Server{
		links, loop, attacher, foreign, server, transition, &mender{feed: feed, attacher: attacher, log: c.Log},
		&firewalls{feed: feed, surveyor: c.Surveyor, log: c.Log},
		&install{
			node: c.Node, plugin: c.Plugin, binDir: c.CNIBinDir, conDir: c.CNIConfDir,
			socket: socket, copy: filepath.Join(c.StateDir, conflist),
			feed: feed, checks: checks, notices: notices, log: c.Log,
		},
		&status{
			node: c.Node, version: c.Version, feed: feed, loop: loop,
			source: c.Source, notices: notices, publisher: c.Publisher, checks: checks, metrics: metrics, log: c.Log,
		},
		&rest{began: loop.began, turned: loop.turned, log: c.Log},
		&tracking{root: "/proc/sys", began: loop.began, former: c.Former, log: c.Log},
		&troubles{source: c.Source, log: c.Log}, &troubles{source: notices, log: c.Log},
		(&health{address: c.HealthAddress, metricsAddress: c.MetricsAddress, state: state, log: c.Log}).server(),
		newProber(&c, feed, loop, attacher, notices, metrics),
		newServiceHealth(&c, state), names, state.drops,
	})
}

// newChecks are the steps of the agent's start, in their order.
func newChecks(source Source, links *links, attacher *attacher, loop *loop, server *server) checks {
	return checks{
		{"apiserver", source.Synced(), func() string { return unread(source) }},
		{"links", links.known, func() string { return "the interfaces of the node have not been read yet" }},
		{"addresses", attacher.able, attacher.why},
		{"kernel", loop.began, func() string { return "the plan has not been applied yet" }},
		{"cni", server.listening, func() string { return "the socket of the CNI plugin is not open yet" }},
	}
}

// together runs the source, the servers and the parts until all have ended, which
// they do with the first part that fails.
func (c *Config) together(ctx context.Context, feed *model.Feed, parts []Server) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.Source.Run(ctx, feed) })
	for _, server := range c.Servers {
		group.Go(func() error { return c.serve(ctx, server) })
	}
	for _, part := range parts {
		group.Go(func() error { return part.Run(ctx) })
	}
	return group.Wait()
}

// serve runs a part again that has ended, ever more slowly: the rest goes on
// meanwhile.
func (c *Config) serve(ctx context.Context, part Server) error {
	again := backoff{first: 100 * time.Millisecond, most: 10 * time.Second}
	for {
		began := time.Now()
		err := part.Run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > time.Minute {
			again.reset()
		}
		c.Log.Error("a part of the agent ended, running it again", "error", err)
		if !pause(ctx, again.next()) {
			return nil
		}
	}
}

// prepare makes the directories.
func (c *Config) prepare(socket string) error {
	if c.Node == "" {
		return fmt.Errorf("the name of the node is missing (--node-name or NODE_NAME)")
	}
	for _, dir := range []string{c.RunDir, c.StateDir, c.CNIBinDir, c.CNIConfDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("prepare the node: %w", err)
		}
	}
	if err := os.MkdirAll(cni.SpoolDir(socket), 0o700); err != nil {
		return fmt.Errorf("prepare the node: %w", err)
	}
	return nil
}
