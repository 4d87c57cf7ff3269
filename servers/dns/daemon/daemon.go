// Package daemon is the DNS server of a node as a process: it hears from the
// agent what the names are made of, plans them, serves them, and keeps them for
// its next start. It is wiring. Run is called once.
package daemon

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/model"
	plandns "github.com/fairlead-net/fairlead/plan/dns"
	"github.com/fairlead-net/fairlead/servers/dns"
	"github.com/fairlead-net/fairlead/servers/dns/feed"
	"github.com/fairlead-net/fairlead/servers/dns/forward"
)

// Config is what a daemon needs.
type Config struct {
	Version  string
	Socket   string           // of the agent
	StateDir string           // what is kept over restarts; empty: nothing
	Listen   []netip.AddrPort // besides those that the agent says
	Clients  []netip.Prefix   // likewise
	// ResolvConf is the node's: who is asked about names that are not of the cluster,
	// unless the Network says so, and the last part of pods' search path; empty:
	// /etc/resolv.conf.
	ResolvConf string
	// Health and metrics: see httpd.Server; empty: not at all.
	HealthAddress, MetricsAddress string
	// Linger is how long it goes on answering when it is told to end: until the next
	// server of an upgrade listens, and other nodes have heard not to ask here. The
	// health address is free at once.
	Linger  time.Duration
	Queries io.Writer // has the log of queries, if the Network wants one; nil: nobody
	Log     *slog.Logger
}

// stateFile is the file in StateDir.
const stateFile = "names.json"

// daemon is one that runs.
type daemon struct {
	Config
	began    time.Time
	server   *dns.Server
	forward  *forward.Forwarder
	receiver *feed.Receiver
	queries  *dns.QueryLog
	boot     string // of the node, now

	served atomic.Pointer[dns.Served] // what the server has
	fresh  chan struct{}              // of one element: there is something to save

	confirmed chan struct{} // closed by confirm: an agent has told all
	confirm   func()

	applying sync.Mutex // one apply at a time
	begun    bool       // an agent has told all, or none has come in time

	mu    sync.Mutex // beside applying, for who only reads
	state feed.State // the last that knows all names
}

// Run serves until the context has ended, and for as long as it lingers then, and
// returns nil.
func Run(ctx context.Context, config Config) error {
	told := ctx
	ctx, end := context.WithCancel(context.WithoutCancel(told))
	defer end()
	defer context.AfterFunc(told, func() { time.AfterFunc(config.Linger, end) })()
	if config.ResolvConf == "" {
		config.ResolvConf = "/etc/resolv.conf"
	}
	debug.SetGCPercent(collectAt)
	d := &daemon{Config: config, began: time.Now(), boot: bootID(), fresh: make(chan struct{}, 1), confirmed: make(chan struct{}), queries: dns.NewQueryLog()}
	d.confirm = sync.OnceFunc(func() { close(d.confirmed) })
	d.served.Store(&dns.Served{})
	var last feed.State
	if config.StateDir != "" {
		var err error
		if last, err = feed.Load(filepath.Join(config.StateDir, stateFile)); err != nil {
			config.Log.Error("the names of the last run are not known", "error", err)
		}
	}
	d.receiver = &feed.Receiver{Path: config.Socket, Program: config.Version, State: last, Apply: d.apply, Log: config.Log}
	d.forward = forward.New(d.outside(last), d.receiver.Tell, config.Log)
	d.server = dns.New(d.forward, d.receiver, config.Log)
	d.apply(last)
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{d.server.Run, d.forward.Run, d.receiver.Run, d.attend, d.save, d.logQueries, func(context.Context) error { return d.watch().Run(told) }} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				config.Log.Error("a part of the DNS server has ended", "error", err)
			}
		})
	}
	running.Wait()
	return nil
}

// outside is who is asked about names that are not of the cluster.
func (d *daemon) outside(state feed.State) forward.Options {
	options := forward.FromModel(optionsOf(state))
	options.ResolvConf, options.Node = d.ResolvConf, state.Serving.Node
	for _, at := range d.listens(state) {
		options.Own = append(options.Own, at.Addr())
	}
	return options
}

// optionsOf are those of the Network, or the defaults.
func optionsOf(state feed.State) model.DNSOptions {
	if state.Snapshot == nil || state.Snapshot.Network == nil {
		return model.DefaultDNS()
	}
	return state.Snapshot.Network.DNS
}

// listens is where queries are answered.
func (d *daemon) listens(state feed.State) []netip.AddrPort {
	return slices.Concat(d.Listen, state.Serving.Listen)
}

// patience is how long a server that has begun waits for the agent to say what
// has changed since the file was written. Until then queries go to other nodes.
const patience = 3 * time.Second

// attend lets the server answer from its file if no agent is there to confirm it.
func (d *daemon) attend(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.confirmed:
		return nil
	case <-time.After(patience):
	}
	d.applying.Lock()
	defer d.applying.Unlock()
	d.begun = true
	if !d.state.Confirmed {
		d.Log.Warn("no agent has said what the names are; answering with those of the last run")
		d.follow(d.state)
	}
	return nil
}

// apply makes the server follow a state.
func (d *daemon) apply(state feed.State) {
	d.applying.Lock()
	defer d.applying.Unlock()
	d.follow(state)
}

// follow is apply, of who has applying.
func (d *daemon) follow(state feed.State) {
	before := d.served.Load()
	next := *before
	if before.Clients == nil || !d.state.Serving.Equal(&state.Serving) {
		clients := slices.Concat(d.Clients, state.Serving.Clients)
		for _, at := range d.listens(state) { // who asks from there is the node itself
			clients = append(clients, netip.PrefixFrom(at.Addr(), at.Addr().BitLen()))
		}
		next.Clients = dns.NewRanges(clients)
		next.Domains = dns.NewDomains(state.Serving.Domains)
	}
	if state.Snapshot != nil && state.Snapshot.NamesKnown {
		if zone, _ := plandns.Compute(before.Zone, state.Snapshot); zone != nil {
			next.Zone, next.Revision = zone, state.Snapshot.Revision
		}
		next.Old = !state.Confirmed && (state.Boot == "" || state.Boot != d.boot)
		next.Pods = podsOf(before.Pods, state.Snapshot.Attachments)
		next.Log, next.LogOneIn = nil, state.Snapshot.Network.DNS.LogOneIn
		if next.LogOneIn > 0 && d.Queries != nil {
			next.Log = d.queries
		}
		next.Complete, next.Search = !state.Snapshot.Network.DNS.NoCompletion, searchPath(d.ResolvConf)
	}
	d.served.Store(&next)
	d.server.Serve(&next)
	d.forward.Follow(d.outside(state))
	// Where nobody listens, a query goes to another node, which may know more.
	if d.begun = d.begun || state.Confirmed; d.begun && next.Zone != nil {
		d.server.Listen(d.listens(state))
	} else {
		d.server.Listen(d.Listen)
	}
	d.mu.Lock()
	d.state = state
	d.mu.Unlock()
	if before.Zone == nil && next.Zone != nil {
		debug.FreeOSMemory() // what reading all of it took
	}
	if state.Confirmed {
		d.confirm()
		select {
		case d.fresh <- struct{}{}:
		default:
		}
	}
}

// logQueries writes the log of queries.
func (d *daemon) logQueries(ctx context.Context) error {
	if d.Queries == nil {
		return nil
	}
	return d.queries.Run(ctx, d.Queries)
}

// podsOf are the clients that are pods of this node. One that is the same pod as
// before goes on counting.
func podsOf(before model.Map[netip.Addr, *dns.Client], attachments model.Map[model.AttachmentKey, *model.Attachment]) model.Map[netip.Addr, *dns.Client] {
	now := map[netip.Addr]model.PodKey{}
	for _, a := range attachments.All() {
		for _, addr := range a.Addresses {
			now[addr] = a.Pod
		}
	}
	next := before
	for addr := range before.All() {
		if _, ok := now[addr]; !ok {
			next = next.Without(addr)
		}
	}
	for addr, pod := range now {
		if old, ok := before.Get(addr); !ok || old.Namespace != pod.Namespace || old.Name != pod.Name {
			next = next.With(addr, &dns.Client{Namespace: pod.Namespace, Name: pod.Name})
		}
	}
	return next
}

// collectAt is the garbage, in percent of what is in use, at which it is collected:
// less than Go's default. What serves the cluster makes none, so memory is worth
// more than the time.
const collectAt = 40

// savePause is how seldom the names are saved, at most.
const savePause = 20 * time.Second

// save keeps what is known in a file: soon after it was learned, then now and
// then, and at the end.
func (d *daemon) save(ctx context.Context) error {
	if d.StateDir == "" {
		return nil
	}
	said := ""
	write := func() {
		d.mu.Lock()
		state := d.state
		d.mu.Unlock()
		err := feed.Save(filepath.Join(d.StateDir, stateFile), state, d.Version)
		if err != nil && said != err.Error() {
			said = err.Error()
			d.Log.Error("after a restart without an agent there will be no names (--state-dir)", "error", err)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.fresh:
		}
		write()
		select {
		case <-ctx.Done():
			select {
			case <-d.fresh:
				write()
			default:
			}
			return nil
		case <-time.After(savePause):
		}
	}
}
