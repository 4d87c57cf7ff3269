package routing

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// external asks a URL whether requests may pass. It is asked on the goroutine of
// the client, who waits.
type external struct {
	*plan.ExternalAuth
	client *http.Client

	mu    sync.Mutex
	known map[[sha256.Size]byte]*opinion // by the route and CacheKey
}

// opinion is what was answered. It is immutable.
type opinion struct {
	status int
	header http.Header
	until  time.Time
}

const (
	mostOpinions = 4096
	askTime      = 30 * time.Second
)

func newExternal(of *plan.ExternalAuth, here bool) *external {
	dialer := &net.Dialer{ControlContext: gateway.Elsewhere}
	if here {
		dialer.ControlContext = nil
	}
	return &external{ExternalAuth: of, known: map[[sha256.Size]byte]*opinion{}, client: &http.Client{
		Timeout:       askTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true},
	}}
}

// admit returns the answer to who may not; nil: he may.
func (e *external) admit(r *route, ask *gateway.Request) *gateway.Route {
	said, err := e.opinion(r, ask)
	if err != nil {
		return refused(http.StatusInternalServerError, "who decides about requests cannot be asked")
	}
	ask.State = said
	switch {
	case said.status >= 200 && said.status < 300:
		return nil
	case said.status == http.StatusUnauthorized && e.SignIn != nil:
		no := moved(http.StatusFound, func(into []byte, ask *gateway.Request) []byte { return e.appendSignIn(into, r, ask) })
		no.Answer.Fields = cookies(said)
		return no
	case said.status == http.StatusUnauthorized || said.status == http.StatusForbidden:
		no := refused(said.status, "who decides about requests does not let this one pass")
		for _, value := range said.header.Values("Www-Authenticate") {
			no.Answer.Fields = append(no.Answer.Fields, gateway.Field{Name: "WWW-Authenticate", Value: value})
		}
		no.Answer.Fields = append(no.Answer.Fields, cookies(said)...)
		return no
	}
	return refused(http.StatusInternalServerError, fmt.Sprintf("who decides about requests answered with status %d", said.status))
}

func cookies(said *opinion) (all []gateway.Field) {
	for _, value := range said.header.Values("Set-Cookie") {
		all = append(all, gateway.Field{Name: "Set-Cookie", Value: value})
	}
	return all
}

// opinion asks, or remembers.
func (e *external) opinion(r *route, ask *gateway.Request) (*opinion, error) {
	if e.CacheKey == nil {
		return e.ask(r, ask)
	}
	now := time.Now()
	key := sha256.Sum256(e.CacheKey.Expand(fmt.Appendf(nil, "%q %s %q ", r.Host, r.Match.Type, r.Match.Path), r.value(ask)))
	e.mu.Lock()
	said := e.known[key]
	e.mu.Unlock()
	if said != nil && now.Before(said.until) {
		return said, nil
	}
	said, err := e.ask(r, ask)
	if err != nil {
		return nil, err
	}
	private := said.header.Get("Set-Cookie") != "" || slices.ContainsFunc(strings.Split(said.header.Get("Cache-Control"), ","), func(word string) bool {
		word = strings.ToLower(strings.TrimSpace(word))
		return word == "no-store" || word == "no-cache" || word == "private"
	})
	if said.until = now.Add(e.keeps(said.status)); said.until.After(now) && !private {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.known) >= mostOpinions {
			clear(e.known)
		}
		e.known[key] = said
	}
	return said, nil
}

// keeps is for how long an answer is remembered.
func (e *external) keeps(status int) time.Duration {
	if len(e.CacheTimes) == 0 {
		e := plan.CacheTime{For: 5 * time.Minute}
		return e.Of(status)
	}
	for i := range e.CacheTimes {
		if kept := e.CacheTimes[i].Of(status); kept > 0 {
			return kept
		}
	}
	return 0
}

func (e *external) ask(r *route, ask *gateway.Request) (*opinion, error) {
	method := e.Method
	if method == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequest(method, string(e.URL.Expand(nil, r.value(ask))), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask about a request: %w", err)
	}
	for i := range ask.Fields() {
		f := &ask.Fields()[i]
		name := string(ask.Name(f))
		if !f.Hop && !f.Underscore && !isProof(name) && (ask.Trusted || !claims(f.Known)) && !slices.ContainsFunc(notPassed, func(other string) bool { return strings.EqualFold(other, name) }) {
			request.Header.Add(name, string(ask.Value(f)))
		}
	}
	for i := range r.taken.Request.Set { // of the client's certificate, as the backend is told
		if f := &r.taken.Request.Set[i]; isProof(f.Name) && f.Expand != nil {
			request.Header.Set(f.Name, string(f.Expand(nil, ask)))
		}
	}
	target := string(appendTarget(nil, ask))
	back := target
	if e.Redirect != nil {
		back = string(e.Redirect.Expand(nil, r.value(ask)))
	}
	for _, f := range [][2]string{
		{"X-Original-URL", string(appendOrigin(nil, ask)) + target}, {"X-Original-Method", string(ask.Method)},
		{"X-Real-IP", ask.Client.String()}, {"X-Forwarded-For", ask.Client.String()}, {"X-Forwarded-Host", string(ask.Host)},
		{"X-Forwarded-Proto", scheme(ask)}, {"X-Forwarded-Uri", target}, {"X-Forwarded-Method", string(ask.Method)},
		{"X-Auth-Request-Redirect", back},
	} {
		request.Header.Set(f[0], f[1])
	}
	response, err := e.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask about a request: %w", err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection is kept
	return &opinion{status: response.StatusCode, header: response.Header}, nil
}

// claims tells whether a field is one by which a proxy says who its client is and
// what he has asked for. Whoever decides would believe anybody.
func claims(known http1.Known) bool {
	switch known {
	case http1.Forwarded, http1.XForwarded, http1.XForwardedFor, http1.XForwardedHost, http1.XForwardedPort, http1.XForwardedProto, http1.XOriginal, http1.XRealIP:
		return true
	}
	return false
}

// notPassed are fields of a request that whoever is asked gets none or others of.
var notPassed = []string{"Host", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Expect", "Forwarded", "Range", "If-Range"}

// appendSignIn appends where a client goes to say who he is, with where he came
// from.
func (e *external) appendSignIn(into []byte, r *route, ask *gateway.Request) []byte {
	to := string(e.SignIn.Expand(nil, r.value(ask)))
	into = append(into, to...)
	parsed, err := url.Parse(to)
	if err != nil || parsed.Query().Has(e.SignInParameter) {
		return into
	}
	separator := byte('?')
	if parsed.RawQuery != "" {
		separator = '&'
	}
	into = append(append(append(into, separator), e.SignInParameter...), '=')
	return append(into, url.QueryEscape(string(appendTarget(appendOrigin(nil, ask), ask)))...)
}

// requestFields are what the answer adds to the request, in the place of what the
// client may have sent of these names.
func (e *external) requestFields() (all []gateway.Field) {
	for _, name := range e.ResponseHeaders {
		all = append(all, gateway.Field{Name: name, Expand: func(into []byte, ask *gateway.Request) []byte {
			said, _ := ask.State.(*opinion)
			if said == nil {
				return into
			}
			return append(into, strings.Join(said.header.Values(name), ", ")...)
		}})
	}
	return all
}

// cookie is what the answer adds to the response: if it is a good one, or always.
func (e *external) cookie() gateway.Field {
	return gateway.Field{Name: "Set-Cookie", Fine: !e.AlwaysSetCookie, Expand: func(into []byte, ask *gateway.Request) []byte {
		if said, _ := ask.State.(*opinion); said != nil {
			return append(into, said.header.Get("Set-Cookie")...)
		}
		return into
	}}
}
