package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"
)

const (
	// queryTime is how long resolvers wait for an answer that they ask for again then.
	queryTime = time.Second
	// queryPause is between two queries of one flow.
	queryPause = 2 * time.Millisecond
)

const queriesUsage = "usage: queries NAME FROM DOMAIN, and then queries NAME stop [lost<=QUERIES]"

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
		s.startQueries(ts, args[0], args[1], args[2])
	default:
		ts.Fatalf(queriesUsage)
	}
}

func (s *stories) startQueries(ts *testscript.TestScript, name, from, domain string) {
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
	for _, server := range s.lab.state.Config.Family.pickText(dnsAddress4, dnsAddress6) {
		for _, protocol := range []string{"udp", "tcp"} {
			kind := dns.TypeA
			if strings.Contains(server, ":") {
				kind = dns.TypeAAAA
			}
			query := new(dns.Msg)
			query.SetQuestion(dns.Fqdn(domain), kind)
			flow.flows.Go(func() {
				_ = within(source, func() error {
					flow.note(askAlways(ctx, protocol, netip.AddrPortFrom(netip.MustParseAddr(server), 53), query))
					return nil
				})
			})
		}
	}
	s.flowing[name] = flow
}

// askAlways asks one query after the other, each from a port of its own.
func askAlways(ctx context.Context, protocol string, server netip.AddrPort, query *dns.Msg) result {
	r := result{name: fmt.Sprintf("%s to %s", protocol, server), tcp: true}
	var failures []string
	for ctx.Err() == nil {
		began := time.Now()
		r.sent++
		if err := askOnce(protocol, server, query); err != nil {
			r.lost++
			failures = append(failures, fmt.Sprintf("%s: %v", began.Format("05.000"), err))
			if again := askOnce(protocol, server, query); again != nil {
				r.broken = errors.Join(r.broken, fmt.Errorf("%s: asked twice: %w, and %w", began.Format("05.000"), err, again))
			}
		}
		r.gap = max(r.gap, time.Since(began))
		pause(ctx, queryPause)
	}
	if len(failures) > 0 {
		r.detail = fmt.Sprintf(" (%q)", failures[:min(5, len(failures))])
	}
	return r
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
