package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// prefix is that of the annotations.
const prefix = "nginx.ingress.kubernetes.io/"

// Support is what becomes of an annotation.
type Support uint8

// What may become of it.
const (
	Honoured Support = iota
	Needless         // what it sets up is not needed here, and nothing is lost
	Refused          // it is not honoured, with a Problem
	Unknown          // ingress-nginx 1.15 does not know it either
)

func (s Support) String() string {
	return [...]string{"honoured", "not needed", "refused", "unknown"}[s]
}

// rule is how an annotation is read. One that guards closes the Ingress if it
// cannot be.
type rule struct {
	read  func(s *settings, value string) error
	guard bool
}

// set makes a rule of a reader and of where the value belongs.
func set[T any](read func(string) (T, error), to func(*settings) *T) rule {
	return rule{read: func(s *settings, value string) error {
		v, err := read(value)
		if err == nil {
			*to(s) = v
		}
		return err
	}}
}

// guarding is set, of what protects.
func guarding[T any](read func(string) (T, error), to func(*settings) *T) rule {
	r := set(read, to)
	r.guard = true
	return r
}

// verdict says of an annotation what becomes of it, and why; it reads the value
// into s, if it is honoured.
func (s *settings) verdict(a model.Annotation) (is Support, why string, guard bool) {
	name, ok := strings.CutPrefix(a.Key, prefix)
	switch {
	case a.Key == askAnnotation:
		on, err := readBool(strings.TrimSpace(a.Value))
		if err != nil {
			return Refused, fmt.Sprintf("%q cannot be honoured: %v", clip(a.Value), err), false
		}
		s.ask, s.askNot = on, !on
		return Honoured, "", false
	case a.Key == tlsACMEAnnotation:
		on, err := readBool(strings.TrimSpace(a.Value))
		s.askAny = err == nil && on
		return Needless, "it asks whoever makes certificates: cert-manager, and Fairlead with spec.ingress.acme of the Network", false
	case strings.HasPrefix(a.Key, ownPrefix):
		return s.ownVerdict(strings.TrimPrefix(a.Key, ownPrefix), a.Value)
	case !ok:
		return Needless, "it is not one of ingress-nginx", false
	}
	if rule, ok := rules[name]; ok {
		if err := rule.read(s, strings.TrimSpace(a.Value)); err != nil {
			return Refused, fmt.Sprintf("%q cannot be honoured: %v", clip(a.Value), err), rule.guard
		}
		return Honoured, "", false
	}
	if why, ok := needless[name]; ok {
		return Needless, why, false
	}
	if refusal, ok := refused[name]; ok {
		if on, err := readBool(a.Value); err == nil && !on {
			return Needless, "it is off", false
		}
		return Refused, refusal.why, refusal.guard
	}
	if old, ok := removed[name]; ok {
		return Unknown, old, false
	}
	return Unknown, "ingress-nginx has no such annotation, so that it has had no effect", false
}

// clip shortens a value for a message.
func clip(text string) string {
	const most = 60
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// needless are those whose effect is there without them, or has nothing to work on.
var needless = map[string]string{
	"client-body-buffer-size":                  "bodies are passed on as they come, and buffers are chosen by the engine",
	"proxy-buffer-size":                        "headers of up to 64 KiB are taken from backends",
	"proxy-buffering":                          "responses are passed on as they come",
	"proxy-request-buffering":                  "bodies are passed on as they come; one that has come with its head can be sent to another endpoint",
	"proxy-buffers-number":                     "responses are passed on as they come",
	"proxy-busy-buffers-size":                  "responses are passed on as they come",
	"proxy-max-temp-file-size":                 "nothing is ever written to a file",
	"proxy-http-version":                       "backends are called by HTTP/1.1, or as backend-protocol says",
	"connection-proxy-header":                  "connections to backends are kept, and upgraded where a client asks for it",
	"enable-rewrite-log":                       "fairlead ingress explain says how a URL is rewritten",
	"http2-push-preload":                       "no browser takes pushes any more",
	"enable-global-auth":                       "there is no global authentication",
	"auth-keepalive":                           "connections to who is asked are kept anyway",
	"auth-keepalive-requests":                  "connections to who is asked are kept anyway",
	"auth-keepalive-share-vars":                "connections to who is asked are kept anyway",
	"auth-keepalive-timeout":                   "connections to who is asked are kept anyway",
	"disable-proxy-intercept-errors":           "responses are replaced only where custom-http-errors says so",
	"session-cookie-conditional-samesite-none": "no browser is in use any more that does not understand SameSite=None",
	"session-cookie-partitioned":               "cookies are for the host alone",
	"use-port-in-redirects":                    "redirects have the port that the client used",
	"ssl-prefer-server-ciphers":                "suites are chosen by the server",
	"ssl-ciphers":                              "only suites without known weaknesses are offered",
	"proxy-ssl-ciphers":                        "only suites without known weaknesses are offered",
	"proxy-ssl-protocols":                      "TLS 1.2 and 1.3 are spoken",
	"load-balance":                             "endpoints take turns, those that are slow less often",
	"upstream-hash-by-subset":                  "a hash chooses one endpoint",
	"upstream-hash-by-subset-size":             "a hash chooses one endpoint",
	"preserve-trailing-slash":                  "redirects to HTTPS keep the URL as it is",
	"relative-redirects":                       "redirects name the host that the client used",
	"enable-opentracing":                       "headers of traces are passed on",
	"opentracing-trust-incoming-span":          "headers of traces are passed on",
	"enable-opentelemetry":                     "headers of traces are passed on",
	"opentelemetry-operation-name":             "headers of traces are passed on",
	"opentelemetry-trust-incoming-span":        "headers of traces are passed on",
}

type refusal struct {
	why   string
	guard bool
}

// refused are those of which there is nothing here.
var refused = map[string]refusal{
	"server-snippet":             {"text of nginx's configuration is run by nobody here; move headers to configuration-snippet, and redirects to permanent-redirect", true},
	"stream-snippet":             {"text of nginx's configuration is run by nobody here", false},
	"auth-snippet":               {"text of nginx's configuration is run by nobody here", true},
	"modsecurity-snippet":        {"there is no web application firewall here", true},
	"enable-modsecurity":         {"there is no web application firewall here; remove the annotation to go without one", true},
	"enable-owasp-core-rules":    {"there is no web application firewall here; remove the annotation to go without one", true},
	"modsecurity-transaction-id": {"there is no web application firewall here", false},
	"auth-proxy-set-headers":     {"ConfigMaps are not read; name the headers in auth-response-headers", true},
	"custom-headers":             {"ConfigMaps are not read; set the headers by configuration-snippet: more_set_headers", false},
	"fastcgi-index":              {"FastCGI is not spoken", false},
	"fastcgi-params-configmap":   {"FastCGI is not spoken", false},
}

// removed are those that ingress-nginx had once, or that people believe it has.
var removed = map[string]string{
	"secure-backends":     "it was removed: use backend-protocol: HTTPS",
	"grpc-backend":        "it was removed: use backend-protocol: GRPC",
	"add-base-url":        "it was removed",
	"base-url-scheme":     "it was removed",
	"websocket-services":  "there never was one, and WebSockets need none",
	"server-snippets":     "there never was one",
	"global-rate-limit":   "it was removed: use limit-rps",
	"enable-influxdb":     "it was removed",
	"influxdb-host":       "it was removed",
	"influxdb-port":       "it was removed",
	"session-cookie-hash": "it was removed",
}

// Verdict is what becomes of one annotation.
type Verdict struct {
	Annotation model.Annotation
	Support    Support
	Why        string // empty: it is honoured
	Closes     bool   // all requests to the Ingress are refused for it
}

// Verdicts says what becomes of each annotation of an Ingress.
func Verdicts(ingress *model.HTTPIngress) (all []Verdict) {
	s := defaults()
	for _, a := range ingress.Annotations {
		is, why, guard := s.verdict(a)
		all = append(all, Verdict{a, is, why, is == Refused && guard})
	}
	return all
}

// Name is the key of an annotation without what all of ingress-nginx begin with.
func (v *Verdict) Name() string { return strings.TrimPrefix(v.Annotation.Key, prefix) }

// Names are the keys that are honoured, without what all of ingress-nginx begin with,
// sorted.
func Names() []string { return slices.Sorted(maps.Keys(rules)) }

// OwnNames are those that ingress-nginx does not have, behind fairlead.io/, sorted.
func OwnNames() []string { return slices.Sorted(maps.Keys(ownRules)) }
