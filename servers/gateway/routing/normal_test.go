package routing

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
	"github.com/fairlead-net/fairlead/servers/gateway/http1"
)

// pieces are what paths of requests are made of that somebody might read otherwise.
var pieces = []string{
	"/", "/", "/", "//", ".", "..", "/./", "/../", "%2e", "%2E%2e", "%2f", "%2F", "%5c", `\`, ";", "%3b", "%3B", ";x=y", "a", "admin", "%61dmin", "ADMIN",
	":", "%3a", "%3A", "@", "%40", "é", "%C3%A9", "%c3%a9", " ", "%20", "+", "%2B", "%25", "%252e", "%252f", "%00", "%0a", "%0d%0a", "%", "%zz", "?", "%3F", "#", "%23", "\"", "%22", "%7f", "%ff", "~", "%7E",
}

// TestOnePath: whoever reads what is passed on, judges as was judged here.
func TestOnePath(t *testing.T) {
	table := &plan.Table{}
	snapshot := &model.Snapshot{Network: model.DefaultNetwork()}
	ingress := &model.HTTPIngress{IngressKey: model.IngressKey{Namespace: "a", Name: "a"}, Class: plan.Class, Rules: []model.IngressRule{{Host: "a"}}}
	for _, path := range []string{"/", "/admin", "/a:a", "/caf%C3%A9", "/a/admin/", "/a%20a", "/é", "/a;a", "/a%25"} {
		for _, kind := range []model.PathType{model.PathExact, model.PathPrefix, model.PathImplementation} {
			ingress.Rules[0].Paths = append(ingress.Rules[0].Paths, model.IngressPath{Path: path, Type: kind, Backend: model.IngressBackend{Service: "s", Port: 80}})
		}
	}
	snapshot.Ingresses = snapshot.Ingresses.With(ingress.IngressKey, ingress)
	table, _ = plan.Compute(table, snapshot)
	host := table.Find("a")
	r := rand.New(rand.NewPCG(1, 2))
	taken := map[*plan.Route]int{}
	accepted := 0
	for range 40_000 {
		path := "/"
		for range r.IntN(7) {
			path += pieces[r.IntN(len(pieces))]
		}
		judged := parse(path)
		if judged == nil {
			continue
		}
		accepted++
		route, slash := table.Route(host, string(judged.Decoded))
		taken[route]++
		for name, again := range map[string]string{"itself": path, "what is passed on": string(judged.Path)} {
			normal, err := plan.NormalPath(strings.SplitN(again, "?", 2)[0])
			if err != nil || normal != string(judged.Decoded) {
				t.Fatalf("%q: %s is %q to a rule, and was judged as %q, %v", path, name, normal, judged.Decoded, err)
			}
		}
		passed := parse(string(judged.Path))
		if passed == nil || !bytes.Equal(passed.Path, judged.Path) || !bytes.Equal(passed.Decoded, judged.Decoded) {
			t.Fatalf("%q: %q is passed on, of which others make another path", path, judged.Path)
		}
		theirs, err := http.ReadRequest(bufio.NewReader(strings.NewReader(fmt.Sprintf("GET %s HTTP/1.1\r\nHost: a\r\n\r\n", judged.Path))))
		if err != nil {
			t.Fatalf("%q: %v", judged.Path, err)
		}
		if other, otherSlash := table.Route(host, merged(theirs.URL.Path)); other != route || otherSlash != slash {
			t.Fatalf("%q: net/http reads %q, which is another rule's", path, theirs.URL.Path)
		}
	}
	if accepted < 8_000 || len(taken) < 10 {
		t.Fatalf("%d paths of %d rules are too few", accepted, len(taken))
	}
}

// TestOneRewrite: a path that was put together of pieces is one path as well.
func TestOneRewrite(t *testing.T) {
	match, rewrite := "/app(/|$)(.*)", "/$2"
	snapshot := &model.Snapshot{Network: model.DefaultNetwork()}
	snapshot.Network.Ingress.NginxCompatible = true
	ingress := &model.HTTPIngress{
		IngressKey: model.IngressKey{Namespace: "a", Name: "a"}, Class: plan.Class,
		Annotations: []model.Annotation{{Key: "nginx.ingress.kubernetes.io/rewrite-target", Value: rewrite}},
		Rules:       []model.IngressRule{{Host: "a", Paths: []model.IngressPath{{Path: match, Backend: model.IngressBackend{Service: "s", Port: 80}}}}},
	}
	snapshot.Ingresses = snapshot.Ingresses.With(ingress.IngressKey, ingress)
	table, _ := plan.Compute(nil, snapshot)
	host := table.Find("a")
	r := rand.New(rand.NewPCG(3, 4))
	taken := 0
	for range 20_000 {
		path := "/app"
		for range 1 + r.IntN(6) {
			path += pieces[r.IntN(len(pieces))]
		}
		judged := parse(path)
		if judged == nil {
			continue
		}
		route, _ := table.Route(host, string(judged.Decoded))
		if route == nil {
			continue
		}
		target, refused := http1.Rewritten([]byte(route.Rewrite(string(judged.Decoded))))
		if refused != nil {
			continue
		}
		taken++
		found := string(judged.Decoded)[min(len(judged.Decoded), len("/app/")):]
		got, err := url.PathUnescape(string(target))
		if err != nil || merged(got) != merged("/"+found) || bytes.ContainsAny(target, "?# \r\n") {
			t.Fatalf("%q: %q becomes %q", path, judged.Decoded, target)
		}
	}
	if taken < 2_000 {
		t.Fatalf("%d paths are too few", taken)
	}
}

// parse reads a request for a path; nil: it is refused.
func parse(path string) *http1.Request {
	r, limits := &http1.Request{}, http1.Usual()
	if done, err := r.Parse([]byte("GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n"), &limits); err != nil || !done {
		return nil
	}
	return r
}

// merged is a path with one slash for several.
func merged(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}
