package gateway

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// Settings are those of a Server. What is 0 has the value of DefaultSettings.
type Settings struct {
	Limits       http1.Limits
	Header       time.Duration // for a client to send all of a head
	Idle         time.Duration // for a client to send another request
	Body         time.Duration // for a client to send, or take, the next piece of a body
	UpstreamIdle time.Duration // for which a connection to an endpoint is kept
	Forget       time.Duration // for which the health of an endpoint is known that nobody uses
	Drain        time.Duration // for what is under way, once the server is to end
	DrainIdle    time.Duration // for idle clients, once the server is to end, to ask once more and be told
	Clients      int           // connections at once; 0: of DefaultSettings, or half as many as there may be descriptors
	// Heads is how much memory clients have together, in bytes, who have sent a part of
	// a head each. Who would need more is refused.
	Heads int64
	// SlowStart is how long it takes until a new endpoint beside older ones has as many
	// requests as they. 0: it has them at once.
	SlowStart time.Duration
	// Here lets names, mirrors and the like lead to this machine and its link, where
	// what listens is not for others. It is for tests.
	Here bool
	// Measure has the requests counted, each by its Meter.
	Measure bool
	// Log, if not nil, takes in what was answered. Who runs it does so for longer than
	// the server runs.
	Log *AccessLog
}

// DefaultSettings suit most.
func DefaultSettings() Settings {
	return Settings{
		Limits: http1.Usual(), Header: 10 * time.Second, Idle: 75 * time.Second, Body: time.Minute,
		UpstreamIdle: 55 * time.Second, Forget: 10 * time.Minute, Drain: 4 * time.Minute, DrainIdle: 3 * time.Second, Clients: 100_000, Heads: 128 << 20,
	}
}

func (s Settings) or(other Settings) Settings {
	if s.Limits == (http1.Limits{}) {
		s.Limits = other.Limits
	}
	for _, pair := range []struct{ mine, others *time.Duration }{
		{&s.Header, &other.Header}, {&s.Idle, &other.Idle}, {&s.Body, &other.Body},
		{&s.UpstreamIdle, &other.UpstreamIdle}, {&s.Forget, &other.Forget}, {&s.Drain, &other.Drain}, {&s.DrainIdle, &other.DrainIdle},
	} {
		if *pair.mine == 0 {
			*pair.mine = *pair.others
		}
	}
	if s.Heads == 0 {
		s.Heads = other.Heads
	}
	if s.Clients == 0 {
		s.Clients = min(other.Clients, descriptors()/2) // one more of each may be for an endpoint
	}
	return s
}

// descriptors is how many this process may have.
func descriptors() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt
	}
	return int(min(limit.Cur, math.MaxInt))
}

// Server is a reverse proxy.
type Server struct {
	settings  Settings
	log       *slog.Logger
	table     atomic.Pointer[Table]
	watch     watch
	endpoints endpoints
	draining  atomic.Bool // no client may keep its connection
	cutting   atomic.Bool // nor finish what is under way
	clients   atomic.Int64
	counts    []counts        // one for each core
	context   context.Context // ends once all connections have ended or are to be cut
	running   sync.WaitGroup  // of clients
	heads     atomic.Int64    // see Settings.Heads
	squeezing atomic.Int64    // answers that are being compressed
	refused   atomic.Uint64
	tls       *tls.Config
	tickets   *tickets
	streams   *streams
	quic      *quic
	checkups  checkups
	mirrors   mirrors
	measures  bool
	others    Meter // see Others

	mu      sync.Mutex
	wanted  []Listener // sorted
	open    []Listener // sorted
	changed chan struct{}
}

// Listener is where clients come.
type Listener struct {
	At     netip.AddrPort
	Secure bool // they speak TLS
	HTTP3  bool // over QUIC: it is a port of UDP, and Secure
	// Port is the one that clients know, and backends are told of, if somebody leads
	// it here; 0: that of At.
	Port uint16
}

// port is the one that clients know.
func (l Listener) port() uint16 {
	if l.Port != 0 {
		return l.Port
	}
	return l.At.Port()
}

func (l Listener) compare(other Listener) int {
	if c := l.At.Compare(other.At); c != 0 || l.HTTP3 == other.HTTP3 {
		return c
	} else if l.HTTP3 {
		return 1
	}
	return -1
}

// New returns a server that knows no route, and listens nowhere.
func New(settings Settings, log *slog.Logger) *Server {
	cores := runtime.GOMAXPROCS(0)
	s := &Server{settings: settings.or(DefaultSettings()), log: log, changed: make(chan struct{}, 1), counts: make([]counts, cores)}
	s.measures = settings.Measure || settings.Log != nil
	s.endpoints = endpoints{known: map[where]*endpoint{}, refuses: Elsewhere, cores: cores, slow: settings.SlowStart}
	if settings.Here {
		s.endpoints.refuses = nil
	}
	s.mirrors = newMirrors(s.endpoints.refuses)
	s.watch.began = time.Now()
	s.watch.clock.at.Store(1)
	s.table.Store(&Table{})
	s.tls = s.newTLS(tls.VersionTLS12, "h2", "http/1.1")
	s.quic = newQUIC(s)
	s.tickets = &tickets{configs: []*tls.Config{s.tls, s.quic.tls}}
	s.tickets.rotate()
	s.streams = newStreams(s)
	s.checkups.begin(s)
	return s
}

// Serve makes the server go by this table from the next request on. It does not
// block, and no connection is closed.
func (s *Server) Serve(table *Table) {
	s.table.Store(table)
	s.checkups.follow()
}

// Listen makes the server listen at these addresses, and at no others: one that is
// no longer wanted has its connections go on. It does not block. An address that
// the node does not have yet is no failure; one that another program listens at is
// tried again until it is free.
func (s *Server) Listen(at []Listener) {
	at = slices.Clone(at)
	slices.SortFunc(at, Listener.compare)
	at = slices.CompactFunc(at, func(a, b Listener) bool { return a.At == b.At && a.HTTP3 == b.HTTP3 })
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(s.wanted, at) {
		return
	}
	s.wanted = at
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Listening returns where the server listens now, sorted. The port is the one that
// the kernel chose, if it was to choose.
func (s *Server) Listening() []Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.open)
}

// retryPause is how long it takes until an address is tried again that could not
// be listened at.
const retryPause = time.Second

// Run serves until the context ends. Then it takes no more connections, tells the
// clients that there are, waits for what is under way, and returns nil.
func (s *Server) Run(ctx context.Context) error {
	var cancel context.CancelFunc
	s.context, cancel = context.WithCancel(context.WithoutCancel(ctx))
	var watching sync.WaitGroup
	watching.Go(func() { s.watch.run(s.context) })
	watching.Go(func() { s.sweep(s.context) })
	watching.Go(func() { s.tickets.run(s.context) })
	watching.Go(func() { s.checkups.run(s.context) })
	watching.Go(func() { s.streams.run(ctx) })
	s.listen(ctx)
	s.drain()
	s.streams.end()
	cancel()
	watching.Wait()
	s.mirrors.client.CloseIdleConnections()
	s.sweepOnce(0)
	s.watch.pipes.close()
	return nil
}

// listen keeps the doors open that are wanted until the context ends.
func (s *Server) listen(ctx context.Context) {
	doors := map[Listener]*door{}
	said := map[Listener]string{}
	for {
		s.mu.Lock()
		wanted := s.wanted
		s.mu.Unlock()
		s.close(doors, func(l Listener) bool { return slices.Contains(wanted, l) })
		var retry <-chan time.Time
		for _, l := range wanted {
			if doors[l] != nil {
				continue
			}
			d, err := s.openDoor(ctx, l)
			if err != nil {
				if said[l] != err.Error() {
					said[l] = err.Error()
					s.log.Error("requests to an address are not answered here, trying again", "address", l.At, "error", err)
				}
				retry = time.After(retryPause)
				continue
			}
			delete(said, l)
			doors[l] = d
			s.log.Info("answering requests", "address", d.at.At, "tls", l.Secure, "http3", l.HTTP3)
		}
		s.mu.Lock()
		s.open = s.open[:0]
		for _, d := range doors {
			s.open = append(s.open, d.at)
		}
		slices.SortFunc(s.open, Listener.compare)
		s.quic.offer(s.open)
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			s.draining.Store(true)
			s.quic.offer(nil)
			s.close(doors, func(Listener) bool { return false })
			return
		case <-s.changed:
		case <-retry:
		}
	}
}

// close ends the doors that are not to stay.
func (s *Server) close(doors map[Listener]*door, stays func(Listener) bool) {
	for l, d := range doors {
		if !stays(l) {
			d.close()
			delete(doors, l)
		}
	}
}

// drain waits for the clients: those that are idle have a moment to ask once more,
// and be told that it was the last time; what is under way has longer.
func (s *Server) drain() {
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	idle, all := time.NewTimer(s.settings.DrainIdle), time.NewTimer(s.settings.Drain)
	defer idle.Stop()
	defer all.Stop()
	for {
		select {
		case <-ended:
			return
		case <-idle.C:
			s.watch.cut(false)
		case <-all.C:
			s.cutting.Store(true)
			s.watch.cut(true)
			s.quic.cut()
			<-ended
			return
		}
	}
}
