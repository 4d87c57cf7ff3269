package dns

import (
	"net/netip"
	"sync/atomic"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/dns"
)

// Served is all that a Server answers from, at one moment. It is immutable.
type Served struct {
	// Zone holds the names of the cluster; nil: it is not known, and everything is
	// answered with SERVFAIL.
	Zone *dns.Zone
	// Old says that names may have come since that the zone lacks: it was saved
	// before the node booted. What it lacks is answered with SERVFAIL then, which
	// nobody remembers as NXDOMAIN is.
	Old bool
	// Revision of the agent's snapshot that the zone was made of. TXT of
	// HealthName tells it.
	Revision uint64
	// Clients are who may ask. To others there is no answer at all, so that
	// nobody is sent what they did not ask for.
	Clients *Ranges
	// Complete makes the first query of a pod's search have the answer of the last,
	// where Search is the node's own path, behind that of the cluster.
	Complete bool
	Search   []dns.Name
	// Log takes in one of so many queries by chance, and those that fail; nil: none.
	Log      *QueryLog
	LogOneIn uint32
	// Domains are the names whose addresses the Gate is told before a client is.
	Domains *Domains
	// Pods of this node, by address.
	Pods model.Map[netip.Addr, *Client]
}

// Client is who asks, as far as the Server tells clients apart: a pod of this
// node, or all others. Its counters grow for ever.
type Client struct {
	Namespace, Name string // of the pod; empty: of no pod of this node

	Connections atomic.Uint64 // of TCP, that it has opened

	Queries  atomic.Uint64 // that were answered, one way or another
	Outside  atomic.Uint64 // of those, for names that somebody else was asked for, now or before
	Refused  atomic.Uint64 // what was not asked elsewhere, because too much of the client's was under way
	Negative atomic.Uint64 // answered with NXDOMAIN
	Bytes    atomic.Uint64 // of queries and answers, as messages
}

// client is who has an address: a pod of this node, or all others.
func (s *Served) client(addr netip.Addr, others *Client) *Client {
	if client, ok := s.Pods.Get(addr); ok {
		return client
	}
	return others
}

// allows tells whether a client may ask.
func (s *Served) allows(client netip.Addr) bool {
	if _, ok := s.Pods.Get(client); ok {
		return true
	}
	return s.Clients.Contains(client)
}
