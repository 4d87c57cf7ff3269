package forward

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/servers/dns"
)

// TestSpecialNames: what no upstream is asked for.
func TestSpecialNames(t *testing.T) {
	for _, test := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"localhost", miekg.TypeA, "127.0.0.1"},
		{"db.localhost", miekg.TypeAAAA, "::1"},
		{"localhost", miekg.TypeMX, "NOERROR"},
		{"1.0.0.127.in-addr.arpa", miekg.TypePTR, "localhost."},
		{"127.in-addr.arpa", miekg.TypePTR, "NOERROR"},
		{loopback6, miekg.TypePTR, "localhost."},
		{"invalid", miekg.TypeA, "NXDOMAIN"},
		{"a.b.invalid", miekg.TypeAAAA, "NXDOMAIN"},
		{"example.onion", miekg.TypeA, "NXDOMAIN"},
		{"_dns.resolver.arpa", miekg.TypeSVCB, "NOERROR"},
		{"1.0.0.10.in-addr.arpa", miekg.TypePTR, "asked"},
		{"1.0.16.172.in-addr.arpa", miekg.TypePTR, "asked"},
		{"printer.local", miekg.TypeA, "asked"},
		{"web.test", miekg.TypeA, "asked"},
		{"notlocalhost", miekg.TypeA, "asked"},
		{"myinvalid", miekg.TypeA, "asked"},
	} {
		inBubble(t, Options{}, []does{says(0, rcodeRefused)}, func(t *testing.T, b *bench) {
			m, _ := b.look(question(test.name, test.qtype))
			got := miekg.RcodeToString[m.Rcode]
			if len(m.Answer) == 1 {
				got = strings.TrimPrefix(m.Answer[0].String(), m.Answer[0].Header().String())
			} else if got != "REFUSED" && (len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != miekg.TypeSOA) {
				t.Errorf("%s: no SOA says for how long there is nothing: %v", test.name, m)
			}
			if got == "REFUSED" && b.fakes[0].asked.Load() > 0 {
				got = "asked"
			}
			if got != test.want {
				t.Errorf("%s %s: %s, want %s", test.name, miekg.TypeToString[test.qtype], got, test.want)
			}
			if _, ok := b.Cached(question(test.name, test.qtype), nil); !ok {
				t.Errorf("%s is not kept", test.name)
			}
		})
	}
	private := &Options{PrivateReverse: true}
	for name, want := range map[string]bool{
		"1.0.0.10.in-addr.arpa.": true, "1.0.16.172.in-addr.arpa.": true, "1.0.31.172.in-addr.arpa.": true, "1.0.32.172.in-addr.arpa.": false,
		"1.1.168.192.in-addr.arpa.": true, "8.8.8.8.in-addr.arpa.": false, "www.example.": false,
	} {
		q := question(name, miekg.TypePTR)
		if got := special(&ask{name: string(q.Name), qtype: q.Type}, private); (got != nil) != want {
			t.Errorf("%s is private: %v", name, got != nil)
		}
	}
}

// TestOtherClasses: nothing is told of the server by CHAOS.
func TestOtherClasses(t *testing.T) {
	inBubble(t, Options{}, []does{after(0, 60, "10.9.0.1")}, func(t *testing.T, b *bench) {
		q := question("version.bind", miekg.TypeTXT)
		q.Class = 3
		if m, _ := b.look(q); m.Rcode != rcodeRefused || b.fakes[0].asked.Load() > 0 {
			t.Errorf("got %v", m)
		}
	})
}

// TestTrace: each step is said, with who was asked and what came of it.
func TestTrace(t *testing.T) {
	ms := time.Millisecond
	inBubble(t, Options{Ordered: true}, []does{refused, says(5*ms, rcodeServFail), after(20*ms, 60, "10.9.0.3")}, func(t *testing.T, b *bench) {
		time.Sleep(time.Second) // all have been probed
		q := question("www.example", typeA)
		var by dns.Source
		q.Source = &by
		expectSource := func(want dns.Source) {
			t.Helper()
			if by != want {
				t.Errorf("answered by %+v, want %+v", by, want)
			}
		}
		third := dns.Source{By: dns.ByUpstream, Upstream: "192.0.2.3:53"}
		wire, steps := b.Trace(t.Context(), q, false)
		expectSource(third)
		if m := b.read(q, wire); addr(m) != "10.9.0.3" {
			t.Errorf("got %v", m)
		}
		expectSteps(t, steps, "no answer is kept", "3 upstreams are asked", "192.0.2.1:53 is down: connection refused", "192.0.2.2:53 answers in about", "192.0.2.2:53 SERVFAIL", "192.0.2.3:53 NOERROR")
		time.Sleep(10 * time.Second)
		_, steps = b.Trace(t.Context(), q, false)
		expectSteps(t, steps, "an answer is kept: 10s old, for another 50s")
		expectSource(dns.Source{By: dns.ByCache, Upstream: "192.0.2.3:53"})
		if _, err := b.Answer(t.Context(), q, nil); err != nil {
			t.Error(err)
		}
		expectSource(dns.Source{By: dns.ByCache})
		_, steps = b.Trace(t.Context(), q, true)
		expectSteps(t, steps, "an answer is kept", "192.0.2.3:53 NOERROR")
		_, steps = b.Trace(t.Context(), question("localhost", typeA), false)
		expectSteps(t, steps, "the name means the same everywhere")
		other := question("other.example", typeA)
		other.Source = &by
		if _, err := b.Answer(t.Context(), other, nil); err != nil {
			t.Error(err)
		}
		expectSource(third)
	})
}

// expectSteps finds steps in their order, others between them.
func expectSteps(t *testing.T, steps []Step, want ...string) {
	t.Helper()
	var all []string
	for _, s := range steps {
		line := strings.TrimSpace(s.Upstream + " " + s.Text)
		all = append(all, fmt.Sprintf("%6s %6s %s", s.At.Round(time.Millisecond), s.Took.Round(time.Millisecond), line))
		if len(want) > 0 && strings.HasPrefix(line, want[0]) {
			want = want[1:]
		}
	}
	t.Log("\n" + strings.Join(all, "\n"))
	if len(want) > 0 {
		t.Errorf("no step says %q", want[0])
	}
}

// TestMetricsAreDeclared: what is emitted is described, with as many labels.
func TestMetricsAreDeclared(t *testing.T) {
	inBubble(t, Options{}, []does{after(time.Millisecond, 60, "10.9.0.1")}, func(t *testing.T, b *bench) {
		b.look(question("www.example", typeA))
		b.look(question("www.example", typeA))
		values := map[string]float64{}
		declared := map[string]int{}
		for _, m := range Metrics() {
			declared[m.Name] = len(m.Labels)
		}
		b.Read(func(name string, value float64, labels ...string) {
			if n, ok := declared[name]; !ok || n != len(labels) {
				t.Errorf("%s%q is not declared so", name, labels)
			}
			values[name] += value
		})
		if len(values) != len(declared) {
			t.Errorf("%d of %d metrics have a value", len(values), len(declared))
		}
		for name, want := range map[string]float64{"coredns_cache_hits_total": 1, "coredns_cache_misses_total": 1, "coredns_cache_requests_total": 2, "coredns_cache_entries": 1, "fairlead_dns_upstream_up": 1} {
			if values[name] != want {
				t.Errorf("%s is %v, want %v", name, values[name], want)
			}
		}
		count := uint64(0)
		b.Durations(func(h *Histogram, _ ...string) {
			n, _, buckets := h.Read()
			count += n
			if n > 0 && (buckets[0.0005] != 0 || buckets[0.001] != 1 || buckets[4.096] != 1) {
				t.Errorf("buckets are %v", buckets)
			}
		})
		if count != 1 {
			t.Errorf("%d durations", count)
		}
	})
}

// TestFromModel: what a cluster says applies.
func TestFromModel(t *testing.T) {
	said := model.DefaultDNS()
	said.Ordered = true
	o := FromModel(said).withDefaults()
	if o.Zone != "cluster.local" || !o.Ordered || o.MaxTTL != time.Hour || o.MaxNegativeTTL != 30*time.Second || o.MaxStale != 24*time.Hour || o.CacheBytes != 16<<20 {
		t.Errorf("%+v", o)
	}
	said.Cache.MaxTTL = 0
	if o := FromModel(said).withDefaults(); o.MaxTTL != 0 {
		t.Errorf("a cache that is switched off keeps answers for %s", o.MaxTTL)
	}
}

// ready is a forwarder that has answers to n names.
func ready(n int) (*Forwarder, []string) {
	o := FromModel(model.DefaultDNS())
	o.ResolvConf = "/nowhere"
	f := newWith(o, nil, slog.New(slog.NewTextHandler(io.Discard, nil)), nil)
	var names []string
	for i := range n {
		name := fmt.Sprintf("w%d.example", i)
		names = append(names, name)
		q := question(name, typeA)
		a := &ask{name: string(q.Name), qtype: typeA}
		kept, err := clean(respond(a, func(m *miekg.Msg) {
			rr, _ := miekg.NewRR(name + ". 3000 A 10.0.0.1")
			m.Answer = append(m.Answer, rr)
		}), a, hour)
		if err != nil {
			panic(err)
		}
		var k key
		f.cache.put(string(keyOf(q, &k)), kept, 0)
	}
	return f, names
}

// TestHitsNeedNoMemory: an answer that is kept is given without any.
func TestHitsNeedNoMemory(t *testing.T) {
	f, names := ready(10)
	q := question(names[3], typeA)
	into := make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := f.Cached(q, into); !ok {
			t.Fatal("not kept")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
