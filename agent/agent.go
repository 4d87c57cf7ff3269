package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

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
	Dataplanes []dataplane.Dataplane // in the order in which they are applied; pods wait for the first, which routes

	RunDir        string // for the socket of the CNI plugin; made if missing
	Plugin        string // the CNI plugin to install; empty: it is installed already
	CNIBinDir     string // to which
	CNIConfDir    string // where the container runtime looks for configurations
	HealthAddress string // host:port; empty: no health checks
	Log           *slog.Logger
}

// Source tells the feed what the cluster is; kube.Source is one.
type Source interface {
	Run(ctx context.Context, feed *model.Feed) error
	Synced() <-chan struct{}   // closed once a plan can be made
	Problems() []model.Problem // of objects that were not understood
	Changed() <-chan struct{}  // closed when Problems has changed
}

// Publisher tells the cluster what this node is; kube.Client is one.
type Publisher interface {
	PublishNode(ctx context.Context, status kube.NodeStatus) error
}

// socketName is that of the CNI plugin's socket, in Config.RunDir.
const socketName = "cni.sock"

// Run is the agent, until the context ends or a part of it fails for good. All
// that it has programmed stays.
func Run(ctx context.Context, c Config) error {
	if c.Node == "" {
		return fmt.Errorf("the name of the node is missing (--node-name or NODE_NAME)")
	}
	for _, dir := range []string{c.RunDir, c.CNIBinDir, c.CNIConfDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("prepare the node: %w", err)
		}
	}
	node, err := nodeNetns()
	if err != nil {
		return err
	}
	feed := &model.Feed{}
	links := newLinks(feed, c.Log)
	loop := newLoop(&c, feed, c.Source.Synced(), links.known)
	attacher := &attacher{node: c.Node, feed: feed, loop: loop, able: make(chan struct{}), log: c.Log}
	if err := attacher.takeOver(); err != nil {
		return err
	}
	server := &server{path: filepath.Join(c.RunDir, socketName), listening: make(chan struct{}), log: c.Log}
	checks := checks{
		{"apiserver", c.Source.Synced(), func() string { return unread(c.Source) }},
		{"links", links.known, func() string { return "the interfaces of the node have not been read yet" }},
		{"addresses", attacher.able, attacher.why},
		{"kernel", loop.began, func() string { return "the plan has not been applied yet" }},
		{"cni", server.listening, func() string { return "the socket of the CNI plugin is not open yet" }},
	}
	server.answer = (&verbs{attacher: attacher, node: node, starting: checks.missing, log: c.Log}).Answer

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.Source.Run(ctx, feed) })
	for _, part := range []interface{ Run(context.Context) error }{
		links, loop, attacher, server,
		&install{
			plugin: c.Plugin, binDir: c.CNIBinDir, conDir: c.CNIConfDir,
			socket: server.path, checks: checks, log: c.Log,
		},
		&status{
			node: c.Node, version: c.Version, feed: feed, loop: loop,
			source: c.Source, publisher: c.Publisher, checks: checks, log: c.Log,
		},
		&troubles{source: c.Source, log: c.Log},
		&health{address: c.HealthAddress, checks: checks, loop: loop, feed: feed, log: c.Log},
	} {
		group.Go(func() error { return part.Run(ctx) })
	}
	return group.Wait()
}
