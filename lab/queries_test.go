package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"
)

const (
	// queryTime is how long resolvers wait for an answer that they ask for again then.
	queryTime = time.Second
	// queryPatience is after how long without an answer they say that there is none.
	queryPatience = 5 * time.Second
	// queryPause is between two queries of one flow.
	queryPause = 2 * time.Millisecond
	// queryClients share a flow that has a rate: one that waits for an answer does
	// not keep the others from asking.
	queryClients = 4
)

const queriesUsage = "usage: queries NAME FROM DOMAIN [rate=QUERIES], and then queries NAME stop [lost<=QUERIES]"

// queries NAME FROM DOMAIN begins to ask from a pod or a machine, and queries NAME
// stop ends it, and fails if more was lost than it allows, or if any query failed.
func (s *stories) queries(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case neg || len(args) < 2:
		ts.Fatalf(queriesUsage)
	case args[1] == "stop":
		allowed, err := parseAllowance(args[2:])
		if err != nil {
			ts.Fatalf("%v; %s", err, queriesUsage)
		}
		s.stopTraffic(ts, args[0], allowed)
	case len(args) == 3:
		s.startQueries(ts, args[0], args[1], args[2], 0)
	case len(args) == 4 && strings.HasPrefix(args[3], "rate="):
		rate, err := strconv.Atoi(strings.TrimPrefix(args[3], "rate="))
		if err != nil || rate < 1 {
			ts.Fatalf("%s is no number of queries a second; %s", args[3], queriesUsage)
		}
		s.startQueries(ts, args[0], args[1], args[2], rate)
	default:
		ts.Fatalf(queriesUsage)
	}
}

// startQueries asks as often as is answered, or, if rate is not 0, so often a
// second by all flows together.
func (s *stories) startQueries(ts *testscript.TestScript, name, from, domain string, rate int) {
	if s.flowing[name] != nil {
		ts.Fatalf("queries %s flow already", name)
	}
	source, err := s.netns(ts.Getenv(namespaceVariable), from)
	ts.Check(err)
	ts.Defer(func() { source.Close() })
	flow := &traffic{full: queuesFull(ts)}
	ctx, cancel := context.WithCancel(context.Background())
	flow.stop = cancel
	ts.Defer(func() {
		flow.end()
		delete(s.flowing, name)
	})
	servers, protocols := s.lab.state.Config.Family.pickText(dnsAddress4, dnsAddress6), []string{"udp", "tcp"}
	for _, server := range servers {
		for _, protocol := range protocols {
			a := asking{netns: source, protocol: protocol, server: netip.AddrPortFrom(netip.MustParseAddr(server), 53), clients: 1}
			if rate > 0 {
				a.clients = queryClients
				a.interval = time.Duration(a.clients*len(servers)*len(protocols)) * time.Second / time.Duration(rate)
			}
			kind := dns.TypeA
			if a.server.Addr().Is6() {
				kind = dns.TypeAAAA
			}
			a.query.SetQuestion(dns.Fqdn(domain), kind)
			flow.flows.Go(func() { flow.note(a.always(ctx)) })
		}
	}
	s.flowing[name] = flow
}

// asking is one flow of queries.
type asking struct {
	netns    *os.File
	protocol string // udp or tcp
	server   netip.AddrPort
	query    dns.Msg
	clients  int           // that ask side by side
	interval time.Duration // from one query of a client to its next; 0: when the last is answered
}

// always asks until the context ends.
func (a *asking) always(ctx context.Context) result {
	all := result{name: fmt.Sprintf("%s to %s", a.protocol, a.server), tcp: true}
	began := time.Now()
	var mu sync.Mutex
	var failures []string
	var running sync.WaitGroup
	for range a.clients {
		running.Go(func() {
			var r result
			var failed []string
			err := within(a.netns, func() error {
				r, failed = a.client(ctx)
				return nil
			})
			mu.Lock()
			defer mu.Unlock()
			all.sent, all.lost, all.gap = all.sent+r.sent, all.lost+r.lost, max(all.gap, r.gap)
			all.broken = errors.Join(all.broken, r.broken, err)
			failures = append(failures, failed...)
		})
	}
	running.Wait()
	all.detail = fmt.Sprintf(", %.0f a second", float64(all.sent)/time.Since(began).Seconds())
	if len(failures) > 0 {
		all.detail += fmt.Sprintf(" (%q)", failures[:min(5, len(failures))])
	}
	return all
}

// client asks one query after the other, each from a port of its own, and tells
// the failures of those that it had to ask again: each time counts as one lost.
func (a *asking) client(ctx context.Context) (r result, failures []string) {
	for next := time.Now(); ctx.Err() == nil; {
		began := time.Now()
		r.sent++
		for asked := began; ; asked = time.Now() {
			err := askOnce(a.protocol, a.server, &a.query)
			if err == nil {
				break
			}
			r.lost++
			failures = append(failures, fmt.Sprintf("%s: %v", asked.Format("05.000"), err))
			if time.Since(began) >= queryPatience {
				r.broken = errors.Join(r.broken, fmt.Errorf("%s: asked until %s: %w", began.Format("05.000"), asked.Format("05.000"), err))
				break
			}
			pause(context.Background(), queryPause) // one that is refused comes back at once
		}
		r.gap = max(r.gap, time.Since(began))
		if a.interval == 0 {
			pause(ctx, queryPause)
			continue
		}
		next = next.Add(a.interval)
		pause(ctx, time.Until(next))
	}
	return r, failures
}

// askOnce wants an answer that has one, in time.
func askOnce(protocol string, server netip.AddrPort, query *dns.Msg) error {
	conn, err := net.DialTimeout(protocol, server.String(), queryTime)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(queryTime)); err != nil {
		return err
	}
	message := query.Copy()
	message.Id = dns.Id()
	wire := &dns.Conn{Conn: conn}
	if err := wire.WriteMsg(message); err != nil {
		return err
	}
	for {
		answer, err := wire.ReadMsg()
		switch {
		case err != nil:
			return err
		case answer.Id != message.Id:
			continue
		case answer.Rcode != dns.RcodeSuccess || len(answer.Answer) == 0:
			return fmt.Errorf("%s with %d answers", dns.RcodeToString[answer.Rcode], len(answer.Answer))
		}
		return nil
	}
}

// TestQueriesAreAskedAgain: each time counts as one lost, and only a query that is
// not answered for long has failed.
func TestQueriesAreAskedAgain(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const silent = 2 // queries that are not answered: of one that hangs
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var asked atomic.Int64
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		if asked.Add(1) <= silent {
			return
		}
		stop() // one is enough
		answer := new(dns.Msg).SetReply(query)
		answer.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 1)}}
		_ = w.WriteMsg(answer)
	})}
	ended := make(chan error)
	go func() { ended <- server.ActivateAndServe() }()
	a := asking{protocol: "udp", server: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	a.query.SetQuestion("a.example.", dns.TypeA)
	r, failures := a.client(ctx)
	if r.sent != 1 || r.lost != silent || r.broken != nil {
		t.Errorf("after %d queries without an answer: %v, %q", silent, r, failures)
	}
	if err := errors.Join(server.Shutdown(), <-ended); err != nil {
		t.Error(err)
	}
}
