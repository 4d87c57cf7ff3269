package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestAsked: for which hosts a certificate is ordered, where it stands among others,
// and what is said of those that can have none.
func TestAsked(t *testing.T) {
	const ask, any = "fairlead.io/acme", "kubernetes.io/tls-acme"
	type annotated map[string]string
	for name, test := range map[string]struct {
		off         bool // the Network says of nobody who gives any
		annotations annotated
		lines       []string
		want        string // HOST CERTIFICATES of each host, and reasons
	}{
		"not asked":                     {false, nil, []string{"prefix a.org/ web", "tls own a.org"}, "a.org [shop/own]"},
		"asked":                         {false, annotated{ask: "true"}, []string{"prefix a.org/ web", "prefix b.org/ web"}, "a.org [+a.org] tls, b.org [+b.org] tls"},
		"asked of anybody":              {false, annotated{any: "true"}, []string{"prefix a.org/ web", "tls own a.org"}, "a.org [shop/own +a.org] tls"},
		"some hosts":                    {false, annotated{ask: "true"}, []string{"prefix a.org/ web", "prefix b.org/ web", "tls own a.org"}, "a.org [shop/own +a.org] tls, b.org []"},
		"off":                           {false, annotated{ask: "false", any: "no"}, []string{"prefix a.org/ web"}, "a.org []"},
		"off, whoever else may":         {false, annotated{ask: "false", any: "true"}, []string{"prefix a.org/ web", "tls own a.org"}, "a.org [shop/own]"},
		"no word":                       {false, annotated{ask: "maybe"}, []string{"prefix a.org/ web"}, "a.org [] NotHonoured"},
		"nobody gives any":              {true, annotated{ask: "true"}, []string{"prefix a.org/ web"}, "a.org [] ACMEOff"},
		"cert-manager does":             {true, annotated{any: "true"}, []string{"prefix a.org/ web", "tls own a.org"}, "a.org [shop/own]"},
		"a wildcard":                    {false, annotated{ask: "true"}, []string{"prefix *.a.org/ web", "prefix a.org/ web"}, "*.a.org [], a.org [+a.org] tls NotOrderable"},
		"a wildcard with a certificate": {false, annotated{ask: "true"}, []string{"prefix *.a.org/ web", "tls own *.a.org"}, "*.a.org [shop/own]"},
		"no host":                       {false, annotated{ask: "true"}, []string{"prefix / web"}, " [] NotOrderable"},
		"other names": {false, annotated{ask: "true", prefix + "server-alias": "c.org,*.d.org", prefix + "from-to-www-redirect": "true"}, []string{"prefix a.org/ web"},
			"*.d.org [], a.org [+a.org] tls, c.org [+c.org] tls, www.a.org [+www.a.org] tls NotOrderable"},
		"names that no Secret can have": {false, annotated{ask: "true", prefix + "server-alias": "-a.x.org,a_b.x.org,a-.x.org,a-b.x.org"}, []string{"prefix a.org/ web"},
			"-a.x.org [], a-.x.org [], a-b.x.org [+a-b.x.org] tls, a.org [+a.org] tls, a_b.x.org [] NotOrderable NotOrderable NotOrderable"},
		"passed through": {false, annotated{ask: "true", prefix + "ssl-passthrough": "true"}, []string{"prefix a.org/ web"}, "a.org []"},
		"a canary":       {false, annotated{ask: "true", prefix + "canary": "true"}, []string{"prefix m.org/ web"}, "m.org []"},
	} {
		w := newWorld()
		w.Network.Ingress.ACME.Server = "https://ca.example/dir"
		w.ingress("main", "prefix m.org/ web")
		i := w.ingress("i", test.lines...)
		next := *i
		for key, value := range test.annotations {
			next.Annotations = append(next.Annotations, model.Annotation{Key: key, Value: value})
		}
		w.Ingresses = w.Ingresses.With(next.IngressKey, &next)
		table, _ := Compute(nil, &w.Snapshot)
		if network := *w.Network; test.off { // as it is turned off
			network.Ingress.ACME.Server = ""
			w.Network = &network
		}
		table, problems := Compute(table, &w.Snapshot)
		if fresh, _ := Compute(nil, &w.Snapshot); told(fresh) != told(table) {
			t.Errorf("%s: %s, but from nothing %s", name, told(table), told(fresh))
		}
		got := told(table)
		for _, p := range problems {
			got += " " + p.Reason
		}
		if !strings.Contains(test.want, "m.org") {
			got = strings.TrimPrefix(strings.Replace(got, ", m.org []", "", 1), "m.org [], ")
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// told says of each host which certificates it has, with a + those that are ordered.
func told(table *Table) string {
	var all []string
	for name, host := range table.Hosts.All() {
		var certificates []string
		for _, key := range host.Certificates {
			certificates = append(certificates, strings.Replace(key.String(), "fairlead-certificates/certificate.", "+", 1))
		}
		text := fmt.Sprint(name, " ", certificates)
		if host.Asked != nil {
			text += map[bool]string{true: " tls", false: " asked without tls"}[host.TLS]
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// TestAskedOfOthers: who is not in the namespace that a host is of has no certificate
// ordered for it, and what is ordered comes before what others name.
func TestAskedOfOthers(t *testing.T) {
	w := newWorld()
	w.Network.Ingress.ACME.Server = "https://ca.example/dir"
	w.ingress("one", "prefix a.org/ web", "tls own a.org")
	two := *w.ingress("two", "prefix a.org/x web", "tls theirs a.org")
	w.Ingresses = w.Ingresses.Without(two.IngressKey)
	two.Namespace = "other"
	two.Annotations = []model.Annotation{{Key: askAnnotation, Value: "true"}}
	w.Ingresses = w.Ingresses.With(two.IngressKey, &two)
	if table, _ := Compute(nil, &w.Snapshot); told(table) != "a.org [shop/own other/theirs]" {
		t.Error(told(table))
	}
	one, _ := w.Ingresses.Get(model.IngressKey{Namespace: "shop", Name: "one"})
	next := *one
	next.Annotations = two.Annotations
	w.Ingresses = w.Ingresses.With(next.IngressKey, &next)
	table, _ := Compute(nil, &w.Snapshot)
	if told(table) != "a.org [shop/own +a.org other/theirs] tls" {
		t.Error(told(table))
	}
	host, _ := table.Hosts.Get("a.org")
	if wants := table.Wanted(func(*Host) bool { return false }); len(wants) != 1 || wants[0] != host || host.Asked.Ingress.Name != "one" {
		t.Errorf("wanted are %v", wants)
	}
	if wants := table.Wanted(func(*Host) bool { return true }); len(wants) != 0 {
		t.Errorf("wanted are %v", wants)
	}
}

// asks has an Ingress ask for certificates, in a namespace where it is from now on.
func (w *world) asks(of *model.HTTPIngress, namespace string) {
	next := *of
	w.Ingresses = w.Ingresses.Without(of.IngressKey)
	next.Namespace, next.Annotations = namespace, []model.Annotation{{Key: askAnnotation, Value: "true"}}
	w.Ingresses = w.Ingresses.With(next.IngressKey, &next)
}

// TestAskedInVain: who has no path of a host has no certificate ordered for it, though
// it is the oldest, nor has who is not its owner, who is told so.
func TestAskedInVain(t *testing.T) {
	w := newWorld()
	w.Network.Ingress.ACME.Server = "https://ca.example/dir"
	old := *w.ingress("old", "prefix a.org/ web")
	old.Rules = []model.IngressRule{{Host: "a.org"}}
	w.asks(&old, "other")
	w.ingress("web", "prefix a.org/ web", "tls own a.org")
	table, problems := Compute(nil, &w.Snapshot)
	if told(table) != "a.org [shop/own]" {
		t.Error(told(table))
	}
	if len(problems) != 1 || problems[0].Reason != "NotYours" || problems[0].Namespace != "other" || !strings.Contains(problems[0].Message, "shop/web") {
		t.Errorf("problems are %v", problems)
	}
	web, _ := w.Ingresses.Get(model.IngressKey{Namespace: "shop", Name: "web"})
	w.asks(web, "shop")
	if table, problems = Compute(nil, &w.Snapshot); told(table) != "a.org [shop/own +a.org] tls" || len(problems) != 0 {
		t.Error(told(table), problems)
	}
}

// TestAskedByAlias: other names of a host have certificates ordered only by its owner,
// and in the name of who has given them.
func TestAskedByAlias(t *testing.T) {
	w := newWorld()
	w.Network.Ingress.ACME.Server = "https://ca.example/dir"
	w.asks(w.ingress("one", "prefix a.org/ web"), "shop")
	two := w.ingress("two", "prefix a.org/x web")
	w.Ingresses = w.Ingresses.Without(two.IngressKey)
	for namespace, want := range map[string]string{"other": "a.org [+a.org] tls, b.org []", "shop": "a.org [+a.org] tls, b.org [+b.org] tls"} {
		next := *two
		next.Namespace, next.Annotations = namespace, []model.Annotation{{Key: prefix + "server-alias", Value: "b.org"}}
		of := world{Snapshot: w.Snapshot}
		of.Ingresses = of.Ingresses.With(next.IngressKey, &next)
		table, _ := Compute(nil, &of.Snapshot)
		if told(table) != want {
			t.Errorf("%s: %s, want %s", namespace, told(table), want)
		}
		if host, _ := table.Hosts.Get("b.org"); host.Asked != nil && (host.Asked.Ingress.Name != "two" || !strings.Contains(host.Asked.Field, "server-alias")) {
			t.Errorf("%s: it is asked for by %+v", namespace, host.Asked)
		}
	}
}
