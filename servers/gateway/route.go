package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unique"

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
	// Asks finds, for a name of TLS, the authorities whose certificates clients are asked
	// for; nil: for none. Whether what they show suffices is for the Router to say.
	Asks func(name string) *x509.CertPool
	// Checked are the backends that have a Check.
	Checked []*Backend
	// Passes finds, for a name of TLS, the backend that speaks TLS with clients itself;
	// nil: this server does. If Passes is nil, it always does.
	Passes func(name string) *Backend
}

// Peer is who is at the other end of a connection of TLS, by the certificates that
// were shown, the one of the peer itself first. Nothing of them is verified but that
// the peer has its key.
type Peer struct {
	Certificates []*x509.Certificate
	// Known is what routers have found out about them, by keys of theirs.
	Known sync.Map
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
	Peer       *Peer      // of TLS; nil: the connection is without

	// Prefer is for a router to name the endpoint that is tried first: its place in
	// the backend, counted from 1; 0: any.
	Prefer int
	// Mark and State are the router's own, for what it appends to heads later on.
	Mark  uint64
	State any
	// Also are fields of whatever is answered, in the place of others of their names.
	Also []Field
	// Moved is the endpoint that answers though another one was preferred, or nothing.
	Moved netip.AddrPort
	// Ended is for a router to hear that the request has ended, however it did; nil: it
	// need not.
	Ended func()
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
	Rate     Rate // of the answer's body
	Mirror   *Mirror
	// Instead answers in the place of a backend whose answer has one of some statuses;
	// nil: nobody does.
	Instead *Instead
	// Method replaces that of the request, but for HEAD; then it has no body. Empty:
	// it is the client's.
	Method string
	// Retry says when another endpoint is asked. nil: DefaultRetry does.
	Retry *Retry
}

// Retry says when another endpoint is asked than the first. None is once an answer
// has begun, nor if a part of the request's body is gone. One that may have been
// acted on, and does harm twice (RFC 9110, section 9.2.2), is only with Unsafe.
type Retry struct {
	Tries    int           // endpoints that are asked at most; 0: all
	Time     time.Duration // after which no other one is asked; 0: there is always time
	Error    bool          // one cannot be reached, or ends the connection without an answer
	Timeout  bool          // one does not take the connection, or does not answer, in time
	Invalid  bool          // one answers what is no HTTP
	Statuses []int         // one answers with one of them, and is not the last
	Unsafe   bool
}

// DefaultRetry is that of ingress-nginx.
func DefaultRetry() *Retry { return &Retry{Tries: 3, Error: true, Timeout: true} }

var defaultRetry = DefaultRetry()

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
	// Fine leaves it out of answers whose status says that something is wrong, as nginx
	// does: all but 200, 201, 204, 206, 301 to 304, 307 and 308.
	Fine bool
}

// with tells whether an answer of a status has the field.
func (f *Field) with(status int) bool {
	if !f.Fine {
		return true
	}
	switch status {
	case 200, 201, 204, 206, 301, 302, 303, 304, 307, 308:
		return true
	}
	return false
}

// Edits change the fields of a head: those to remove, of which the last byte may be a
// * for all that begin so, and to set go, then those to set and to add come. The fields that say how long a body is, Host and Connection
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

// size is how many endpoints there are.
func (b *Backend) size() int {
	if b.Name != "" {
		return len(b.Endpoints) + 1
	}
	return len(b.Endpoints)
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
	// Name is one more endpoint, by a name of DNS with its port. It is resolved for each
	// connection, and never leads to this machine or its link. Empty: there is none.
	Name    string
	Balance Balance
	// TLS is how its endpoints are spoken to; nil: without it. Who has another one has
	// other connections.
	TLS   *tls.Config
	HTTP2 bool // they speak HTTP/2, and nothing else
	// Check is what its endpoints are asked again and again, if the table names the
	// backend among Checked. Who has another one knows nothing of what was answered. The
	// zero one: nothing.
	Check unique.Handle[Check]

	next  atomic.Uint32
	bound atomic.Pointer[[]*endpoint]
}
