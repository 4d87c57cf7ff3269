package ingress

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"unique"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/gateway"
)

// Explanation is what becomes of a request for a URL. It only grows.
type Explanation struct {
	URL     string `json:"url"`
	Host    string `json:"host"`              // whose rules it is judged by: a name, *.NAME, or * for all others
	Rule    string `json:"rule,omitempty"`    // the path and its type; empty: none takes it
	Ingress string `json:"ingress,omitempty"` // NAMESPACE/NAME, and the field
	// Certificates are where those of the host are, the first that is good is served.
	Certificates []Certificate `json:"certificates,omitempty"`
	Steps        []string      `json:"steps,omitempty"`  // what is done, in this order
	Answer       string        `json:"answer,omitempty"` // what the client gets without any backend being called
	Backend      string        `json:"backend,omitempty"`
	// Ready of Endpoints take requests.
	Ready     int      `json:"ready"`
	Endpoints int      `json:"endpoints"`
	Canaries  []string `json:"canaries,omitempty"`
	Passed    []string `json:"passed,omitempty"` // rules that were looked at, and do not take it
}

// Certificate is where one is.
type Certificate struct {
	Default bool   `json:"default,omitempty"` // that of hosts without one of their own
	Secret  string `json:"secret,omitempty"`  // NAMESPACE/NAME
	Ordered string `json:"ordered,omitempty"` // the Ingress for which it is ordered by ACME; empty: it is not
	Is      string `json:"is,omitempty"`      // what there is; empty: that was not looked at
}

func (c *Certificate) String() string {
	text := "Secret " + c.Secret
	if c.Default {
		text = "the default certificate"
	}
	if c.Ordered != "" {
		text += ", ordered by ACME for Ingress " + c.Ordered
	}
	if c.Is != "" {
		text += ": " + c.Is
	}
	return text
}

// Explain follows a request of GET for a URL.
func Explain(snapshot *model.Snapshot, text string) (*Explanation, error) {
	u, err := parse(text)
	if err != nil {
		return nil, err
	}
	table, _ := compute(snapshot)
	e := &Explanation{URL: u.String()}
	name := strings.ToLower(u.Hostname())
	if net.ParseIP(name) != nil {
		name = ""
	}
	host := table.Find(name)
	if host == nil {
		e.Answer = "404: no Ingress has the host, and none takes what others do not"
		return e, nil
	}
	e.Host = cmp.Or(host.Name, "*")
	if u.Scheme == "https" && host.Passthrough == nil {
		e.certificates(host)
	}
	if host.Redirect != "" {
		e.Answer = fmt.Sprintf("308: to %s://%s%s (from-to-www-redirect)", u.Scheme, host.Redirect, u.RequestURI())
		return e, nil
	}
	if host.Passthrough != nil && u.Scheme == "https" {
		e.Steps, e.Backend = []string{"TLS is passed through, and the path is not seen (ssl-passthrough)"}, host.Passthrough.String()
		e.count(snapshot, *host.Passthrough)
		return e, nil
	}
	path, err := gateway.NormalPath(u.EscapedPath())
	if err != nil {
		e.Answer = "400: " + err.Error()
		return e, nil
	}
	route, slash := table.Route(host, path)
	e.pass(host, route)
	if route == nil && host.AppRoot != "" && path == "/" {
		e.Answer = "302: to " + host.AppRoot + " (app-root)"
		return e, nil
	}
	if route == nil {
		e.Answer = "404: no path of the host takes it, and there is no default backend"
		return e, nil
	}
	e.Rule, e.Ingress = fmt.Sprintf("%s %s", route.Match.Type, route.Match.Path), route.From.String()+" "+route.Field
	if e.Answer = answer(route, host, u, path, slash); e.Answer != "" {
		return e, nil
	}
	e.steps(route, host, path)
	e.Backend = route.Backend.String()
	e.count(snapshot, route.Backend)
	return e, nil
}

// certificates says where those of a host are.
func (e *Explanation) certificates(host *gateway.Host) {
	for _, key := range host.Certificates {
		c := Certificate{Secret: key.String()}
		if host.Asked != nil && key == host.Asked.Secret {
			c.Ordered = host.Asked.Ingress.String()
		}
		e.Certificates = append(e.Certificates, c)
	}
	if len(e.Certificates) == 0 {
		e.Certificates = []Certificate{{Default: true}}
	}
}

// answer is what the client gets without anybody being asked, in the order of the
// engine; empty: nothing.
func answer(route *gateway.Route, host *gateway.Host, u *url.URL, path string, slash bool) string {
	p := route.Policy
	challenged := strings.HasPrefix(path, "/.well-known/acme-challenge/")
	switch {
	case p.Closed != "":
		return "503: " + p.Closed
	case u.Scheme == "http" && (p.ForceHTTPS || p.RedirectHTTPS && host.TLS) && !challenged:
		return fmt.Sprintf("308: to https://%s%s", u.Hostname(), u.RequestURI())
	case u.Scheme == "http" && host.ClientCert != nil && host.ClientCert.Verify == "on" && (p.ClientCert != nil || !challenged):
		return "400: a certificate is wanted, which only connections of TLS have (auth-tls-secret)"
	case host.AppRoot != "" && path == "/":
		return "302: to " + host.AppRoot + " (app-root)"
	case slash:
		return "301: to the same with a slash at the end, which the rule has"
	case p.Redirect != nil:
		return fmt.Sprintf("%d: to %s", p.Redirect.Code, p.Redirect.To)
	case p.Away():
		return "302: to " + route.Rewrite(path) + " (rewrite-target)"
	}
	return ""
}

func parse(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, &Untold{fmt.Sprintf("%q is not a URL of http or https", text), "name one such as https://www.example.org/path"}
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u, nil
}

// pass says which rules come before the one that takes it.
func (e *Explanation) pass(host *gateway.Host, taken *gateway.Route) {
	for _, route := range host.Routes {
		if route == taken {
			return
		}
		e.Passed = append(e.Passed, fmt.Sprintf("%s %s (%s)", route.Match.Type, route.Match.Path, route.From))
	}
}

// steps says what is done to the request, in the order of the engine.
func (e *Explanation) steps(route *gateway.Route, host *gateway.Host, path string) {
	p := route.Policy
	step := func(on bool, format string, args ...any) {
		if on {
			e.Steps = append(e.Steps, fmt.Sprintf(format, args...))
		}
	}
	step(host.ClientCert != nil, "the client shows a certificate (auth-tls-secret)")
	step(p.CORS != nil, "browsers of other origins are answered (enable-cors)")
	l := p.Limits
	step(l.Connections > 0, "a client has %d requests under way", l.Connections)
	step(l.PerSecond > 0, "a client has %d requests a second, and %d at once", l.PerSecond, l.PerSecond*l.Burst)
	step(l.PerMinute > 0, "a client has %d requests a minute, and %d at once", l.PerMinute, l.PerMinute*l.Burst)
	step(len(p.Deny) > 0, "clients of %v may not", p.Deny)
	step(len(p.Allow) > 0, "only clients of %v may call", p.Allow)
	step(p.BasicAuth != nil, "a name and a password are asked for")
	step(p.ExternalAuth != nil, "%s is asked whether it may pass", url0(p.ExternalAuth))
	step(p.AnyAuth, "one of these suffices (satisfy)")
	step(p.MaxBody > 0, "its body has %d bytes at most", p.MaxBody)
	step(p.Mirror != nil, "a copy goes elsewhere")
	if p.Rewrite != "" {
		step(true, "the path becomes %s", route.Rewrite(path))
	}
	step(p.Host != nil, "the backend sees host %s", p.Host)
	step(p.Protocol != gateway.HTTP, "the backend is called by %s", p.Protocol)
	step(p.Affinity != nil, "a cookie keeps the client at its endpoint")
	step(p.HashBy != nil, "%s chooses the endpoint", p.HashBy)
	step(p.OneAddress, "the Service's own address is called (service-upstream)")
	if p.Check != (unique.Handle[gateway.HealthCheck]{}) {
		c := p.Check.Value()
		step(true, "endpoints are asked for %s each %s: who does not answer with %d-%d in %s, %d times in a row, is left out while another one is well", c.Path, c.Interval, c.From, c.To, c.Timeout, c.Unhealthy)
	}
	step(l.ResponseRate > 0, "its answer has %d bytes a second", l.ResponseRate)
	for _, c := range route.Canaries {
		e.Canaries = append(e.Canaries, fmt.Sprintf("%s of %s: %s", c.Backend, c.From, chosenBy(c)))
	}
}

func url0(auth *gateway.ExternalAuth) string {
	if auth == nil {
		return ""
	}
	return auth.URL.String()
}

func chosenBy(c *gateway.Canary) string {
	var by []string
	switch {
	case c.Header != "" && c.Value != "":
		by = append(by, fmt.Sprintf("header %s: %s", c.Header, c.Value))
	case c.Header != "" && c.Pattern != nil:
		by = append(by, fmt.Sprintf("header %s: /%s/", c.Header, c.Pattern))
	case c.Header != "":
		by = append(by, fmt.Sprintf("header %s: always", c.Header))
	}
	if c.Cookie != "" {
		by = append(by, fmt.Sprintf("cookie %s=always", c.Cookie))
	}
	return strings.Join(append(by, fmt.Sprintf("%d of %d others", c.Weight, c.Total)), ", ")
}

// count counts endpoints of a backend.
func (e *Explanation) count(snapshot *model.Snapshot, b gateway.Backend) {
	for _, slice := range snapshot.Slices.All() {
		if slice.Namespace != b.Service.Namespace || slice.Service != b.Service.Name {
			continue
		}
		if service, ok := snapshot.Services.Get(b.Service); ok && !slices.ContainsFunc(slice.Ports, func(p model.EndpointPort) bool { return p.Name == portName(service, b) }) {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if e.Endpoints++; endpoint.Ready {
				e.Ready++
			}
		}
	}
}

func portName(service *model.Service, b gateway.Backend) string {
	for _, port := range service.Ports {
		if port.Port == b.Port && b.Name == "" {
			return port.Name
		}
	}
	return b.Name
}

// Text writes it for people.
func (e *Explanation) Text(to io.Writer, endpoints bool, style Style) error {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s\n", e.URL)
	if e.Host != "" {
		fmt.Fprintf(&b, "  host     %s\n", e.Host)
	}
	for i := range e.Certificates {
		label := "TLS"
		if i > 0 {
			label = "or else"
		}
		fmt.Fprintf(&b, "  %-7s  %s\n", label, &e.Certificates[i])
	}
	for _, passed := range e.Passed {
		fmt.Fprintf(&b, "           not %s\n", passed)
	}
	if e.Rule != "" {
		fmt.Fprintf(&b, "  rule     %s\n  of       Ingress %s\n", e.Rule, e.Ingress)
	}
	for i, step := range e.Steps {
		label := "then"
		if i == 0 {
			label = "first"
		}
		fmt.Fprintf(&b, "  %-7s  %s\n", label, step)
	}
	for _, canary := range e.Canaries {
		fmt.Fprintf(&b, "  canary   %s\n", canary)
	}
	switch {
	case e.Answer != "":
		fmt.Fprintf(&b, "  answer   %s\n", style.paint(yellow, e.Answer))
	case !endpoints:
		fmt.Fprintf(&b, "  backend  %s\n", style.paint(green, e.Backend))
	case e.Ready == 0:
		fmt.Fprintf(&b, "  backend  %s\n  answer   %s\n", e.Backend, style.paint(red, fmt.Sprintf("503: of %d endpoints none is ready", e.Endpoints)))
	default:
		fmt.Fprintf(&b, "  backend  %s, %d of %d endpoints ready\n", style.paint(green, e.Backend), e.Ready, e.Endpoints)
	}
	_, err := io.WriteString(to, b.String())
	return err
}
