package dns

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/model"
	plandns "github.com/fairlead-net/fairlead/plan/dns"
)

// gate is a Gate that notes what it is told, and opens when it is let.
type gate struct {
	open chan struct{} // closed: at once

	mu   sync.Mutex
	told map[string]uint32 // TTLs, by name and address
}

func (g *gate) Passed(name plandns.Name, addr netip.Addr, ttl uint32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	known, ok := g.told[strings.TrimSuffix(name.String(), ".")+" "+addr.String()]
	return ok && known >= ttl
}

func (g *gate) Install(ctx context.Context, found []model.Resolution) {
	select {
	case <-g.open:
	case <-ctx.Done():
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range found {
		for _, addr := range r.Addresses {
			g.told[r.Name+" "+addr.String()] = r.TTL
		}
	}
}

func (g *gate) all() (all []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key := range g.told {
		all = append(all, key)
	}
	slices.Sort(all)
	return all
}

// TestHeld: an answer with addresses of a name that policies allow is given when the
// gate has them, also those of names that it stands for; and at once if it has had
// them before.
func TestHeld(t *testing.T) {
	const chain = "www.example.org. 60 IN CNAME a.example.net.\na.example.net. 30 IN A 192.0.2.1\na.example.net. 30 IN A 192.0.2.2"
	for _, test := range []struct {
		name, records string
		kind          uint16
		domains       []string
		want          []string
	}{
		{"the name that is asked for", chain, dns.TypeA, []string{"www.example.org"}, []string{"www.example.org 192.0.2.1", "www.example.org 192.0.2.2"}},
		{"a pattern", chain, dns.TypeA, []string{"*.example.org", "*.org"}, []string{"www.example.org 192.0.2.1", "www.example.org 192.0.2.2"}},
		{"the name at the end", chain, dns.TypeA, []string{"a.example.net"}, []string{"a.example.net 192.0.2.1", "a.example.net 192.0.2.2"}},
		{"both", chain, dns.TypeA, []string{"*.net", "*.org"}, []string{"a.example.net 192.0.2.1", "a.example.net 192.0.2.2", "www.example.org 192.0.2.1", "www.example.org 192.0.2.2"}},
		{"IPv6", "www.example.org. 60 IN AAAA 2001:db8::1", dns.TypeAAAA, []string{"www.example.org"}, []string{"www.example.org 2001:db8::1"}},
		{"another name", chain, dns.TypeA, []string{"example.org", "*.www.example.org", "*.example.com"}, nil},
		{"no names", chain, dns.TypeA, nil, nil},
		{"no addresses", "www.example.org. 60 IN TXT a", dns.TypeTXT, []string{"www.example.org"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			served := *servedNow(t)
			served.Domains = NewDomains(test.domains)
			g := &gate{open: make(chan struct{}), told: map[string]uint32{}}
			raw, err := new(dns.Msg).SetQuestion("WWW.example.org.", test.kind).Pack()
			if err != nil {
				t.Fatal(err)
			}
			a := &answering{others: &Client{}, counts: &counts{}, q: &query{}, r: &reply{}, outside: memory{&world{t: t, records: test.records, cached: true}}, random: 1, gate: g}
			asks := func() []byte { return a.message(&served, raw, asker{addr: netip.MustParseAddr("127.0.0.1")}, nil) }
			if got := asks(); (got == nil) != (test.want != nil) || a.waits != (test.want != nil) {
				t.Errorf("the loop answers %v, waits %v", got, a.waits)
			}
			close(g.open)
			a.wait = t.Context()
			if asks() == nil {
				t.Error("there is no answer")
			}
			if got := g.all(); !slices.Equal(got, test.want) {
				t.Errorf("the gate is told %q, want %q", got, test.want)
			}
			a.wait = nil
			if asks() == nil {
				t.Error("what the gate has is not answered at once")
			}
		})
	}
}

// TestHeldOverSearch: the name that the end of a search path stands for counts.
func TestHeldOverSearch(t *testing.T) {
	served := *servedNow(t)
	served.Domains = NewDomains([]string{"www.example.org"})
	served.Complete = true
	from := netip.MustParseAddr("10.244.0.5")
	served.Pods = served.Pods.With(from, &Client{Namespace: "default", Name: "pod"})
	g := &gate{open: make(chan struct{}), told: map[string]uint32{}}
	close(g.open)
	w := &world{t: t, records: "www.example.org. 30 IN A 192.0.2.1", cached: true}
	raw, err := new(dns.Msg).SetQuestion("www.example.org.default.svc.cluster.local.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	a := &answering{others: &Client{}, counts: &counts{}, q: &query{}, r: &reply{}, outside: memory{w}, random: 1, gate: g, wait: t.Context()}
	if a.message(&served, raw, asker{addr: from}, nil) == nil {
		t.Fatal("there is no answer")
	}
	if got := g.all(); !slices.Equal(got, []string{"www.example.org 192.0.2.1"}) {
		t.Errorf("the gate is told %q", got)
	}
}

// TestHeldAllocation: names of the cluster do not get near the gate, and an answer
// from memory that the gate has let pass before costs no memory either.
func TestHeldAllocation(t *testing.T) {
	served := *servedNow(t)
	served.Domains = NewDomains([]string{"*.example.org", "a.example.net"})
	m := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
	m.Id, m.Response, m.RecursionDesired, m.RecursionAvailable, m.Compress = 0, true, false, true, true
	for _, text := range []string{"www.example.org. 60 IN CNAME a.example.net.", "a.example.net. 30 IN A 192.0.2.1"} {
		r, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, r)
	}
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	query, err := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	passing := &always{}
	a := &answering{others: &Client{}, counts: &counts{}, q: new(queryOf), r: &reply{}, outside: memory{remembered(raw)}, random: 1, gate: passing}
	into := make([]byte, 0, 2048)
	if got := testing.AllocsPerRun(100, func() {
		if a.message(&served, query, asker{addr: netip.MustParseAddr("127.0.0.1")}, into) == nil {
			t.Fatal("it waits")
		}
	}); got > 0 {
		t.Errorf("it costs %v allocations", got)
	}
	if passing.asked == 0 {
		t.Error("the gate is not asked")
	}
}

// remembered is a Forwarder that knows one message.
type remembered []byte

func (m remembered) Cached(_ Question, into []byte) ([]byte, bool) { return append(into, m...), true }

func (m remembered) Answer(_ context.Context, _ Question, into []byte) ([]byte, error) {
	return append(into, m...), nil
}

// always is a Gate that everything has passed.
type always struct{ asked int }

func (g *always) Passed(plandns.Name, netip.Addr, uint32) bool { g.asked++; return true }

func (*always) Install(context.Context, []model.Resolution) {}
