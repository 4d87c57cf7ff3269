// Package daemon is the DNS server of a node as a process: it hears from the
// agent what the names are made of, plans them, serves them, and keeps them for
// its next start. It is wiring. Run is called once.
package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/model"
	plandns "github.com/fairlead-net/fairlead/plan/dns"
	"github.com/fairlead-net/fairlead/servers/dns"
	"github.com/fairlead-net/fairlead/servers/dns/feed"
)

// Config is what a daemon needs.
type Config struct {
	Version  string
	Socket   string           // of the agent
	StateDir string           // what is kept over restarts; empty: nothing
	Listen   []netip.AddrPort // besides those that the agent says
	Clients  []netip.Prefix   // likewise
	Forward  dns.Forwarder    // nil: names that are not of the cluster are refused
	Log      *slog.Logger
}

// stateFile is the file in StateDir.
const stateFile = "names.json"

// daemon is one that runs.
type daemon struct {
	Config
	server   *dns.Server
	receiver *feed.Receiver
	boot     string // of the node, now

	served atomic.Pointer[dns.Served] // what the server has
	fresh  chan struct{}              // of one element: there is something to save

	mu    sync.Mutex
	state feed.State // the last that knows all names
}

// Run serves until the context ends, and then returns nil.
func Run(ctx context.Context, config Config) error {
	d := &daemon{Config: config, server: dns.New(config.Forward, config.Log), boot: bootID(), fresh: make(chan struct{}, 1)}
	d.served.Store(&dns.Served{})
	var last feed.State
	if config.StateDir != "" {
		var err error
		if last, err = feed.Load(filepath.Join(config.StateDir, stateFile)); err != nil {
			config.Log.Error("the names of the last run are not known", "error", err)
		}
	}
	d.apply(last)
	d.receiver = &feed.Receiver{Path: config.Socket, Program: config.Version, State: last, Apply: d.apply, Log: config.Log}
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{d.server.Run, d.receiver.Run, d.save} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				config.Log.Error("a part of the DNS server has ended", "error", err)
			}
		})
	}
	running.Wait()
	return nil
}

// apply makes the server follow a state.
func (d *daemon) apply(state feed.State) {
	before := d.served.Load()
	next := *before
	next.Clients = append(d.Clients[:len(d.Clients):len(d.Clients)], state.Serving.Clients...)
	if state.Snapshot != nil && state.Snapshot.NamesKnown {
		if zone, _ := plandns.Compute(before.Zone, state.Snapshot); zone != nil {
			next.Zone, next.Revision = zone, state.Snapshot.Revision
		}
		next.Old = !state.Confirmed && (state.Boot == "" || state.Boot != d.boot)
		next.Pods = podsOf(before.Pods, state.Snapshot.Attachments)
	}
	d.served.Store(&next)
	d.server.Serve(&next)
	d.server.Listen(append(d.Listen[:len(d.Listen):len(d.Listen)], state.Serving.Listen...))
	d.mu.Lock()
	d.state = state
	d.mu.Unlock()
	if state.Confirmed {
		select {
		case d.fresh <- struct{}{}:
		default:
		}
	}
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
