package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// named is a domains that nothing runs, and whose policy has some names.
func named(t *testing.T, path string, names ...string) *domains {
	t.Helper()
	d := newDomains(&Config{Log: slog.New(slog.DiscardHandler)}, &model.Feed{}, func() (bool, bool) { return true, false }, &notices{}, path)
	d.applied = func(context.Context, uint64) error { return nil }
	d.allow(names...)
	return d
}

// allow gives the feed a policy.
func (d *domains) allow(names ...string) {
	policy := &model.ClusterPolicy{Name: "p"}
	rule := model.ClusterRule{}
	for _, name := range names {
		rule.Peers = append(rule.Peers, model.Peer{Domain: name})
	}
	policy.Rules[model.Egress] = []model.ClusterRule{rule}
	d.feed.Edit(func(s *model.Snapshot) {
		s.PoliciesKnown, s.ClusterPolicies = true, s.ClusterPolicies.With("p", policy)
	})
}

// known is what the feed has.
func (d *domains) known() (all []string) {
	s, _ := d.feed.Latest()
	for addr, resolved := range s.Resolved.All() {
		all = append(all, addr.String()+" "+strings.Join(resolved.Names, ","))
	}
	slices.Sort(all)
	return all
}

func (d *domains) learns(t *testing.T, name string, ttl uint32, addresses ...string) {
	t.Helper()
	r := model.Resolution{Name: name, TTL: ttl}
	for _, addr := range addresses {
		r.Addresses = append(r.Addresses, netip.MustParseAddr(addr))
	}
	if err := d.Learn(t.Context(), []model.Resolution{r}); err != nil {
		t.Fatal(err)
	}
}

func (d *domains) expires(after time.Duration) {
	s, _ := d.feed.Latest()
	d.expire(s, time.Now().Add(after))
}

// TestDomains: addresses are known from when a pod is told of them until the TTL and
// a while are over; those of names that no policy has are not.
func TestDomains(t *testing.T) {
	path := filepath.Join(t.TempDir(), "domains.json")
	d := named(t, path, "a.example.org", "*.example.com")
	check := func(what string, want ...string) {
		t.Helper()
		if got := d.known(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	d.learns(t, "a.example.org", 30, "192.0.2.1", "2001:db8::1")
	d.learns(t, "b.example.org", 30, "192.0.2.9")
	d.learns(t, "x.example.com", 600, "192.0.2.1")
	check("learned", "192.0.2.1 a.example.org,x.example.com", "2001:db8::1 a.example.org")
	d.expires(30*time.Second + model.ResolutionGrace - time.Second)
	check("before its end", "192.0.2.1 a.example.org,x.example.com", "2001:db8::1 a.example.org")
	d.served = func() (bool, bool) { return false, false }
	d.expires(31*time.Second + model.ResolutionGrace)
	check("without a DNS server", "192.0.2.1 a.example.org,x.example.com", "2001:db8::1 a.example.org")
	d.served = func() (bool, bool) { return true, false }
	d.expires(32*time.Second + 2*model.ResolutionGrace)
	check("after its end", "192.0.2.1 x.example.com")
	d.save()

	again := named(t, path, "*.example.com")
	again.recall()
	if got := again.known(); !slices.Equal(got, d.known()) {
		t.Errorf("the next agent knows %q", got)
	}
	s, _ := d.feed.Latest()
	if names, forgotten := d.want(s); !slices.Equal(names, []string{"*.example.com", "a.example.org"}) || forgotten != 0 {
		t.Errorf("wanted are %q, forgotten %d", names, forgotten)
	}
	d.allow("a.example.org")
	d.expires(0)
	check("without its policy")
	s, _ = d.feed.Latest()
	if names, forgotten := d.want(s); !slices.Equal(names, []string{"a.example.org"}) || forgotten != 1 {
		t.Errorf("wanted are %q, forgotten %d", names, forgotten)
	}
}

// TestDomainsLapsed: where connections are ended that policies forbid, it is known
// which addresses a name has led to, by the next agent too, until it leads there
// again or a day is over.
func TestDomainsLapsed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "domains.json")
	d := named(t, path, "a.example.org")
	d.feed.Edit(func(s *model.Snapshot) {
		s.Network = model.DefaultNetwork()
		s.Network.Policy.CutEstablished = true
	})
	addr := netip.MustParseAddr("192.0.2.1")
	check := func(what string, of *domains, names, lapsed []string) {
		t.Helper()
		s, _ := of.feed.Latest()
		got, ok := s.Resolved.Get(addr)
		if want := (&model.Resolved{Names: names, Lapsed: lapsed}); ok != (names != nil || lapsed != nil) || ok && !got.Equal(want) {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	a := []string{"a.example.org"}
	d.learns(t, "a.example.org", 30, "192.0.2.1")
	d.expires(2 * time.Minute)
	check("over", d, nil, a)
	d.save()
	again := named(t, path, "a.example.org")
	again.recall()
	check("of the next agent", again, nil, a)
	d.learns(t, "a.example.org", 30, "192.0.2.1")
	check("again", d, a, nil)
	d.expires(2 * time.Minute)
	check("over again", d, nil, a)
	d.expires(25 * time.Hour)
	check("after a day", d, nil, nil)
}

// TestDomainsUnknown: what is told before policies are known waits for them.
func TestDomainsUnknown(t *testing.T) {
	d := newDomains(&Config{Log: slog.New(slog.DiscardHandler)}, &model.Feed{}, func() (bool, bool) { return true, false }, &notices{}, filepath.Join(t.TempDir(), "d"))
	d.applied = func(context.Context, uint64) error { return nil }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	found := []model.Resolution{{Name: "a.example.org", TTL: 1, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
	if d.Learn(ctx, found) == nil {
		t.Error("it says that it is in the kernel")
	}
	d.allow("a.example.org")
	if err := d.Learn(t.Context(), found); err != nil || len(d.known()) != 1 {
		t.Errorf("%v, %q", err, d.known())
	}
}

// TestDomainsFull: a pattern has so many addresses and no more, and those that it has
// stay; the policy says so. Others are not affected.
func TestDomainsFull(t *testing.T) {
	d := named(t, filepath.Join(t.TempDir(), "d"), "*.example.org", "www.example.com")
	r := []model.Resolution{}
	for i := range maxResolved + 10 {
		r = append(r, model.Resolution{Name: fmt.Sprintf("n%d.example.org", i), TTL: 30, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})}})
	}
	if err := d.Learn(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	d.learns(t, "www.example.com", 30, "198.51.100.1")
	if got := len(d.known()); got != maxResolved+1 {
		t.Errorf("%d addresses are known", got)
	}
	s, _ := d.feed.Latest()
	d.tell(s)
	if problems := d.notices.Problems(); len(problems) != 1 || problems[0].Reason != "TooManyAddresses" || problems[0].Name != "p" {
		t.Errorf("%v", problems)
	}
	d.expires(time.Hour)
	s, _ = d.feed.Latest()
	d.served = func() (bool, bool) { return false, true }
	if d.tell(s); len(d.notices.Problems()) != 2 || d.notices.Problems()[0].Reason != "NameServerOld" {
		t.Errorf("with an old DNS server: %v", d.notices.Problems())
	}
	d.served = func() (bool, bool) { return true, false }
	if d.tell(s); len(d.notices.Problems()) != 0 || s.Resolved.Len() != 0 {
		t.Errorf("%v", d.notices.Problems())
	}
}
