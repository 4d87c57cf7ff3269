package gateway

import "sync/atomic"

// counts are what the clients of one core have caused, so that no two cores write
// to the same memory.
type counts struct {
	requests  [6]atomic.Uint64 // by the first digit of the status; 0: without an answer
	accepted  atomic.Uint64
	retries   atomic.Uint64
	dials     atomic.Uint64
	unreached atomic.Uint64 // connections to endpoints that failed
	upgrades  atomic.Uint64
	quic      atomic.Uint64 // of accepted, those of HTTP/3
	nameless  atomic.Uint64 // connections without the introduction that they should begin with
	_         [64]byte
}

// Counts are what a server has done since it was made.
type Counts struct {
	Clients   int64     // connections now
	Waiting   int64     // of those, the ones that have no request under way
	Accepted  uint64    // connections that were served
	Refused   uint64    // connections beyond Settings.Clients
	Requests  [6]uint64 // by the first digit of the status; 0: the client was gone before an answer
	Retries   uint64    // requests that were sent to an endpoint once more
	Dials     uint64    // connections to endpoints
	Unreached uint64    // those that failed
	Nameless  uint64    // connections of load balancers that did not say who the client is, and should have
	HTTP3     uint64    // of Accepted, those of HTTP/3
	Checks    uint64    // questions to endpoints how they are
	Ailing    uint64    // of those, the ones that were not answered as they should be
	Checked   int64     // endpoints that are asked
	Sick      int64     // of those, the ones that are left out
	Upgrades  uint64    // connections that became something else, such as WebSockets
}

// Counts adds up those of all cores.
func (s *Server) Counts() Counts {
	all := Counts{Clients: s.clients.Load(), Refused: s.refused.Load(), Waiting: s.watch.waiting() + s.quic.waiting()}
	all.Checks, all.Ailing, all.Checked, all.Sick = s.checkups.asked.Load(), s.checkups.ailing.Load(), s.checkups.checked.Load(), s.checkups.sick.Load()
	for i := range s.counts {
		c := &s.counts[i]
		for status := range c.requests {
			all.Requests[status] += c.requests[status].Load()
		}
		all.Accepted += c.accepted.Load()
		all.Retries += c.retries.Load()
		all.Dials += c.dials.Load()
		all.Unreached += c.unreached.Load()
		all.HTTP3 += c.quic.Load()
		all.Nameless += c.nameless.Load()
		all.Upgrades += c.upgrades.Load()
	}
	return all
}
