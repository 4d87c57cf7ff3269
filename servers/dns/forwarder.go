package dns

import (
	"context"
	"net/netip"

	"github.com/fairlead-net/fairlead/plan/dns"
)

// Forwarder knows the names that are not of the cluster. It is called from many
// goroutines at once, for one question each. Which question a client may ask, how
// many at a time, and what it takes of the answer (its size, EDNS, the letters of
// the name as the client wrote them) is the Server's concern.
//
// An answer is a whole message (RFC 1035, section 4.1), at most 65535 bytes, in
// response to the question as it is in Question:
//
//   - its identifier is 0, its flags are QR, RA, the rcode and, if they are
//     deserved, AD and TC; the Server adds the identifier, RD and CD;
//   - it has one question, whose name is not compressed, and is Question.Name;
//   - it has no OPT record. An rcode that would need one is SERVFAIL.
//
// TTLs are what is left of them.
type Forwarder interface {
	// Cached appends the answer to into, if it is known without asking anybody.
	// Else it returns into as it is, and false. It does not block, keeps neither
	// argument, and should not allocate: it is called in the loop that reads
	// queries.
	Cached(q Question, into []byte) ([]byte, bool)

	// Answer appends the answer to into, and blocks until there is one, or until
	// the context ends, which is some seconds later at most. It may keep q, and not
	// into. A failure is answered with SERVFAIL; it is the Forwarder's to tell why
	// in metrics and logs, and no answer, NXDOMAIN for instance, is a failure.
	Answer(ctx context.Context, q Question, into []byte) ([]byte, error)
}

// Question is what a client wants to know.
type Question struct {
	Name   dns.Name // in lower case. Given to Cached, it is valid only during the call
	Type   uint16   // RFC 1035, section 3.2.2; never ANY, AXFR, IXFR or OPT
	Class  uint16   // IN, mostly
	DNSSEC bool     // signatures are asked for (DO, RFC 3225)
	// CheckingDisabled says that the client validates itself (CD, RFC 4035,
	// section 3.2.2).
	CheckingDisabled bool
	Client           netip.Addr // who asks: a pod's address or the node's
	TCP              bool       // it asks by TCP; for logs alone
	// Source is told who has given the answer; nil: nobody wants to know.
	Source *Source
}

// Source is who has given an answer.
type Source struct {
	By       By
	Upstream string // that has given it, now or once; may be empty
	Zone     string // the stub domain that it is asked about; empty: all names
}

// By is what sort of who has given an answer.
type By string

// Who gives answers.
const (
	ByCluster  By = "cluster"  // the names of the cluster
	ByCache    By = "cache"    // an upstream, before
	ByStale    By = "stale"    // the same, though the answer has ended
	ByUpstream By = "upstream" // an upstream, now
	ByServer   By = "server"   // the server itself: a name that means the same everywhere, or a refusal
	ByNobody   By = "nobody"   // who was asked has not answered
)
