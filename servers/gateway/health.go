package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unique"
)

// Check is what endpoints are asked again and again, so that those that are not well
// are left out before a request finds out. If none of a backend is, all are asked as
// if nothing were known.
type Check struct {
	Path              string        // asked for by GET
	Host              string        // empty: the address
	Interval, Timeout time.Duration // between two questions, and for an answer
	// Healthy and Unhealthy are how many answers in a row change what is thought of an
	// endpoint. A new one is well.
	Healthy, Unhealthy int
	From, To           int // statuses of who is well
}

// maxChecks bounds the questions that are under way at once.
const maxChecks = 32

// checkup is what is known of an endpoint by its Check. One question is under way at a
// time, and whoever asks it has row.
type checkup struct {
	of     Check
	client *http.Client
	sick   atomic.Bool
	busy   atomic.Bool
	due    atomic.Int64 // when it is asked next
	row    int          // answers in a row that say other than what is thought
}

func newCheckup(p *endpoint, now int64) *checkup {
	c := &checkup{of: p.check.Value()}
	dialer := &net.Dialer{KeepAlive: -1, ControlContext: p.refuses}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!p.http2)
	protocols.SetHTTP2(p.http2 && p.tls != nil)
	protocols.SetUnencryptedHTTP2(p.http2 && p.tls == nil)
	authority := p.authority()
	c.client = &http.Client{
		Timeout:       c.of.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "tcp", authority)
			},
			TLSClientConfig: p.tls, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10, Protocols: protocols,
		},
	}
	c.due.Store(now + rand.Int64N(int64(min(c.of.Interval, time.Second)))) // not all at once
	return c
}

// next is when an endpoint is asked again: a tenth sooner or later, so that many do
// not stay in step.
func (c *checkup) next(now int64) {
	tenth := int64(c.of.Interval) / 10
	c.due.Store(now + int64(c.of.Interval) - tenth + rand.Int64N(2*tenth+1))
}

// ask asks once; nil: the endpoint is well.
func (c *checkup) ask(ctx context.Context, p *endpoint) error {
	scheme := "http://"
	if p.tls != nil {
		scheme = "https://"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+p.authority()+c.of.Path, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", c.of.Path, err)
	}
	request.Host = c.of.Host
	request.Header.Set("User-Agent", "fairlead-health-check")
	response, err := c.client.Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode < c.of.From || response.StatusCode > c.of.To {
		return fmt.Errorf("its answer to GET %s has status %d", c.of.Path, response.StatusCode)
	}
	return nil
}

// learn takes note of an answer, and tells whether the endpoint is thought of otherwise
// from now on.
func (c *checkup) learn(well bool) (changed bool) {
	sick := c.sick.Load()
	if well != sick {
		c.row = 0
		return false
	}
	need := c.of.Unhealthy
	if sick {
		need = c.of.Healthy
	}
	if c.row++; c.row < need {
		return false
	}
	c.row = 0
	c.sick.Store(!sick)
	return true
}

// checkups ask the endpoints of a table how they are.
type checkups struct {
	server  *Server
	changed chan struct{} // the table is another one

	asked, ailing atomic.Uint64
	checked, sick atomic.Int64
}

func (h *checkups) begin(s *Server) { h.server, h.changed = s, make(chan struct{}, 1) }

// follow has the endpoints of the table asked that is served now, and no others.
func (h *checkups) follow() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// run asks until the context ends.
func (h *checkups) run(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	slots := make(chan struct{}, maxChecks)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	all, first := h.collect(), 0
	for {
		var ticks <-chan time.Time
		if len(all) > 0 {
			ticks = ticker.C
		}
		select {
		case <-ctx.Done():
			return
		case <-h.changed:
			all = h.collect()
		case <-ticks:
		}
		now := h.server.watch.clock.now()
		for i := range all {
			p := all[(first+i)%len(all)]
			if p.checkup.due.Load() > now || !p.checkup.busy.CompareAndSwap(false, true) {
				continue
			}
			select {
			case slots <- struct{}{}:
				asking.Go(func() {
					h.ask(ctx, p)
					<-slots
				})
				continue
			default: // those that are left come first the next time
			}
			p.checkup.busy.Store(false)
			first = (first + i) % len(all)
			break
		}
		h.count(all)
	}
}

// collect finds the endpoints of the table. What is known of them stays.
func (h *checkups) collect() (all []*endpoint) {
	s := h.server
	now := s.watch.clock.now()
	seen := map[*endpoint]bool{}
	for _, b := range s.table.Load().Checked {
		if b.Check == (unique.Handle[Check]{}) {
			continue
		}
		for _, p := range s.endpoints.bind(b, now) {
			if !seen[p] {
				seen[p] = true
				p.used.Store(now)
				all = append(all, p)
			}
		}
	}
	return all
}

func (h *checkups) count(all []*endpoint) {
	sick := int64(0)
	for _, p := range all {
		if p.checkup.sick.Load() {
			sick++
		}
	}
	h.checked.Store(int64(len(all)))
	h.sick.Store(sick)
}

// ask asks one endpoint, and says so if it is thought of otherwise.
func (h *checkups) ask(ctx context.Context, p *endpoint) {
	c, s := p.checkup, h.server
	defer c.busy.Store(false)
	err := c.ask(ctx, p)
	now := s.watch.clock.now()
	p.used.Store(now) // so that it is not forgotten
	c.next(now)
	if ctx.Err() != nil || errors.Is(err, errHere) { // who must not be asked is as if nobody did
		return
	}
	if h.asked.Add(1); err != nil {
		h.ailing.Add(1)
	}
	switch {
	case !c.learn(err == nil):
	case err != nil:
		s.log.Warn("an endpoint is left out, since it is not well", "endpoint", p.address, "path", c.of.Path, "error", err)
	default:
		p.born.Store(now)
		s.log.Info("an endpoint is well again", "endpoint", p.address, "path", c.of.Path)
	}
}
