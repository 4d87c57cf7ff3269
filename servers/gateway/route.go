package gateway

import (
	"crypto/tls"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// Table is all that a Server goes by. It does not change once it is served; who
// wants a change serves another one, in which it may share all that stays.
type Table struct {
	Router Router
	// Trusted are proxies whose word on clients is taken: X-Forwarded-*, X-Real-IP.
	// Of others it is replaced.
	Trusted []netip.Prefix
	// Introduced are load balancers that begin each connection with the PROXY protocol,
	// which says who the client is. It is read from nobody else; one of these that
	// does not is not served.
	Introduced []netip.Prefix
	// Compress, if not nil, says which answers are compressed.
	Compress *Compression
	// Certificate finds that of a name, for the listeners that are Secure. nil:
	// there is none, and handshakes fail.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// Router says what becomes of requests. Many goroutines ask it at once.
type Router interface {
	// Route returns nil if there is no route: the answer is 404. It must not keep
	// the request, nor what is in it: all of that is overwritten by the next one. A
	// route without an answer and without a backend is answered with 503.
	Route(*Request) (*Route, *Backend)
}

// Request is one, as routers see it.
type Request struct {
	*http1.Request
	Client     netip.Addr // who asks; of a trusted proxy, who it says
	Trusted    bool       // Remote is a trusted proxy: what it says of its client holds
	Remote     netip.Addr // whose connection it is
	Port       uint16     // that it came to
	Secure     bool       // by TLS
	ServerName string     // of TLS

	// Prefer is for a router to name the endpoint that is tried first: its place in
	// the backend, counted from 1; 0: any.
	Prefer int
	// Mark and State are the router's own, for what it appends to heads later on.
	Mark  uint64
	State any
	// Meter is for a router to name what counts the request, and Quiet to keep it out
	// of the access log.
	Meter *Meter
	Quiet bool
	// Status is that of the answer which another backend is asked instead of.
	Status int
}

// Route is what becomes of the requests of one rule. It does not change, and many
// tables may share it.
type Route struct {
	Answer   *Answer // nil: a backend is asked
	Request  Edits   // of what the backend sees
	Response Edits   // of what the client sees
	// Host appends what replaces that which the backend sees. nil: it is the
	// client's.
	Host func(into []byte, r *Request) []byte
	// Rewrite appends the path, and the query with its question mark, that the
	// backend sees. nil: those of the request.
	Rewrite func(into []byte, r *Request) []byte
	// MaxBody is how long the body of a request may be, in bytes. 0: any.
	MaxBody  int64
	Timeouts Timeouts
	// Instead answers in the place of a backend whose answer has one of some statuses;
	// nil: nobody does.
	Instead *Instead
	// Method replaces that of the request, but for HEAD; then it has no body. Empty:
	// it is the client's.
	Method string
	// OwnName refuses, with 421, who came to another name of TLS than the host that
	// is asked for: what the handshake has proved was for that name.
	OwnName bool
	// Tries is how many endpoints a request is offered at most, if it may be. 0: 3.
	Tries int
}

// Instead is another backend, which is asked when one has answered with some status.
type Instead struct {
	Codes   []int
	Route   *Route // has none itself
	Backend *Backend
}

// Timeouts bound waiting. What is 0 has the value of DefaultTimeouts.
type Timeouts struct {
	Connect  time.Duration // to an endpoint
	Response time.Duration // for the first byte, and between two pieces of the body
	Send     time.Duration // for an endpoint to take what is sent
}

// DefaultTimeouts are those of ingress-nginx.
func DefaultTimeouts() Timeouts {
	return Timeouts{Connect: 5 * time.Second, Response: time.Minute, Send: time.Minute}
}

func (t Timeouts) or(other Timeouts) Timeouts {
	if t.Connect == 0 {
		t.Connect = other.Connect
	}
	if t.Response == 0 {
		t.Response = other.Response
	}
	if t.Send == 0 {
		t.Send = other.Send
	}
	return t
}

// Answer is one that needs no backend.
type Answer struct {
	Status int
	Fields []Field
	Body   []byte // text/plain unless Fields say otherwise
	// Location appends the value of a field of that name. nil: there is none.
	Location func(into []byte, r *Request) []byte
}

// Field is one of a head.
type Field struct {
	Name, Value string
	// Expand appends the value; without one, or with one that is no value, there is
	// no such field. nil: it is Value.
	Expand func(into []byte, r *Request) []byte
}

// Edits change the fields of a head: those to remove and to set go, then those to
// set and to add come. The fields that say how long a body is, Host and Connection
// cannot be changed so.
type Edits struct {
	Remove []string
	Set    []Field
	Add    []Field
	Change []Change // of those that stay
}

// Change appends another value for those of a field.
type Change struct {
	Name string
	To   func(into, value []byte, r *Request) []byte
}

func (e *Edits) empty() bool {
	return len(e.Remove) == 0 && len(e.Set) == 0 && len(e.Add) == 0 && len(e.Change) == 0
}

// Balance is how an endpoint is chosen.
type Balance uint8

// The ways.
const (
	RoundRobin Balance = iota
	LeastRequests
)

// Backend is a set of endpoints that are alike. What is exported does not change;
// a table that has the same backend may share it, so that it goes on where it was.
type Backend struct {
	Endpoints []netip.AddrPort
	Balance   Balance

	next  atomic.Uint32
	bound atomic.Pointer[[]*endpoint]
}
