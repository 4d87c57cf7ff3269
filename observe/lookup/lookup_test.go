package lookup

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestCandidates: what is asked for follows resolv.conf as kubelets write it.
func TestCandidates(t *testing.T) {
	cluster := Cluster{Zone: "cluster.local.", Namespace: "shop", Search: []string{"corp.example.", "svc.cluster.local."}}
	for name, test := range map[string]struct {
		resolver Resolver
		name     string
		want     string
	}{
		"outside":       {Resolver{NDots: -1}, "www.example.com", "www.example.com.shop.svc.cluster.local. www.example.com.svc.cluster.local. www.example.com.cluster.local. www.example.com.corp.example. www.example.com."},
		"five dots":     {Resolver{NDots: -1}, "a.b.c.d.e.f", "a.b.c.d.e.f. a.b.c.d.e.f.shop.svc.cluster.local. a.b.c.d.e.f.svc.cluster.local. a.b.c.d.e.f.cluster.local. a.b.c.d.e.f.corp.example."},
		"in full":       {Resolver{NDots: -1}, "www.example.com.", "www.example.com."},
		"its own ndots": {Resolver{NDots: 1, Search: []string{"more.example"}}, "a.b", "a.b. a.b.shop.svc.cluster.local. a.b.svc.cluster.local. a.b.cluster.local. a.b.corp.example. a.b.more.example."},
		"none":          {Resolver{None: true, NDots: -1, Search: []string{"x.example"}}, "a", "a.x.example. a."},
		"no dots":       {Resolver{None: true, NDots: 0}, "a", "a."},
		"too long":      {Resolver{None: true, NDots: -1, Search: []string{strings.Repeat("a.", 126) + "a"}}, "b", "b."},
	} {
		if got := strings.Join(PathOf(test.resolver, cluster).Candidates(test.name), " "); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// TestQuestion: what is written is read again, and what nobody can ask is refused.
func TestQuestion(t *testing.T) {
	for _, q := range []Question{
		{Client: netip.MustParseAddr("10.244.0.5"), Name: "a.b", Types: []string{"A", "SRV"}, Resolver: Resolver{NDots: -1}},
		{Client: netip.MustParseAddr("fd00::5"), Name: ".", Types: []string{"NS"}, Resolver: Resolver{None: true, Nameservers: []string{"192.0.2.1"}, Search: []string{"x", "y"}, NDots: 0}, NoCompletion: true, Anew: true},
	} {
		if got, err := ReadQuestion(q.Values()); err != nil || !reflect.DeepEqual(got, q) {
			t.Errorf("%+v, %v, want %+v", got, err, q)
		}
	}
	for bad, want := range map[string]string{
		"": "empty", "a..b": "between 1 and 63", "a b": "no name of a host", "ü.example": "xn--", strings.Repeat("a.", 128): "more than 255",
	} {
		if _, err := CheckName(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", bad, err, want)
		}
	}
}

// says answers some names with an address.
func says(names ...string) func(context.Context, string, string) Query {
	return func(_ context.Context, name, kind string) Query {
		q := Query{Name: name, Type: kind, Rcode: "NXDOMAIN", Seconds: 0.001, Steps: []Step{{Name: name, By: "cluster", Rcode: "NXDOMAIN"}}}
		if slices.Contains(names, name) {
			q.Rcode, q.Records = "NOERROR", []Record{{Name: name, Type: kind, Data: "192.0.2.1"}}
		}
		return q
	}
}

// TestWalk: names are asked for until one is found, and what completion saves is
// counted.
func TestWalk(t *testing.T) {
	look := func(ask func(context.Context, string, string) Query) *Lookup {
		l := &Lookup{Name: "www.example.com", Types: []string{"A", "AAAA"}, Path: PathOf(Resolver{NDots: -1}, Cluster{Zone: "cluster.local", Namespace: "shop"})}
		Walk(t.Context(), l, ask)
		return l
	}
	if l := look(says("www.example.com.")); !l.Found || len(l.Queries) != 8 || l.Without != 0 || l.Seconds < 0.0039 || l.Seconds > 0.0041 {
		t.Errorf("without completion: %+v", l)
	}
	if l := look(says()); l.Found || len(l.Queries) != 8 {
		t.Errorf("a name that is not there: %+v", l)
	}
	first := says("www.example.com.shop.svc.cluster.local.")
	l := look(func(ctx context.Context, name, kind string) Query {
		q := first(ctx, name, kind)
		q.Completed = "www.example.com."
		q.Steps = append(q.Steps, Step{Name: "www.example.com.", By: "upstream", Upstream: "192.0.2.9:53", Rcode: "NOERROR", Seconds: 0.02})
		return q
	})
	if !l.Found || len(l.Queries) != 2 || l.Without != 8 {
		t.Errorf("with completion: %+v", l)
	}
	var text strings.Builder
	if err := Text(&text, l, false, Style{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"✓  1  A     www.example.com.shop.svc.cluster.local.  NOERROR   1.00 ms\n",
		"            www.example.com.                         upstream 192.0.2.9:53  NOERROR   20 ms\n",
		"✓ found 192.0.2.1, 192.0.2.1: 2 queries, 1.00 ms; without completion 8 queries (--no-completion shows them)\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, text.String())
		}
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late := &Lookup{Name: "a", Types: []string{"A"}}
	if Walk(ended, late, says()); len(late.Queries) != 0 || len(late.Notes) != 1 {
		t.Errorf("without time: %+v", late)
	}
}
