// Package daemon is the ingress of a node as a process: it watches what requests
// are led by, plans it, and serves. It is wiring. Run is called once.
package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/httpd"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway/acme"
	"github.com/fairlead-net/fairlead/servers/gateway/routing"
)

// Config is what a daemon needs.
type Config struct {
	Version string
	Source  Source
	// HTTP and HTTPS are where it listens; clients know the ports as 80 and 443.
	// HTTP/3 is spoken at the UDP ports of HTTPS while the Network says so.
	HTTP, HTTPS []netip.AddrPort
	// Register is where the one gateway that leads writes status and Events of
	// Ingresses; nil: nothing is written.
	Register Register
	// DefaultCertificate is the Secret of hosts that have no certificate of their own;
	// empty: they have one that nobody trusts.
	DefaultCertificate model.SecretKey
	// Trusted are proxies whose X-Forwarded-* holds, and Introduced load balancers that
	// begin their connections with the PROXY protocol.
	Trusted, Introduced []netip.Prefix
	StrictTransport     string        // see routing.Sources
	Gzip, Zstd          bool          // answers are compressed so, for clients that can read it
	SlowStart           time.Duration // see gateway.Settings
	HealthAddress       string        // see httpd.Server; empty: not at all
	// Linger is how long it goes on as before when it is told to end, but that it says
	// that it is not ready: until everybody has heard that no client is to be sent here.
	Linger    time.Duration
	AccessLog AccessLog
	Log       *slog.Logger
}

// AccessLog is where requests are written down.
type AccessLog struct {
	To    io.Writer // nil: nowhere
	Form  gateway.Form
	OneIn int // of requests that did not fail; 0: all
}

// Source tells what requests are led by; kube.GatewaySource is one.
type Source interface {
	Run(ctx context.Context, feed *model.Feed) error
	Synced() <-chan struct{}
	// Name says which Secrets there are to be. Secrets returns them, whether some are
	// still waited for, and a channel that is closed when there is more to tell.
	Name(keys model.Map[model.SecretKey, int])
	Secrets() (known model.Map[model.SecretKey, *model.Secret], waiting bool, changed <-chan struct{})
	// Problems are what was not understood, or cannot be watched; Changed is closed
	// when they are others. Take it before.
	Problems() []model.Problem
	Changed() <-chan struct{}
}

// daemon is one that runs.
type daemon struct {
	Config
	feed   *model.Feed
	server *gateway.Server
	serves atomic.Uint64 // the revision; 0: none yet

	serving current[served]
	told    context.Context // ends when the process is told to end

	certificates certificates
	table        *plan.Table
	endpoints    *plan.Endpoints
	router       *routing.Router
	routed       atomic.Pointer[routing.Router] // the same, for others to read
	secured      atomic.Pointer[secured]
	known        *acme.State
	results      ordering
	access       *gateway.AccessLog // nil: none
	said         map[model.Problem]bool
	garbage      collector
	began        chan struct{} // closed when the first table is served
}

// Run serves until the context has ended, and for as long as it lingers then; lets
// what is under way be finished, and returns nil.
func Run(ctx context.Context, config Config) error {
	d := &daemon{Config: config, feed: &model.Feed{}, endpoints: &plan.Endpoints{}, said: map[model.Problem]bool{}, began: make(chan struct{})}
	d.garbage.set(leastPercent) // what is listed at first is mostly garbage
	if config.AccessLog.To != nil {
		d.access = gateway.NewAccessLog(config.AccessLog.Form, config.AccessLog.OneIn)
	}
	d.server = gateway.New(gateway.Settings{Measure: true, Log: d.access, SlowStart: config.SlowStart}, config.Log)
	if err := d.certificates.begin(config.DefaultCertificate); err != nil {
		return err
	}
	d.told = ctx
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(config.Linger, end) })()
	rest, endRest := context.WithCancel(context.WithoutCancel(ctx)) // what is served is followed to the end
	defer endRest()
	var running sync.WaitGroup
	start := func(ctx context.Context, run func(context.Context) error) {
		running.Go(func() {
			if err := run(ctx); err != nil {
				config.Log.Error("a part of the gateway has ended", "error", err)
			}
		})
	}
	start(rest, func(ctx context.Context) error { return config.Source.Run(ctx, d.feed) })
	start(rest, func(ctx context.Context) error { return d.follow(ctx) })
	start(rest, d.health().Run)
	start(rest, d.rest)
	start(serving, func(ctx context.Context) error { defer endRest(); return d.run(ctx) })
	if config.Register != nil {
		start(ctx, d.lead)
	}
	running.Wait()
	return nil
}

// run serves, and logs for as long as there may be something to log.
func (d *daemon) run(ctx context.Context) error {
	if d.access == nil {
		return d.server.Run(ctx)
	}
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var logging sync.WaitGroup
	logging.Go(func() { _ = d.access.Run(last, d.AccessLog.To) }) // it never fails
	err := d.server.Run(ctx)
	cancel()
	logging.Wait()
	return err
}

// lookAgain is after how long certificates are looked at again, though nothing has
// changed: they end by themselves.
const lookAgain = time.Hour

// follow serves what the snapshot and the Secrets say, and listens once it knows
// all of it: before, it would answer that there is nothing.
func (d *daemon) follow(ctx context.Context) error {
	for synced := false; !synced; {
		changed := d.Source.Changed()
		d.say(d.Source.Problems())
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-d.Source.Synced():
			synced = true
		}
	}
	began := sync.OnceFunc(func() { close(d.began) })
	first := true
	for {
		snapshot, newer := d.feed.Latest()
		table, problems := plan.Compute(d.table, snapshot)
		d.table = table
		secrets, others := d.secrets(ctx, first)
		changed := d.Source.Changed()
		d.serve(snapshot, problems, secrets)
		d.server.Listen(d.listeners(snapshot.Network))
		began()
		first = false
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookAgain):
		case <-newer:
		case <-others:
		case <-changed:
		}
	}
}

// listeners are where it listens, as the Network has it.
func (d *daemon) listeners(network *model.Network) (all []gateway.Listener) {
	for _, at := range d.HTTP {
		all = append(all, gateway.Listener{At: at, Port: 80})
	}
	for _, at := range d.HTTPS {
		all = append(all, gateway.Listener{At: at, Secure: true, Port: 443})
		if network != nil && network.Ingress.HTTP3 {
			all = append(all, gateway.Listener{At: at, Secure: true, HTTP3: true, Port: 443})
		}
	}
	return all
}

// secretPatience is how long a change waits for the Secrets that it names, and all
// that come after it.
const secretPatience = time.Second

// secrets returns those that the table names, and a channel that is closed when there
// are others. What is new of them is waited for: a host that has another certificate
// from now on is not to have the default one in between.
func (d *daemon) secrets(ctx context.Context, first bool) (model.Map[model.SecretKey, *model.Secret], <-chan struct{}) {
	named := d.table.Secrets()
	if standard := d.DefaultCertificate; standard != (model.SecretKey{}) {
		named = named.With(standard, 1)
	}
	d.Source.Name(named)
	var late <-chan time.Time
	for {
		known, waiting, changed := d.Source.Secrets()
		if !waiting {
			return known, changed
		}
		if late == nil && !first {
			timer := time.NewTimer(secretPatience)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-ctx.Done():
			return known, changed
		case <-late:
			return known, changed
		case <-changed:
		}
	}
}

func (d *daemon) serve(snapshot *model.Snapshot, problems []model.Problem, secrets model.Map[model.SecretKey, *model.Secret]) {
	table := d.table
	ordered := acme.Read(d.known, secrets)
	d.known = ordered
	var challenge func(host, token string) string
	if ordered.Asked() {
		challenge = ordered.Answer
	}
	d.endpoints = d.endpoints.Next(snapshot)
	d.router = routing.New(d.router, table, routing.Sources{
		Endpoints: d.endpoints,
		Secret: func(key plan.SecretKey) map[string][]byte {
			if secret, ok := secrets.Get(key); ok {
				return secret.Content
			}
			return nil
		},
		Challenge: challenge, StrictTransport: d.StrictTransport,
	})
	problems = slices.Concat(problems, d.certificates.follow(table, secrets), d.router.Problems(), d.Source.Problems())
	d.routed.Store(d.router)
	d.secured.Store(&secured{table, d.certificates.by})
	serves := &gateway.Table{
		Router: d.router, Asks: d.router.Asks, Passes: d.router.Passes(), Checked: d.router.Checked(), Trusted: d.Trusted, Introduced: d.Introduced, Certificate: d.certificates.choose(table),
	}
	if d.Gzip || d.Zstd {
		serves.Compress = gateway.UsualCompression()
		serves.Compress.Gzip, serves.Compress.Zstd = d.Gzip, d.Zstd
	}
	d.server.Serve(serves)
	now := served{snapshot: snapshot, table: table, problems: problems, ordered: ordered, wanted: wantedOf(table, &d.certificates)}
	d.say(slices.Concat(problems, now.unordered(time.Now())))
	d.serving.edit(func(s *served) {
		now.trouble = s.trouble
		*s = now
	})
	d.garbage.follow()
	d.serves.Store(snapshot.Revision)
}

// say logs problems that are new.
func (d *daemon) say(problems []model.Problem) {
	now := map[model.Problem]bool{}
	for _, p := range problems {
		if now[p] = true; !d.said[p] {
			d.Log.Warn(p.Message, "object", p.Object(), "field", p.Field, "remedy", p.Remedy)
		}
	}
	d.said = now
}

func (d *daemon) health() *httpd.Server {
	return &httpd.Server{
		Address: d.HealthAddress, Log: d.Log, Metrics: d.handler(), Health: func() error { return nil },
		Debug: map[string]http.HandlerFunc{"top": d.serveTop, "status": d.serveDetails},
		Ready: func() (string, bool) {
			var lines strings.Builder
			ready := true
			check := func(done bool, what string, args ...any) {
				state := "ok"
				if !done {
					state, ready = "waiting", false
				}
				fmt.Fprintf(&lines, "%-8s %s\n", state, fmt.Sprintf(what, args...))
			}
			check(d.told.Err() == nil, "it is not to end")
			check(d.serves.Load() > 0, "routes are known, of revision %d", d.serves.Load())
			check(len(d.server.Listening()) > 0, "requests are answered at %v", d.server.Listening())
			return lines.String(), ready
		},
	}
}
