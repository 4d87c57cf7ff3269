package dns

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-net/fairlead/plan/dns"
)

// message writes the answer to a message into a buffer. It returns nil if there
// is none: for ever, or, if waits is set, until somebody was asked.
func (a *answering) message(served *Served, message []byte, from asker, into []byte) []byte {
	a.waits, a.abroad = false, false
	fate, code := a.q.read(message)
	if fate == ignore {
		a.counts.ignored.Add(1)
		return nil
	}
	limit := a.q.size
	if from.tcp {
		limit = maxMessage
	}
	a.served, a.from, a.completed, a.turned = served, from, false, false
	a.client = a.others
	if client, ok := served.Pods.Get(from.addr); ok {
		a.client = client
	}
	a.r.begin(a.q, into, limit)
	if fate == refuse {
		a.class, a.r.rcode = ofOutside, code
	} else if !a.resolve() || a.held() {
		a.waits = true
		return nil
	}
	reply := a.r.finish()
	a.counts.tally(a, reply)
	return reply
}

// askTime is how long a client waits for an answer from elsewhere at most. Its
// own patience is 5 seconds, mostly.
const askTime = 6 * time.Second

// slow answers a message for which others have to be asked, in a goroutine that
// is counted in running. The client has entered pending. It keeps the message.
func (s *Server) slow(ctx context.Context, running *sync.WaitGroup, message []byte, from asker, send func(reply []byte)) {
	answer := answering{q: &query{}, r: &reply{}, others: &s.others, counts: &s.counts, random: rand.Uint32() | 1, gate: s.gate}
	served, began := s.served.Load(), time.Now()
	running.Go(func() {
		defer s.pending.leave(from.addr)
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		source := served.Log.source()
		answer.outside, answer.wait = crediting{inquiry{s.forward, ctx}, source}, ctx
		if reply := answer.message(served, message, from, nil); reply != nil {
			send(reply)
			s.counts.took(answer.class, 1, time.Since(began))
			served.Log.take(&answer, began, source)
			s.watched.see(&answer, began)
		}
	})
}

func cloneName(name dns.Name) dns.Name { return dns.Name(strings.Clone(string(name))) }

// addressOf is the address in a TCP connection's.
func addressOf(addr netip.AddrPort) netip.Addr { return addr.Addr().Unmap().WithZone("") }
