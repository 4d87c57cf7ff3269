package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// settings are what the annotations of an Ingress say.
type settings struct {
	Policy
	regex, passthrough, www bool
	ask, askAny             bool // fairlead.io/acme, kubernetes.io/tls-acme
	askNot                  bool // fairlead.io/acme: "false"
	aliases                 []string
	errorService            string // default-backend
	noRedirect              bool   // ssl-redirect: "false"

	canary canarySettings

	permanent, temporal         *Template
	permanentCode, temporalCode int

	basicType, basicSecret, basicSecretType, basicRealm string
	auth                                                ExternalAuth
	clientSecret                                        string
	client                                              ClientCert
	tlsSecret                                           string
	tls                                                 BackendTLS
	affinity                                            string
	cookie                                              Affinity
	corsOn                                              bool
	cors                                                CORS
	mirror                                              Mirror
	check                                               HealthCheck
	checked                                             bool           // an annotation of it is there
	oldAllow, oldExempt                                 []netip.Prefix // by their former names
}

type canarySettings struct {
	on                    bool
	header, value, cookie string
	pattern               *regexp.Regexp
	weight, total         int
}

// defaults are those of ingress-nginx.
func defaults() *settings {
	s := &settings{permanentCode: 301, temporalCode: 302, basicSecretType: "auth-file"}
	s.MaxBody = 1 << 20
	s.Connect, s.Send, s.Read = 5*time.Second, 60*time.Second, 60*time.Second
	s.Retry = Retry{On: []string{"error", "timeout"}, Tries: 3}
	s.Limits.Burst = 5
	s.canary.total = 100
	s.client = ClientCert{Verify: "on", Depth: 1}
	s.tls.Depth = 1
	s.cookie = Affinity{Cookie: "INGRESSCOOKIE"}
	s.auth.SignInParameter = "rd"
	s.check = usualCheck
	s.cors = CORS{
		Origins: []string{"*"}, Methods: "GET, PUT, POST, DELETE, PATCH, OPTIONS", MaxAge: 1728000,
		Headers: "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization",
	}
	return s
}

// Types of pointers to fields, for what follows.
type (
	intOf      = *int
	boolOf     = *bool
	textOf     = *string
	sizeOf     = *int64
	timeOf     = *time.Duration
	templateOf = **Template
	rangesOf   = *[]netip.Prefix
	listOf     = *[]string
	regexOf    = **regexp.Regexp
)

// rules are the annotations that are honoured.
var rules = map[string]rule{
	"app-root":             set(readPath, func(s *settings) textOf { return &s.AppRoot }),
	"rewrite-target":       set(readRewrite, func(s *settings) textOf { return &s.Rewrite }),
	"use-regex":            set(readBool, func(s *settings) boolOf { return &s.regex }),
	"force-ssl-redirect":   set(readBool, func(s *settings) boolOf { return &s.ForceHTTPS }),
	"ssl-redirect":         {read: readSSLRedirect},
	"permanent-redirect":   set(readTarget, func(s *settings) templateOf { return &s.permanent }),
	"temporal-redirect":    set(readTarget, func(s *settings) templateOf { return &s.temporal }),
	"from-to-www-redirect": set(readBool, func(s *settings) boolOf { return &s.www }),
	"ssl-passthrough":      set(readBool, func(s *settings) boolOf { return &s.passthrough }),
	"server-alias":         set(readHosts, func(s *settings) listOf { return &s.aliases }),

	"permanent-redirect-code": set(readNumber(300, 308), func(s *settings) intOf { return &s.permanentCode }),
	"temporal-redirect-code":  set(readNumber(300, 308), func(s *settings) intOf { return &s.temporalCode }),

	"proxy-body-size":             set(readSize, func(s *settings) sizeOf { return &s.MaxBody }),
	"proxy-connect-timeout":       set(readSeconds, func(s *settings) timeOf { return &s.Connect }),
	"proxy-send-timeout":          set(readSeconds, func(s *settings) timeOf { return &s.Send }),
	"proxy-read-timeout":          set(readSeconds, func(s *settings) timeOf { return &s.Read }),
	"proxy-next-upstream":         set(readNextUpstream, func(s *settings) listOf { return &s.Retry.On }),
	"proxy-next-upstream-tries":   set(readNumber(0, 1000), func(s *settings) intOf { return &s.Retry.Tries }),
	"proxy-next-upstream-timeout": set(readSeconds, func(s *settings) timeOf { return &s.Retry.Time }),
	"backend-protocol":            set(readProtocol, func(s *settings) *Protocol { return &s.Protocol }),
	"upstream-vhost":              set(ParseTemplate, func(s *settings) templateOf { return &s.Policy.Host }),
	"upstream-hash-by":            set(ParseTemplate, func(s *settings) templateOf { return &s.HashBy }),
	"x-forwarded-prefix":          set(readText, func(s *settings) textOf { return &s.Prefix }),
	"service-upstream":            set(readBool, func(s *settings) boolOf { return &s.OneAddress }),
	"proxy-cookie-domain":         set(readRenames, func(s *settings) *[]Rename { return &s.CookieDomain }),
	"proxy-cookie-path":           set(readRenames, func(s *settings) *[]Rename { return &s.CookiePath }),
	"proxy-redirect-from":         set(readRedirect, func(s *settings) templateOf { return &s.RedirectFrom }),
	"proxy-redirect-to":           set(readRedirect, func(s *settings) templateOf { return &s.RedirectTo }),
	"custom-http-errors":          set(readCodes, func(s *settings) *[]int { return &s.ErrorCodes }),
	"default-backend":             set(readService, func(s *settings) textOf { return &s.errorService }),
	"enable-access-log":           {read: readAccessLog},
	"configuration-snippet":       {read: readSnippet, guard: true},

	"whitelist-source-range": guarding(readRanges, func(s *settings) rangesOf { return &s.oldAllow }),
	"allowlist-source-range": guarding(readRanges, func(s *settings) rangesOf { return &s.Allow }),
	"denylist-source-range":  guarding(readRanges, func(s *settings) rangesOf { return &s.Deny }),
	"satisfy":                {read: readSatisfy, guard: true},

	"auth-type":        guarding(oneOf("basic"), func(s *settings) textOf { return &s.basicType }),
	"auth-secret":      guarding(readSecret, func(s *settings) textOf { return &s.basicSecret }),
	"auth-secret-type": guarding(oneOf("auth-file", "auth-map"), func(s *settings) textOf { return &s.basicSecretType }),
	"auth-realm":       set(readText, func(s *settings) textOf { return &s.basicRealm }),

	"auth-url":                   guarding(readURL, func(s *settings) templateOf { return &s.auth.URL }),
	"auth-method":                guarding(readToken, func(s *settings) textOf { return &s.auth.Method }),
	"auth-signin":                guarding(readTarget, func(s *settings) templateOf { return &s.auth.SignIn }),
	"auth-signin-redirect-param": set(readToken, func(s *settings) textOf { return &s.auth.SignInParameter }),
	"auth-response-headers":      guarding(readHeaders, func(s *settings) listOf { return &s.auth.ResponseHeaders }),
	"auth-request-redirect":      set(ParseTemplate, func(s *settings) templateOf { return &s.auth.Redirect }),
	"auth-always-set-cookie":     set(readBool, func(s *settings) boolOf { return &s.auth.AlwaysSetCookie }),
	"auth-cache-key":             set(ParseTemplate, func(s *settings) templateOf { return &s.auth.CacheKey }),
	"auth-cache-duration":        set(readCacheTimes, func(s *settings) *[]CacheTime { return &s.auth.CacheTimes }),

	"auth-tls-secret":                       guarding(readSecret, func(s *settings) textOf { return &s.clientSecret }),
	"auth-tls-verify-client":                guarding(oneOf("on", "off", "optional", "optional_no_ca"), func(s *settings) textOf { return &s.client.Verify }),
	"auth-tls-verify-depth":                 guarding(readNumber(0, 16), func(s *settings) intOf { return &s.client.Depth }),
	"auth-tls-error-page":                   set(readTarget, func(s *settings) templateOf { return &s.client.ErrorPage }),
	"auth-tls-match-cn":                     guarding(readSubject, func(s *settings) regexOf { return &s.client.Subject }),
	"auth-tls-pass-certificate-to-upstream": set(readBool, func(s *settings) boolOf { return &s.client.Pass }),

	"proxy-ssl-secret":       guarding(readSecret, func(s *settings) textOf { return &s.tlsSecret }),
	"proxy-ssl-verify":       guarding(readBool, func(s *settings) boolOf { return &s.tls.Verify }),
	"proxy-ssl-verify-depth": guarding(readNumber(0, 16), func(s *settings) intOf { return &s.tls.Depth }),
	"proxy-ssl-server-name":  set(readBool, func(s *settings) boolOf { return &s.tls.ServerName }),
	"proxy-ssl-name":         set(readText, func(s *settings) textOf { return &s.tls.Name }),

	"enable-cors":            set(readBool, func(s *settings) boolOf { return &s.corsOn }),
	"cors-allow-origin":      guarding(readOrigins, func(s *settings) listOf { return &s.cors.Origins }),
	"cors-allow-methods":     set(readText, func(s *settings) textOf { return &s.cors.Methods }),
	"cors-allow-headers":     set(readText, func(s *settings) textOf { return &s.cors.Headers }),
	"cors-expose-headers":    set(readText, func(s *settings) textOf { return &s.cors.Expose }),
	"cors-allow-credentials": {read: readCredentials},
	"cors-max-age":           set(readNumber(0, 1<<30), func(s *settings) intOf { return &s.cors.MaxAge }),

	"limit-rps":              guarding(readNumber(0, 1<<20), func(s *settings) intOf { return &s.Limits.PerSecond }),
	"limit-rpm":              guarding(readNumber(0, 1<<20), func(s *settings) intOf { return &s.Limits.PerMinute }),
	"limit-connections":      guarding(readNumber(0, 1<<20), func(s *settings) intOf { return &s.Limits.Connections }),
	"limit-burst-multiplier": set(readNumber(1, 1<<10), func(s *settings) intOf { return &s.Limits.Burst }),
	"limit-whitelist":        set(readRanges, func(s *settings) rangesOf { return &s.oldExempt }),
	"limit-allowlist":        set(readRanges, func(s *settings) rangesOf { return &s.Limits.Exempt }),
	"limit-rate":             set(readKilobytes, func(s *settings) sizeOf { return &s.Limits.ResponseRate }),
	"limit-rate-after":       set(readKilobytes, func(s *settings) sizeOf { return &s.Limits.ResponseRateAfter }),

	"canary":                   set(readBool, func(s *settings) boolOf { return &s.canary.on }),
	"canary-by-header":         set(readToken, func(s *settings) textOf { return &s.canary.header }),
	"canary-by-header-value":   set(readText, func(s *settings) textOf { return &s.canary.value }),
	"canary-by-header-pattern": set(readRegex, func(s *settings) regexOf { return &s.canary.pattern }),
	"canary-by-cookie":         set(readToken, func(s *settings) textOf { return &s.canary.cookie }),
	"canary-weight":            set(readNumber(0, 1<<30), func(s *settings) intOf { return &s.canary.weight }),
	"canary-weight-total":      set(readNumber(1, 1<<30), func(s *settings) intOf { return &s.canary.total }),

	"affinity":                         set(oneOf("cookie"), func(s *settings) textOf { return &s.affinity }),
	"affinity-mode":                    {read: readAffinityMode},
	"affinity-canary-behavior":         {read: readCanaryBehaviour},
	"session-cookie-name":              set(readToken, func(s *settings) textOf { return &s.cookie.Cookie }),
	"session-cookie-path":              set(readCookieValue, func(s *settings) textOf { return &s.cookie.Path }),
	"session-cookie-domain":            set(readCookieValue, func(s *settings) textOf { return &s.cookie.Domain }),
	"session-cookie-samesite":          set(oneOf("None", "Lax", "Strict"), func(s *settings) textOf { return &s.cookie.SameSite }),
	"session-cookie-max-age":           set(readNumber(0, 1<<30), func(s *settings) intOf { return &s.cookie.MaxAge }),
	"session-cookie-expires":           set(readNumber(0, 1<<30), func(s *settings) intOf { return &s.cookie.Expires }),
	"session-cookie-secure":            set(readBool, func(s *settings) boolOf { return &s.cookie.Secure }),
	"session-cookie-change-on-failure": set(readBool, func(s *settings) boolOf { return &s.cookie.ChangeOnFailure }),

	"mirror-target":       set(readURL, func(s *settings) templateOf { return &s.mirror.To }),
	"mirror-host":         set(readText, func(s *settings) textOf { return &s.mirror.Host }),
	"mirror-request-body": {read: readMirrorBody},
}

func readSSLRedirect(s *settings, value string) error {
	on, err := readBool(value)
	s.noRedirect = !on
	return err
}

func readAccessLog(s *settings, value string) error {
	on, err := readBool(value)
	s.NoLog = !on
	return err
}

func readCredentials(s *settings, value string) error {
	on, err := readBool(value)
	s.cors.NoCredentials = !on
	return err
}

func readMirrorBody(s *settings, value string) error {
	on, err := readBool(value)
	s.mirror.NoBody = !on
	return err
}

func readSatisfy(s *settings, value string) error {
	word, err := oneOf("any", "all")(value)
	s.AnyAuth = word == "any"
	return err
}

func readAffinityMode(s *settings, value string) error {
	word, err := oneOf("balanced", "persistent")(value)
	s.cookie.Persistent = word == "persistent"
	return err
}

func readCanaryBehaviour(s *settings, value string) error {
	word, err := oneOf("sticky", "legacy")(value)
	s.cookie.NoCanary = word == "legacy"
	return err
}

// readRewrite reads a path with $1 to $9, or a whole URL, which redirects.
func readRewrite(text string) (string, error) {
	if _, err := readText(text); err != nil {
		return "", err
	}
	for i := strings.IndexByte(text, '$'); i >= 0; {
		if i+1 >= len(text) || text[i+1] < '1' || text[i+1] > '9' {
			return "", errors.New("behind $ want a digit from 1 to 9, for what the path's expression found")
		}
		next := strings.IndexByte(text[i+1:], '$')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return text, nil
}

// readTarget reads where a client is sent.
func readTarget(text string) (*Template, error) {
	if strings.HasPrefix(text, "/") {
		return ParseTemplate(text)
	}
	return readURL(text)
}

// readRedirect reads the beginning of a Location; off and default are none.
func readRedirect(text string) (*Template, error) {
	if text == "off" || text == "default" {
		return nil, nil
	}
	return ParseTemplate(text)
}

func readProtocol(text string) (Protocol, error) {
	switch strings.ToUpper(text) {
	case "HTTP", "AUTO_HTTP":
		return HTTP, nil
	case "HTTPS":
		return HTTPS, nil
	case "GRPC":
		return GRPC, nil
	case "GRPCS":
		return GRPCS, nil
	case "FCGI":
		return HTTP, errors.New("FastCGI is not spoken; put a server of HTTP before the backend")
	}
	return HTTP, errors.New("want one of HTTP, HTTPS, GRPC, GRPCS")
}

// readNextUpstream reads on what another endpoint is tried.
func readNextUpstream(text string) ([]string, error) {
	all := strings.Fields(strings.ReplaceAll(text, ",", " "))
	for _, word := range all {
		if _, err := oneOf("error", "timeout", "invalid_header", "http_500", "http_502", "http_503", "http_504",
			"http_403", "http_404", "http_429", "non_idempotent", "off")(word); err != nil {
			return nil, fmt.Errorf("%q: %w", word, err)
		}
	}
	if len(all) == 1 && all[0] == "off" {
		return nil, nil
	}
	return all, nil
}

// readHosts reads names, separated by commas. ingress-nginx takes expressions, too.
func readHosts(text string) (all []string, err error) {
	names, _ := readList(text)
	for _, name := range names {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "~") {
			return nil, fmt.Errorf("%q is an expression; want names such as www.example.org or *.example.org", name)
		}
		if err := checkHost(name); err != nil {
			return nil, err
		}
		all = append(all, name)
	}
	return all, nil
}

// checkHost refuses what is not the name of a host, or of all below one.
func checkHost(name string) error {
	plain, _ := strings.CutPrefix(name, "*.")
	for label := range strings.SplitSeq(plain, ".") {
		if label == "" || len(label) > 63 || len(name) > 253 || strings.IndexFunc(label, func(r rune) bool { return !isWord(r) && r != '-' }) >= 0 {
			return fmt.Errorf("%q is not the name of a host", name)
		}
	}
	return nil
}

func readSubject(text string) (*regexp.Regexp, error) {
	expression, ok := strings.CutPrefix(text, "CN=")
	if !ok {
		return nil, errors.New("want CN= and an expression for the common name")
	}
	return readRegex("^CN=(?:" + expression + ")")
}

// readOrigins reads origins of browsers: *, or scheme and host, of which the first
// label may be *.
func readOrigins(text string) ([]string, error) {
	all, _ := readList(text)
	for _, origin := range all {
		scheme, host, ok := strings.Cut(origin, "://")
		host, _, _ = strings.Cut(host, ":")
		if origin != "*" && (!ok || !isToken(scheme) || checkHost(strings.ToLower(host)) != nil) {
			return nil, fmt.Errorf("%q is not an origin such as https://example.org or https://*.example.org", origin)
		}
	}
	return all, nil
}

func readCookieValue(text string) (string, error) {
	if _, err := readText(text); err != nil || strings.ContainsAny(text, `;," `) {
		return "", errors.New(`it has a character that a cookie cannot have`)
	}
	return text, nil
}

// readSecret reads NAME or NAMESPACE/NAME.
func readSecret(text string) (string, error) {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok {
		namespace, name = "x", text
	}
	if checkHost(namespace) != nil || checkHost(name) != nil || strings.Contains(text, "*") {
		return "", errors.New("want the name of a Secret, or NAMESPACE/NAME")
	}
	return text, nil
}

func readService(text string) (string, error) {
	if checkHost(text) != nil || strings.ContainsAny(text, ".*") {
		return "", errors.New("want the name of a Service in the namespace of the Ingress")
	}
	return text, nil
}

func readCodes(text string) (all []int, err error) {
	words, _ := readList(text)
	for _, word := range words {
		code, err := readNumber(300, 599)(word)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", word, err)
		}
		all = append(all, code)
	}
	return all, nil
}

// readKilobytes reads a number of KiB into bytes.
func readKilobytes(text string) (int64, error) {
	n, err := readNumber(0, 1<<30)(text)
	return int64(n) << 10, err
}

// readCacheTimes reads such as "200 202 10m, 401 5m".
func readCacheTimes(text string) (all []CacheTime, err error) {
	groups, _ := readList(text)
	for _, group := range groups {
		words := strings.Fields(group)
		if len(words) == 0 {
			continue
		}
		last, err := readSeconds(words[len(words)-1])
		if err != nil {
			return nil, err
		}
		made := CacheTime{For: last}
		for _, word := range words[:len(words)-1] {
			code, err := strconv.Atoi(word)
			if err != nil || code < 100 || code > 599 {
				return nil, fmt.Errorf("%q is not a status", word)
			}
			made.Codes = append(made.Codes, code)
		}
		all = append(all, made)
	}
	return all, nil
}

// readRenames reads pairs such as "/a /b"; off is none.
func readRenames(text string) ([]Rename, error) {
	if text == "off" {
		return nil, nil
	}
	words := strings.Fields(strings.TrimSuffix(text, ";"))
	if _, err := readText(text); err != nil || len(words) != 2 || strings.HasPrefix(words[0], "~") {
		return nil, errors.New("want two plain texts, of which the second replaces the first")
	}
	return []Rename{{words[0], words[1]}}, nil
}

// secretOf is that of the Ingress' own namespace. Another is refused, as
// ingress-nginx does by default: who may write an Ingress need not be one who may
// read that Secret.
func secretOf(namespace, text string) (SecretKey, error) {
	in, name, ok := strings.Cut(text, "/")
	if !ok {
		return SecretKey{Namespace: namespace, Name: text}, nil
	}
	if in != namespace {
		return SecretKey{}, fmt.Errorf("the Secret is in namespace %s, and only those of the Ingress' own namespace %s are used", in, namespace)
	}
	return SecretKey{Namespace: namespace, Name: name}, nil
}

func serviceKey(namespace, name string) model.ServiceKey {
	return model.ServiceKey{Namespace: namespace, Name: name}
}
