package gateway

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"
	"unique"

	"github.com/fairlead-net/fairlead/model"
)

// Table is all that becomes of requests. It is immutable.
type Table struct {
	// Hosts are by name: www.example.org; *.example.org, for all names with one
	// label more; and empty, for all others.
	Hosts model.Map[string, *Host]

	// What the next one is made from.
	options   model.IngressOptions
	ingresses model.Map[model.IngressKey, *model.HTTPIngress]
	classes   model.Map[string, *model.IngressClass]
	services  model.Map[model.ServiceKey, *model.Service]
	names     model.Map[model.ServiceKey, *model.Name]
	drafts    model.Map[model.IngressKey, *draft] // of those that are served here
	claims    model.Map[string, *claims]          // by host
	shared    model.Map[string, shared]           // by what the annotations say
	users     model.Map[model.ServiceKey, *users]
	secrets   model.Map[SecretKey, int]           // see Secrets
	wrong     model.Map[model.IngressKey, *wrong] // what is wrong with their backends
	problems  []model.Problem                     // sorted
}

// Host is what becomes of requests to one name.
type Host struct {
	Name string
	// Routes are those of the host, in the order in which they are tried.
	Routes []*Route
	// Default takes what none of them does; nil: the one of host "", or nobody.
	Default *Route
	// TLS says that an Ingress wants the host to have a certificate.
	TLS bool
	// Certificates of TLS, the one of the oldest Ingress first. Empty: the default
	// certificate.
	Certificates []SecretKey
	// Asked is the certificate that is ordered for the host, which is among Certificates
	// behind those that its own Ingresses name; nil: none is.
	Asked *Asked
	// Passthrough is who ends TLS itself, and sees all connections to the host; nil:
	// Fairlead ends it.
	Passthrough *Backend
	// ClientCert is what clients show, whatever they ask the host for: that of the oldest
	// Ingress which wants one. nil: nothing.
	ClientCert *ClientCert
	// AppRoot is where requests to / are sent, whoever's they are; empty: nowhere.
	AppRoot string
	// Redirect is another name of the host that requests are sent to (from-to-www);
	// empty: they are served.
	Redirect string

	asks     *draft // the Ingress for which a certificate is ordered
	absent   bool   // nobody but canaries has a say in it
	index    *index
	problems []model.Problem
}

// SecretKey names a Secret. Who serves the table reads it; the plan never does.
type SecretKey = model.SecretKey

// Route leads the requests that one path of an Ingress matches.
type Route struct {
	Host  string
	Match Match
	// From is the Ingress that says so, and Field where in it.
	From  model.IngressKey
	Field string

	Backend  Backend
	Canaries []*Canary // tried in their order, before Backend
	Policy   *Policy   // of all routes of the Ingress
	rank     int       // of the Ingress among those of the host, by age
}

// Match is which paths are meant.
type Match struct {
	Type MatchType
	Path string
	// Expression is that of MatchRegex.
	Expression *regexp.Regexp
	literal    string // which every path begins with that the expression matches, in lower case
}

// MatchType is how a path is compared.
type MatchType uint8

// The types.
const (
	MatchExact  MatchType = iota
	MatchPrefix           // by elements: /a matches /a and /a/b, not /ab
	MatchText             // by bytes: /a matches /ab, too
	MatchRegex            // RE2, without regard to case, from the beginning of the path
)

func (t MatchType) String() string { return [...]string{"Exact", "Prefix", "Text", "Regex"}[t] }

// Backend is a port of a Service.
type Backend struct {
	Service model.ServiceKey
	Port    uint16 // 0: PortName says it
	Name    string
}

// Canary takes some of the requests of a Route.
type Canary struct {
	Backend Backend
	From    model.IngressKey
	Header  string // of requests that choose; empty: none
	// Value is the value of Header that chooses the canary, and Pattern an expression
	// for it. Without both, "always" chooses it, and "never" the other.
	Value   string
	Pattern *regexp.Regexp
	Cookie  string // likewise, with "always" and "never"
	// Weight of Total requests that did not choose.
	Weight, Total int
}

// Policy is what is done to requests. The zero value of a field does nothing,
// unless it says otherwise.
type Policy struct {
	// Closed is why the routes refuse all requests with status 503; empty: they do
	// not.
	Closed string

	// Before anything else, in this order.
	ForceHTTPS    bool // requests of HTTP are sent to HTTPS, whether the host has a certificate or not
	RedirectHTTPS bool // those to hosts with one
	Redirect      *Redirect
	AppRoot       string // where requests to / of its hosts are sent
	Allow, Deny   []netip.Prefix
	Limits        Limits
	CORS          *CORS
	BasicAuth     *BasicAuth
	ExternalAuth  *ExternalAuth
	AnyAuth       bool // one of Allow and the two suffices
	ClientCert    *ClientCert
	MaxBody       int64 // bytes; 0: any

	// On the way to the backend.
	Mirror          *Mirror
	Rewrite         string // a path, with $1 for what Regex found, or a URL, which clients are sent to; empty: as it is
	Host            *Template
	Prefix          string // X-Forwarded-Prefix
	RequestHeaders  []HeaderEdit
	ResponseHeaders []HeaderEdit
	Protocol        Protocol
	BackendTLS      *BackendTLS
	Connect         time.Duration
	Send, Read      time.Duration // without progress
	Retry           Retry
	Affinity        *Affinity
	HashBy          *Template
	OneAddress      bool                       // the Service's own address is called, not its endpoints
	Check           unique.Handle[HealthCheck] // zero: endpoints are not asked

	// On the way back.
	ErrorCodes   []int    // of responses that ErrorBackend answers instead
	ErrorBackend *Backend // nil: nobody
	CookieDomain []Rename
	CookiePath   []Rename
	RedirectFrom *Template // of Location the beginning, which RedirectTo replaces; nil: none
	RedirectTo   *Template
	NoLog        bool
}

// Redirect answers with another URL.
type Redirect struct {
	To   *Template
	Code int
}

// Mirror sends a copy of requests elsewhere, and forgets the answers.
type Mirror struct {
	To     *Template
	Host   string
	NoBody bool
}

// Limits of one client address. 0: none.
type Limits struct {
	PerSecond, PerMinute, Connections int
	Burst                             int // times the rate
	Exempt                            []netip.Prefix
	ResponseRate, ResponseRateAfter   int64 // bytes a second, and bytes before that
}

// CORS answers what browsers ask before they call another origin.
type CORS struct {
	Origins          []string // * among them: all; https://*.example.org: those
	Methods, Headers string
	Expose           string
	NoCredentials    bool
	MaxAge           int // seconds
}

// BasicAuth asks for a name and a password (RFC 7617).
type BasicAuth struct {
	Secret SecretKey
	// ByKey says that each key of the Secret is a user. Else its key auth is a file of
	// htpasswd.
	ByKey bool
	Realm string
}

// ExternalAuth asks a URL whether a request may pass.
type ExternalAuth struct {
	URL             *Template
	Method          string
	SignIn          *Template // where who may not is sent; nil: nowhere
	SignInParameter string    // of that URL, which says where the request came from
	ResponseHeaders []string  // of the answer, for the backend
	Redirect        *Template // X-Auth-Request-Redirect, which it is told; nil: the URL of the request
	CacheKey        *Template // requests with the same are answered alike; nil: nothing is kept
	CacheTimes      []CacheTime
	AlwaysSetCookie bool
}

// CacheTime is for how long an answer of some statuses is kept; without Codes: of
// 200, 202 and 401.
type CacheTime struct {
	Codes []int
	For   time.Duration
}

// Of is for how long an answer of a status is kept.
func (c *CacheTime) Of(status int) time.Duration {
	if slices.Contains(c.Codes, status) || len(c.Codes) == 0 && (status == 200 || status == 202 || status == 401) {
		return c.For
	}
	return 0
}

// ClientCert asks clients for a certificate.
type ClientCert struct {
	CA        SecretKey
	Verify    string // on, off, optional, optional_no_ca
	Depth     int
	Pass      bool      // to the backend, as header ssl-client-cert
	ErrorPage *Template // where who has none is sent; nil: nowhere
	Subject   *regexp.Regexp
}

func (c *ClientCert) equal(other *ClientCert) bool {
	a, b := *c, *other
	a.Subject, b.Subject, a.ErrorPage, b.ErrorPage = nil, nil, nil, nil
	return a == b && c.ErrorPage.String() == other.ErrorPage.String() && fmt.Sprint(c.Subject) == fmt.Sprint(other.Subject)
}

// BackendTLS is how a backend of HTTPS or GRPCS is trusted.
type BackendTLS struct {
	Secret     SecretKey // with tls.crt, tls.key, ca.crt; empty: none
	Verify     bool
	Depth      int
	ServerName bool   // is sent
	Name       string // is wanted, and sent; empty: the host of the request
}

// Retry says when another endpoint is tried.
type Retry struct {
	On    []string // error, timeout, http_502 …, non_idempotent
	Tries int      // 0: as many as there are endpoints
	Time  time.Duration
}

// Affinity keeps a client at its endpoint, by a cookie.
type Affinity struct {
	Cookie, Path, Domain, SameSite string
	MaxAge, Expires                int // seconds; 0: of the session
	Secure                         bool
	Persistent                     bool // also when endpoints are added
	ChangeOnFailure                bool
	NoCanary                       bool // a canary does not keep who it has
}

// HeaderEdit sets a header, or adds or removes it.
type HeaderEdit struct {
	Name   string
	Value  *Template // nil: it is removed
	Add    bool
	Always bool // of responses: whatever their status is
}

// Rename replaces one text by another.
type Rename struct{ From, To string }

// Protocol is what a backend speaks.
type Protocol uint8

// The protocols.
const (
	HTTP Protocol = iota
	HTTPS
	GRPC // HTTP/2 without TLS
	GRPCS
)

func (p Protocol) String() string { return [...]string{"HTTP", "HTTPS", "GRPC", "GRPCS"}[p] }
