// Package servicehealth answers load balancers that ask whether a node has
// endpoints of a Service: on a port of the node for each Service whose clients
// they lead to such nodes alone (healthCheckNodePort). Which ports, and how many
// endpoints there are, is decided in plan/service. A Server is run once; Follow
// may be called at any time, from anywhere.
package servicehealth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

// Wanted is what is answered, by the port, and at which addresses; 0.0.0.0 and ::
// are all of their family. It is as the plan has it.
type Wanted struct {
	Checks    model.Map[uint16, *service.HealthCheck]
	Addresses model.Map[netip.Addr, struct{}]
}

// Server has a listener for each port and address. All fields are needed. A port that
// another program has is a Problem of the Service, and tried again until it is
// free.
type Server struct {
	// Healthy tells whether the node follows what changes. If it does not, it is no
	// place to send clients to, whatever endpoints it has.
	Healthy func() bool
	// Tell is called with all there is to mend, whenever that has changed.
	Tell func(problems ...model.Problem)
	Log  *slog.Logger

	wanted  atomic.Pointer[Wanted]
	changed chan struct{} // of one element
	broken  chan broken
}

// New returns a server without ports.
func New(healthy func() bool, tell func(...model.Problem), log *slog.Logger) *Server {
	s := &Server{Healthy: healthy, Tell: tell, Log: log, changed: make(chan struct{}, 1), broken: make(chan broken)}
	s.wanted.Store(&Wanted{})
	return s
}

// Follow makes the server answer this from now on, and listen there as soon as it
// can. It does not block.
func (s *Server) Follow(wanted Wanted) {
	if *s.wanted.Load() == wanted {
		return
	}
	s.wanted.Store(&wanted)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Pauses before a port is tried again that another program has.
const (
	firstPause = time.Second
	mostPause  = 30 * time.Second
)

// door is where it is to listen.
type door struct {
	server   *http.Server // nil: it is not open
	listener net.Listener // of the server
	err      error        // why it is not open
	pause    time.Duration
	due      time.Time // when it is tried again
}

// broken is a door whose server has ended by itself.
type broken struct {
	at     netip.AddrPort
	server *http.Server
	err    error
}

// Run serves until the context ends, and returns nil when all ports are closed.
func (s *Server) Run(ctx context.Context) error {
	doors := map[netip.AddrPort]*door{}
	var serving sync.WaitGroup
	defer serving.Wait()
	defer func() {
		for _, d := range doors {
			d.close()
		}
	}()
	var told []model.Problem
	for {
		wanted := *s.wanted.Load()
		wanted.fit(doors)
		var retry <-chan time.Time // of the first that is due
		var first time.Time
		for at, d := range doors {
			if !s.open(ctx, d, at, &serving) && (first.IsZero() || d.due.Before(first)) {
				first = d.due
				retry = time.After(time.Until(first))
			}
		}
		if problems := wanted.problems(doors); !slices.Equal(problems, told) {
			told = problems
			s.Tell(problems...)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		case <-retry:
		case b := <-s.broken:
			if d := doors[b.at]; d != nil && d.server == b.server {
				d.close()
				doors[b.at] = &door{err: b.err, pause: firstPause, due: time.Now().Add(firstPause)}
			}
		}
	}
}

// fit closes the doors that are not wanted, and adds those that are missing, which
// are not open yet.
func (w Wanted) fit(doors map[netip.AddrPort]*door) {
	for at, d := range doors {
		_, port := w.Checks.Get(at.Port())
		_, addr := w.Addresses.Get(at.Addr())
		if !port || !addr {
			d.close()
			delete(doors, at)
		}
	}
	for port := range w.Checks.All() {
		for addr := range w.Addresses.All() {
			if at := netip.AddrPortFrom(addr, port); doors[at] == nil {
				doors[at] = &door{}
			}
		}
	}
}

// open tells whether a door is open, and opens it if it is due.
func (s *Server) open(ctx context.Context, d *door, at netip.AddrPort, serving *sync.WaitGroup) bool {
	if d.server != nil || time.Now().Before(d.due) {
		return d.server != nil
	}
	var config net.ListenConfig
	network := [...]string{model.IPv4: "tcp4", model.IPv6: "tcp6"}[model.FamilyOf(at.Addr())]
	listener, err := config.Listen(ctx, network, at.String())
	if err != nil {
		d.err = err
		d.pause = min(max(2*d.pause, firstPause), mostPause)
		d.due = time.Now().Add(d.pause)
		return false
	}
	server := &http.Server{
		Handler:     http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { s.answer(w, at) }),
		ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // of clients that are at fault
	}
	*d = door{server: server, listener: listener}
	serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			select {
			case s.broken <- broken{at, server, err}:
			case <-ctx.Done():
			}
		}
	})
	return true
}

// close does not wait for answers that are on their way: what asks, asks again.
func (d *door) close() {
	if d.server != nil {
		_ = d.server.Close()
		_ = d.listener.Close() // the server may not have begun to
	}
}

// answer says what kube-proxy would, in its words. Who asks over IPv6 leads clients
// to the node over IPv6.
func (s *Server) answer(w http.ResponseWriter, at netip.AddrPort) {
	check, ok := s.wanted.Load().Checks.Get(at.Port())
	if !ok { // it is being closed
		http.Error(w, "no Service has this port", http.StatusServiceUnavailable)
		return
	}
	local, healthy := check.Local[model.FamilyOf(at.Addr())], s.Healthy()
	body, err := json.Marshal(map[string]any{
		"service":             map[string]string{"namespace": check.Service.Namespace, "name": check.Service.Name},
		"localEndpoints":      local,
		"serviceProxyHealthy": healthy,
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(local))
	if local == 0 || !healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(body)
}

// problems name the Services whose ports are not open, sorted.
func (w Wanted) problems(doors map[netip.AddrPort]*door) (problems []model.Problem) {
	for at, d := range doors {
		if d.server != nil {
			continue
		}
		port := at.Port()
		check, _ := w.Checks.Get(port)
		problem := model.Problem{
			Kind: "Service", Namespace: check.Service.Namespace, Name: check.Service.Name,
			Field: "spec.healthCheckNodePort", Reason: "HealthCheckPortNotOpen",
			Message: fmt.Sprintf("load balancers are not told whether this node has endpoints: %v", d.err),
			Remedy:  "it is tried again by itself",
		}
		if errors.Is(d.err, syscall.EADDRINUSE) {
			problem.Message = fmt.Sprintf("load balancers are not told whether this node has endpoints: another program listens on port %d, kube-proxy perhaps", port)
			problem.Remedy = fmt.Sprintf("end it (ss -ltnp 'sport = :%d' on the node names it); the port is taken over when it is free", port)
		}
		problems = append(problems, problem)
	}
	slices.SortFunc(problems, model.Problem.Compare)
	return slices.Compact(problems)
}
