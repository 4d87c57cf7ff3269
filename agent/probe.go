package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/probe"
)

// prober answers the probes of other nodes, probes some of them all the time,
// and any that fairlead check asks for.
type prober struct {
	off           bool // Config.Probes says so
	node, version string
	feed          *model.Feed
	loop          *loop
	surveyor      Surveyor // nil: there is none
	endpoint      *endpoint
	socket        string // for fairlead probe
	rounds        *rounds
	log           *slog.Logger

	admitted admitted
}

// probeSocket is the name of the socket that fairlead probe uses, in
// Config.RunDir.
const probeSocket = "probe.sock"

// newProber also registers what it measures.
func newProber(c *Config, feed *model.Feed, loop *loop, attacher *attacher, notices *notices, metrics *metrics) *prober {
	p := &prober{
		off: !c.Probes, node: c.Node, version: c.Version, feed: feed, loop: loop, surveyor: c.Surveyor, log: c.Log,
		socket:   filepath.Join(c.RunDir, probeSocket),
		endpoint: &endpoint{node: c.Node, feed: feed, attacher: attacher, log: c.Log},
	}
	p.rounds = &rounds{node: c.Node, feed: feed, tasks: p.tasks, way: p.way, legacy: p.legacy, notices: notices}
	metrics.registry.MustRegister(p.rounds)
	return p
}

// Run goes on until the context ends. Nothing of the network depends on it.
func (p *prober) Run(ctx context.Context) error {
	if p.off {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{p.endpoint.Run, p.answer, p.serve, p.rounds.Run} {
		group.Go(func() error { return part(ctx) })
	}
	return group.Wait()
}

// listening is where probes are answered.
type listening struct {
	address netip.Addr
	netns   *os.File // nil: the node's
}

// answer answers on the addresses of the node and of its endpoint, as they come
// and go.
func (p *prober) answer(ctx context.Context) error {
	echo := &probe.Echo{Admit: p.admits, Endpoint: func() bool {
		now, _ := p.endpoint.current.get()
		return now != nil && now.netns != nil
	}}
	var serving sync.WaitGroup
	defer serving.Wait()
	running := map[listening]context.CancelFunc{}
	for {
		snapshot, changed := p.feed.Latest()
		now, connected := p.endpoint.current.get()
		wanted := map[listening]bool{}
		if node, ok := snapshot.Nodes.Get(p.node); ok {
			for _, addr := range node.Addresses {
				wanted[listening{address: addr}] = true
			}
		}
		if now != nil && now.netns != nil {
			for _, addr := range now.addresses {
				wanted[listening{addr, now.netns}] = true
			}
		}
		for at, stop := range running {
			if !wanted[at] {
				stop()
				delete(running, at)
			}
		}
		for at := range wanted {
			if running[at] == nil {
				serve, stop := context.WithCancel(ctx)
				running[at] = stop
				serving.Go(func() { p.answerAt(serve, echo, at) })
			}
		}
		select {
		case <-ctx.Done():
			for _, stop := range running {
				stop()
			}
			return nil
		case <-changed:
		case <-connected:
		}
	}
}

func (p *prober) answerAt(ctx context.Context, echo *probe.Echo, at listening) {
	again := backoff{first: time.Second, most: time.Minute}
	for {
		err := echo.Serve(ctx, at.address, place(at.netns), again.reset)
		if ctx.Err() != nil {
			return
		}
		p.log.Warn("probes are not answered, trying again", "address", at.address, "error", err)
		if !pause(ctx, again.next()) {
			return
		}
	}
}

// place is where sockets are opened: in a namespace, or the node's if it is nil.
func place(netns *os.File) func(func() error) error {
	if netns == nil {
		return nil
	}
	return func(open func() error) error { return inside(netns, open) }
}

// admitted are the addresses of nodes and pods.
type admitted struct {
	mu       sync.Mutex
	nodes    model.Map[string, *model.Node] // that the rest was made from
	prefixes map[netip.Prefix]bool
	lengths  map[int]bool // of prefixes
}

// admits tells whether an address is of this cluster: others get no answer.
func (p *prober) admits(from netip.Addr) bool {
	a := &p.admitted
	snapshot, _ := p.feed.Latest()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nodes != snapshot.Nodes || a.prefixes == nil {
		a.nodes, a.prefixes, a.lengths = snapshot.Nodes, map[netip.Prefix]bool{}, map[int]bool{}
		for _, node := range snapshot.Nodes.All() {
			for _, prefix := range node.PodCIDRs {
				a.prefixes[prefix], a.lengths[prefix.Bits()] = true, true
			}
			for _, addr := range node.Addresses {
				a.prefixes[model.HostPrefix(addr)], a.lengths[addr.BitLen()] = true, true
			}
		}
	}
	for length := range a.lengths {
		if prefix, err := from.Prefix(length); err == nil && a.prefixes[prefix] {
			return true
		}
	}
	return false
}

// serve lets fairlead probe ask, and nobody but root of this node.
func (p *prober) serve(ctx context.Context) error {
	again := backoff{first: time.Second, most: time.Minute}
	for {
		err := p.serveOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		p.log.Warn("fairlead check cannot ask this node, trying again", "error", err)
		if !pause(ctx, again.next()) {
			return nil
		}
	}
}

func (p *prober) serveOnce(ctx context.Context) error {
	if err := os.Remove(p.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", p.socket)
	if err != nil {
		return fmt.Errorf("listen for fairlead probe: %w", err)
	}
	if err := os.Chmod(p.socket, 0o600); err != nil {
		return errors.Join(err, listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /probe", func(w http.ResponseWriter, request *http.Request) {
		report := p.report(request.Context(), request.URL.Query()["peer"])
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(report) // who asked sees it
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	return fmt.Errorf("serve fairlead probe: %w", server.Serve(listener))
}

// report probes these nodes, of which this one may be one.
func (p *prober) report(ctx context.Context, peers []string) probe.Report {
	report := probe.Report{Node: p.node, Version: p.version, Ways: map[string]probe.Way{}}
	snapshot, _ := p.feed.Latest()
	var tasks []probe.Task
	for _, name := range peers {
		peer, ok := snapshot.Nodes.Get(name)
		if !ok {
			report.Unknown = append(report.Unknown, name)
			continue
		}
		if name != p.node {
			report.Ways[name] = p.way(name)
		}
		tasks = append(tasks, p.tasks(snapshot, peer)...)
	}
	if now, _ := p.endpoint.current.get(); now == nil {
		report.NoEndpoint = "the agent is starting: " + p.endpoint.attacher.why()
	} else {
		report.Endpoint, report.NoEndpoint = now.addresses, now.missing
	}
	report.Results = probe.All(ctx, tasks)
	report.Legacy = p.legacy()
	if p.surveyor != nil {
		var err error
		if report.Firewalls, err = p.surveyor.Droppers(); err != nil {
			p.log.Warn("firewalls of others on this node are not known", "error", err)
		}
	}
	return report
}

// legacy are commands that list what iptables-legacy has on this node.
func (p *prober) legacy() []string {
	if p.surveyor == nil {
		return nil
	}
	commands, err := p.surveyor.Legacy()
	if err != nil {
		p.log.Warn("whether iptables-legacy has tables on this node is not known", "error", err)
	}
	return commands
}
