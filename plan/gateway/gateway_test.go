package gateway

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// world is a snapshot in the making. Each Ingress is older than the next.
type world struct {
	model.Snapshot
	now int64
}

func newWorld() *world {
	w := &world{}
	w.Network = model.DefaultNetwork()
	w.Network.Ingress.NginxCompatible = true
	for _, name := range []string{"web", "api", "new", "errors"} {
		w.service(name)
	}
	return w
}

func (w *world) service(name string) {
	key := model.ServiceKey{Namespace: "shop", Name: name}
	w.Services = w.Services.With(key, &model.Service{
		ServiceKey: key, Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}},
	})
}

// ingress adds one. Its lines are TYPE HOST/PATH SERVICE, where TYPE is exact,
// prefix or any; default SERVICE; tls SECRET HOST…; class NAME; namespace NAME, if it
// is not shop; or an annotation KEY: VALUE.
func (w *world) ingress(name string, lines ...string) *model.HTTPIngress {
	w.now++
	i := &model.HTTPIngress{IngressKey: model.IngressKey{Namespace: "shop", Name: name}, Created: w.now, Class: NginxClass}
	types := map[string]model.PathType{"exact": model.PathExact, "prefix": model.PathPrefix, "any": model.PathImplementation}
	for _, line := range lines {
		words := strings.Fields(line)
		key, value, isAnnotation := strings.Cut(line, ": ")
		kind, isPath := types[words[0]]
		switch {
		case isPath:
			host, path, _ := strings.Cut(words[1], "/")
			rule := model.IngressRule{Host: host, Paths: []model.IngressPath{{Path: "/" + path, Type: kind, Backend: backendOf(words[2])}}}
			i.Rules = append(i.Rules, rule)
		case words[0] == "default":
			b := backendOf(words[1])
			i.Default = &b
		case words[0] == "tls":
			i.TLS = append(i.TLS, model.IngressTLS{Secret: words[1], Hosts: words[2:]})
		case words[0] == "namespace":
			i.Namespace = words[1]
		case words[0] == "class":
			i.Class = strings.Join(words[1:], "")
		case isAnnotation:
			i.Annotations = append(i.Annotations, model.Annotation{Key: prefix + key, Value: value})
		}
	}
	slices.SortFunc(i.Annotations, func(a, b model.Annotation) int { return cmp.Compare(a.Key, b.Key) })
	w.Ingresses = w.Ingresses.With(i.IngressKey, i)
	return i
}

func backendOf(text string) model.IngressBackend {
	return model.IngressBackend{Service: text, Port: 80}
}

// asked says who takes a request, such as www.example.org/a: a Service, with a
// slash behind it if the client is sent there first, or nobody.
func asked(t *Table, url string) string {
	name, path, _ := strings.Cut(url, "/")
	host := t.Find(name)
	if host != nil && host.Redirect != "" {
		return "to " + host.Redirect
	}
	route, redirect := t.Route(host, "/"+path)
	switch {
	case route == nil:
		return "nobody"
	case redirect:
		return route.Backend.Service.Name + "/"
	}
	return route.Backend.Service.Name
}

func TestRoute(t *testing.T) {
	for name, c := range map[string]struct {
		ingresses [][]string
		want      map[string]string // who takes which URL
	}{
		"exact": {[][]string{{"exact a.org/foo web"}}, map[string]string{
			"a.org/foo": "web", "a.org/foo/": "nobody", "a.org/foobar": "nobody", "b.org/foo": "nobody", "a.org/FOO": "nobody"}},
		"prefix": {[][]string{{"prefix a.org/foo web"}}, map[string]string{
			"a.org/foo": "web", "a.org/foo/": "web", "a.org/foo/bar": "web", "a.org/foobar": "nobody"}},
		"a slash at the end of a prefix says nothing": {[][]string{{"prefix a.org/foo/ web"}}, map[string]string{
			"a.org/foo": "web", "a.org/foo/": "web", "a.org/foo/bar": "web", "a.org/foobar": "nobody"}},
		"all below the root": {[][]string{{"prefix a.org/ web"}}, map[string]string{"a.org/": "web", "a.org/x": "web"}},
		"as nginx does": {[][]string{{"any a.org/foo web"}}, map[string]string{
			"a.org/foo": "web", "a.org/foobar": "web", "a.org/fo": "nobody"}},
		"a slash that is missing is told": {[][]string{{"any a.org/foo/ web", "any a.org/ api"}}, map[string]string{
			"a.org/foo": "web/", "a.org/foo/x": "web", "a.org/fo": "api"}},
		"the longest first": {[][]string{{"prefix a.org/a web", "prefix a.org/a/b api", "prefix a.org/ new"}}, map[string]string{
			"a.org/a": "web", "a.org/a/b/c": "api", "a.org/a/bc": "web", "a.org/x": "new"}},
		"exact before prefix": {[][]string{{"prefix a.org/foo web", "exact a.org/foo api"}}, map[string]string{
			"a.org/foo": "api", "a.org/foo/": "web"}},
		"hosts": {[][]string{{"prefix a.org/ web", "prefix *.a.org/ api", "prefix / new"}}, map[string]string{
			"a.org/": "web", "x.a.org/": "api", "x.y.a.org/": "new", "other.org/": "new", "/": "new"}},
		"a host of its own has nothing of the wildcard": {[][]string{{"prefix *.a.org/x web", "prefix y.a.org/y api"}}, map[string]string{
			"y.a.org/x": "nobody", "z.a.org/x": "web"}},
		"the default backend": {[][]string{{"default web"}, {"prefix a.org/a api"}}, map[string]string{
			"a.org/a": "api", "a.org/b": "web", "b.org/": "web"}},
		"a default backend of its hosts alone": {[][]string{{"default web", "prefix a.org/a api"}}, map[string]string{
			"a.org/b": "web", "b.org/": "nobody"}},
		"who came first has it": {[][]string{{"prefix a.org/a web"}, {"prefix a.org/a api", "prefix a.org/b api"}}, map[string]string{
			"a.org/a": "web", "a.org/b": "api"}},
		"expressions": {[][]string{{"use-regex: true", "any a.org/api/v[0-9]+ api", "any a.org/ web"}}, map[string]string{
			"a.org/api/v1": "api", "a.org/API/V12/x": "api", "a.org/api/x": "web"}},
		"an expression makes all paths of the host one": {[][]string{{"rewrite-target: /$2", "any a.org/app(/|$)(.*) api"}, {"exact a.org/web web"}}, map[string]string{
			"a.org/app": "api", "a.org/app/x": "api", "a.org/apple": "nobody", "a.org/WEBBED": "web"}},
		"not those of another host": {[][]string{{"use-regex: true", "any a.org/x api"}, {"exact b.org/web web"}}, map[string]string{
			"b.org/WEB": "nobody", "b.org/web": "web"}},
		"www": {[][]string{{"from-to-www-redirect: true", "prefix a.org/ web"}}, map[string]string{
			"a.org/": "web", "www.a.org/": "to a.org"}},
		"without www": {[][]string{{"from-to-www-redirect: true", "prefix www.a.org/ web"}}, map[string]string{
			"www.a.org/": "web", "a.org/": "to www.a.org"}},
		"www that has rules": {[][]string{{"from-to-www-redirect: true", "prefix a.org/ web"}, {"prefix www.a.org/ api"}}, map[string]string{
			"a.org/": "web", "www.a.org/": "api"}},
		"an alias has all of the host": {[][]string{{"server-alias: b.org, *.c.org", "prefix a.org/ web"}, {"prefix a.org/api api"}}, map[string]string{
			"b.org/": "web", "b.org/api": "api", "x.c.org/api/1": "api"}},
		"an alias that has rules": {[][]string{{"server-alias: b.org", "prefix a.org/ web"}, {"prefix b.org/x api"}}, map[string]string{
			"b.org/": "nobody", "b.org/x": "api"}},
		"of another class": {[][]string{{"class traefik", "prefix a.org/ web"}}, map[string]string{"a.org/": "nobody"}},
		"of no class":      {[][]string{{"class ", "prefix a.org/ web"}}, map[string]string{"a.org/": "nobody"}},
		"a path that is none": {[][]string{{"prefix a.org/a.* web", "prefix a.org/b api"}}, map[string]string{
			"a.org/a.x": "nobody", "a.org/b": "api"}},
		"an expression that is none": {[][]string{{"use-regex: true", "any a.org/(?=x) web", "any a.org/b api"}}, map[string]string{
			"a.org/b": "api", "a.org/x": "nobody"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			for n, lines := range c.ingresses {
				w.ingress(fmt.Sprint("i", n), lines...)
			}
			table, _ := Compute(nil, &w.Snapshot)
			for url, want := range c.want {
				if got := asked(table, url); got != want {
					t.Errorf("%s goes to %s, want %s", url, got, want)
				}
			}
		})
	}
}

// TestProblems: what is wrong with an Ingress is said, and of which field.
func TestProblems(t *testing.T) {
	for name, c := range map[string]struct {
		lines  []string
		field  string
		reason string
		closed bool
	}{
		"no such annotation":     {[]string{"websocket-services: web"}, "metadata.annotations[" + prefix + "websocket-services]", "UnknownAnnotation", false},
		"no number":              {[]string{"limit-rps: many"}, "metadata.annotations[" + prefix + "limit-rps]", "NotHonoured", true},
		"no time":                {[]string{"proxy-read-timeout: soon"}, "metadata.annotations[" + prefix + "proxy-read-timeout]", "NotHonoured", false},
		"who may call, unclear":  {[]string{"whitelist-source-range: 10.0.0.0/8, here"}, "metadata.annotations[" + prefix + "whitelist-source-range]", "NotHonoured", true},
		"no users":               {[]string{"auth-type: basic"}, "metadata.annotations[" + prefix + "auth-type]", "NotHonoured", true},
		"users of others":        {[]string{"auth-type: basic", "auth-secret: kube-system/users"}, "metadata.annotations[" + prefix + "auth-secret]", "NotHonoured", true},
		"digest":                 {[]string{"auth-type: digest"}, "metadata.annotations[" + prefix + "auth-type]", "NotHonoured", true},
		"a firewall":             {[]string{"enable-modsecurity: true"}, "metadata.annotations[" + prefix + "enable-modsecurity]", "NotHonoured", true},
		"a snippet":              {[]string{"server-snippet: location /x { return 200; }"}, "metadata.annotations[" + prefix + "server-snippet]", "NotHonoured", true},
		"a snippet that is code": {[]string{"configuration-snippet: if ($http_x) { return 403; }"}, "metadata.annotations[" + prefix + "configuration-snippet]", "NotHonoured", true},
		"a line too many":        {[]string{"permanent-redirect: https://b.org\r\nX: y"}, "metadata.annotations[" + prefix + "permanent-redirect]", "NotHonoured", false},
		"a variable of nginx":    {[]string{"upstream-vhost: $document_root"}, "metadata.annotations[" + prefix + "upstream-vhost]", "NotHonoured", false},
		"FastCGI":                {[]string{"backend-protocol: FCGI"}, "metadata.annotations[" + prefix + "backend-protocol]", "NotHonoured", false},
		"no Service":             {[]string{"prefix a.org/x gone"}, "spec.rules[0].http.paths[0].backend", "NoBackend", false},
		"no path":                {[]string{"prefix a.org/a.* web"}, "spec.rules[0].http.paths[0].path", "Invalid", false},
		"a canary of nothing":    {[]string{"canary: true", "prefix a.org/y web"}, "spec.rules[0].http.paths[0]", "NoMain", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.ingress("good", "prefix good.org/ web")
			lines := c.lines
			if !strings.Contains(strings.Join(lines, " "), "a.org/") {
				lines = append(lines, "prefix a.org/ web")
			}
			w.ingress("bad", lines...)
			table, problems := Compute(nil, &w.Snapshot)
			if len(problems) != 1 || problems[0].Field != c.field || problems[0].Reason != c.reason || problems[0].Name != "bad" || problems[0].Remedy == "" {
				t.Errorf("problems are %v, want one of %s, %s", problems, c.field, c.reason)
			}
			if route, _ := table.Route(table.Find("a.org"), "/"); route != nil && (route.Policy.Closed != "") != c.closed {
				t.Errorf("the routes are closed: %q, want %v", route.Policy.Closed, c.closed)
			}
			if got := asked(table, "good.org/"); got != "web" {
				t.Errorf("the other Ingress leads to %s", got)
			}
		})
	}
}

// TestShut: what a protected path may have meant, and cannot be understood, does not
// go by the rules of others.
func TestShut(t *testing.T) {
	w := newWorld()
	w.ingress("a", "use-regex: true", "denylist-source-range: 192.0.2.1", "any a.org/in(?!public) web")
	w.ingress("b", "prefix a.org/ api")
	table, problems := Compute(nil, &w.Snapshot)
	if route, _ := table.Route(table.Find("a.org"), "/inner"); route == nil || route.Policy.Closed == "" {
		t.Errorf("the protected path goes to %+v", route)
	}
	if got := asked(table, "a.org/other"); got != "api" || len(problems) != 1 {
		t.Errorf("another goes to %s; problems are %v", got, problems)
	}
}

// TestCanary: a canary is at the route of another Ingress, whatever came first.
func TestCanary(t *testing.T) {
	w := newWorld()
	w.ingress("canary", "canary: true", "canary-by-header: X-New", "canary-weight: 150", "prefix a.org/ new")
	w.ingress("main", "limit-rps: 5", "prefix a.org/ web")
	table, problems := Compute(nil, &w.Snapshot)
	route, _ := table.Route(table.Find("a.org"), "/x")
	if len(problems) > 0 || route.Backend.Service.Name != "web" || len(route.Canaries) != 1 || route.Policy.Limits.PerSecond != 5 {
		t.Fatalf("%v, %+v", problems, route)
	}
	if c := route.Canaries[0]; c.Backend.Service.Name != "new" || c.Header != "X-New" || c.Weight != 100 || c.Total != 100 {
		t.Errorf("the canary is %+v", c)
	}
}

// TestCertificates: a host has those that name it, or its wildcard.
func TestCertificates(t *testing.T) {
	w := newWorld()
	w.ingress("a", "tls one a.org", "tls two *.b.org", "prefix a.org/ web", "prefix x.b.org/ web", "prefix y.x.b.org/ web", "prefix c.org/ web")
	w.ingress("b", "tls three a.org", "prefix a.org/b web")
	table, _ := Compute(nil, &w.Snapshot)
	for name, want := range map[string]string{"a.org": "[shop/one shop/three]", "x.b.org": "[shop/two]", "y.x.b.org": "[]", "c.org": "[]"} {
		if host := table.Find(name); fmt.Sprint(host.Certificates) != want || host.TLS != (want != "[]") {
			t.Errorf("%s has %v, TLS %v, want %s", name, host.Certificates, host.TLS, want)
		}
	}
}

// TestSnippet: headers and redirects of a snippet are understood as data.
func TestSnippet(t *testing.T) {
	w := newWorld()
	w.ingress("a", `configuration-snippet: more_set_headers "X-Frame-Options: DENY" 'X-Id: $remote_addr'; # why
		add_header X-A "a; b" always; proxy_set_header X-Real-Host ${host}; proxy_hide_header Server;
		return 301 https://$host/new$request_uri;`, "prefix a.org/ web")
	table, problems := Compute(nil, &w.Snapshot)
	route, _ := table.Route(table.Find("a.org"), "/")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var got []string
	for _, edit := range append(route.Policy.ResponseHeaders, route.Policy.RequestHeaders...) {
		got = append(got, edit.Name+"="+edit.Value.String())
	}
	if want := "[X-Frame-Options=DENY X-Id=$remote_addr X-A=a; b Server= X-Real-Host=${host}]"; fmt.Sprint(got) != want {
		t.Errorf("headers are %v, want %s", got, want)
	}
	if r := route.Policy.Redirect; r == nil || r.Code != 301 || r.To.String() != "https://$host/new$request_uri" {
		t.Errorf("the redirect is %+v", r)
	}
	values := map[string]string{"host": "a.org", "request_uri": "/x?y"}
	text := route.Policy.Redirect.To.Expand(nil, func(name string, into []byte) []byte { return append(into, values[name]...) })
	if string(text) != "https://a.org/new/x?y" {
		t.Errorf("it leads to %s", text)
	}
}

// TestAnnotations: each key is in one place, and all of ingress-nginx 1.15 are
// somewhere.
func TestAnnotations(t *testing.T) {
	seen := map[string]int{}
	for key := range rules {
		seen[key]++
	}
	for key := range needless {
		seen[key]++
	}
	for key := range refused {
		seen[key]++
	}
	for key := range removed {
		seen[key]++
	}
	for key, count := range seen {
		if count > 1 {
			t.Errorf("%s is in %d places", key, count)
		}
	}
	if len(rules) < 60 {
		t.Errorf("only %d annotations are honoured", len(rules))
	}
}

// TestTenants: the expressions of one namespace reach no further into a host that it
// shares with others than plain paths would, and make none of others' paths.
func TestTenants(t *testing.T) {
	w := newWorld()
	w.ingress("old", "namespace elder", "use-regex: true", "any a.org/old(er)?/.* eldest")
	w.ingress("main", "prefix a.org/ web", "prefix a.org/a.c dot", "exact a.org/only exact", "prefix a.org/api/v1 v1", "prefix a.org/old newer")
	w.ingress("theirs", "namespace other", "rewrite-target: /$2", "any a.org/api(/|$)(.*) api", "any a.org/a[.]c/.{0,99}x{0,99} long")
	w.ingress("greedy", "namespace other", "use-regex: true", "any a.org/.* greedy", "any a.org/|/a greedy", "any a.org/(?=a) greedy", "auth-type: basic", "auth-secret: users")
	w.ingress("plain", "namespace third", "prefix a.org/plain.x third")
	table, problems := Compute(nil, &w.Snapshot)
	for url, want := range map[string]string{
		"a.org/":            "web",
		"a.org/other":       "web",
		"a.org/api":         "api",
		"a.org/api/x":       "api",
		"a.org/API/x":       "api",
		"a.org/apix":        "web",
		"a.org/api/v1/x":    "v1",
		"a.org/a.c/xxxxxxx": "dot",
		"a.org/abc/x":       "web",
		"a.org/only":        "exact",
		"a.org/onlyx":       "web",
		"a.org/older/x":     "eldest",
		"a.org/old/x":       "eldest", // both name /old, and it is older
		"a.org/old":         "newer",
		"a.org/plain.x/y":   "third",
		"a.org/plainxx/y":   "web",
	} {
		if got := asked(table, url); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
	taken := 0
	for _, p := range problems {
		if p.Name == "greedy" && p.Reason == "PathTaken" {
			taken++
		}
	}
	if taken != 2 {
		t.Errorf("of two paths that take nothing %d are a Problem: %v", taken, problems)
	}
}

// TestLiterals: what expressions are said to begin with, they do.
func TestLiterals(t *testing.T) {
	for expression, want := range map[string]string{
		"/api(/|$)(.*)": "/api", "/(a|b)/c": "/", "/a|/b": "", "/Ab+c": "/ab", "/a/.*": "/a/", `/a\|b`: "/a", "/a[b|c]": "",
		`/a\Q|\E`: "", "/a(b": "/a", "/a(b|c": "", "/a)|b": "", "/x[0-9](y|z)": "/x", "/(?=a)": "/", "/x[]|a](b|c)": "",
	} {
		if got := literalOf(expression); got != want {
			t.Errorf("%s begins with %q, want %q", expression, got, want)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	word := func(from []string, most int) (text string) {
		for range r.IntN(most) {
			text += from[r.IntN(len(from))]
		}
		return text
	}
	compiled, matched := 0, 0
	for range 20_000 {
		m, err := regexMatch("/" + word([]string{"a", "b", "/", "(", ")", "|", "?", "*", "[ab]", "[^a]", `\|`, "$", ".", "{2}", "[]|]"}, 8))
		if err != nil {
			continue
		}
		compiled++
		for range 10 {
			path := "/" + word([]string{"a", "b", "A", "/", "|"}, 6)
			if is := m.Expression.MatchString(path); is != m.matches(path) {
				t.Fatalf("%s, which begins with %q, does not match %s, want %v", m.Path, m.literal, path, is)
			} else if is {
				matched++
			}
		}
	}
	if compiled < 2000 || matched < 2000 {
		t.Errorf("%d expressions, %d matches", compiled, matched)
	}
}
