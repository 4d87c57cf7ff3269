package policy

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// resolve lets names lead to an address.
func (c *cluster) resolve(addr string, names ...string) {
	if c.Resolved = c.Resolved.Without(netip.MustParseAddr(addr)); names != nil {
		c.Resolved = c.Resolved.With(netip.MustParseAddr(addr), &model.Resolved{Names: names})
	}
}

func domain(name string) model.Peer { return model.Peer{Domain: name} }

// TestDomainNames: addresses are accepted as long as a name leads to them that a rule
// names. Those of pods are the pods'.
func TestDomainNames(t *testing.T) {
	c := newCluster(t)
	c.judge("p", model.AdminTier, 1, model.Egress,
		act(model.Accept, allow(tcp(443), domain("www.example.org"), domain("*.example.com"))),
		act(model.Deny, allow(nil, addresses("0.0.0.0/0"), addresses("::/0"))))
	c.resolve("192.0.2.1", "www.example.org")
	c.resolve("192.0.2.2", "a.example.com", "b.example.net")
	c.resolve("192.0.2.3", "example.com", "example.org")
	c.resolve("2001:db8::1", "a.b.example.com")
	c.resolve("10.0.2.2", "a.example.com") // a pod's
	p := c.compute(nil)
	const denied = "deny by ClusterNetworkPolicy p: rule 2"
	expect(t, p,
		"10.0.1.1 egress to 192.0.2.1 TCP 443: accept",
		"10.0.1.1 egress to 192.0.2.1 TCP 80: "+denied,
		"10.0.1.1 egress to 192.0.2.1 UDP 443: "+denied,
		"10.0.1.1 egress to 192.0.2.2 TCP 443: accept",
		"10.0.1.1 egress to 192.0.2.3 TCP 443: "+denied,
		"10.0.1.1 egress to 192.0.2.4 TCP 443: "+denied,
		"fd00:1::1 egress to 2001:db8::1 TCP 443: accept",
		"10.0.1.1 egress to 10.0.2.2 TCP 443: "+denied,
	)
	if text := p.Explain(Subject{model.Egress, netip.MustParseAddr("10.0.1.1")}, netip.MustParseAddr("192.0.2.1"), model.TCP, 443).String(); text != "allowed by ClusterNetworkPolicy p: rule 1, direction egress" {
		t.Errorf("explained: %s", text)
	}

	// One more address is one more element, and so is one less.
	c.resolve("192.0.2.9", "c.example.com")
	next := c.compute(p)
	if n := changes(p, next); n != 1 {
		t.Errorf("an address that is new changes %d elements", n)
	}
	expect(t, next, "10.0.1.1 egress to 192.0.2.9 TCP 443: accept")
	c.resolve("192.0.2.9")
	last := c.compute(next)
	if n := changes(next, last); n != 1 {
		t.Errorf("an address that is over changes %d elements", n)
	}
	expect(t, last, "10.0.1.1 egress to 192.0.2.9 TCP 443: "+denied)
}

// TestKeeps: a connection that was made while a name led somewhere goes on when it
// does not any more, and no other.
func TestKeeps(t *testing.T) {
	c := newCluster(t)
	c.judge("p", model.AdminTier, 1, model.Egress,
		act(model.Accept, allow(tcp(443), domain("www.example.org"))), act(model.Deny, allow(nil, addresses("0.0.0.0/0"))))
	at := Subject{model.Egress, netip.MustParseAddr("10.0.1.1")}
	c.Resolved = c.Resolved.With(netip.MustParseAddr("192.0.2.1"), &model.Resolved{Lapsed: []string{"www.example.org"}})
	c.Resolved = c.Resolved.With(netip.MustParseAddr("192.0.2.2"), &model.Resolved{Lapsed: []string{"www.example.com"}})
	c.Resolved = c.Resolved.With(netip.MustParseAddr("192.0.2.3"), &model.Resolved{Names: []string{"www.example.org"}})
	c.Resolved = c.Resolved.With(netip.MustParseAddr("10.0.2.2"), &model.Resolved{Lapsed: []string{"www.example.org"}})
	p := c.compute(nil)
	for _, test := range []struct {
		peer          string
		port          uint16
		accept, keeps bool
	}{
		{"192.0.2.1", 443, false, true},
		{"192.0.2.1", 80, false, false},
		{"192.0.2.2", 443, false, false},
		{"192.0.2.3", 443, true, true},
		{"192.0.2.4", 443, false, false},
		{"10.0.2.2", 443, false, false}, // a pod's
	} {
		peer := netip.MustParseAddr(test.peer)
		if got := p.Decide(at, peer, model.TCP, test.port).Accept; got != test.accept {
			t.Errorf("%s %d is accepted: %t", peer, test.port, got)
		}
		if got := p.Keeps(at, peer, model.TCP, test.port); got != test.keeps {
			t.Errorf("%s %d goes on: %t", peer, test.port, got)
		}
	}
}

// TestStricterKeeps: a plan that ends what Keeps allowed says that it is stricter.
func TestStricterKeeps(t *testing.T) {
	for name, edit := range map[string]func(*cluster){
		"the rule": func(c *cluster) {
			c.judge("p", model.AdminTier, 1, model.Egress, act(model.Accept, allow(tcp(80), domain("www.example.org"))), act(model.Deny, allow(nil, addresses("0.0.0.0/0"))))
		},
		"what is known": func(c *cluster) { c.resolve("192.0.2.1") },
	} {
		c := newCluster(t)
		c.judge("p", model.AdminTier, 1, model.Egress,
			act(model.Accept, allow(tcp(443), domain("www.example.org"))), act(model.Deny, allow(nil, addresses("0.0.0.0/0"))))
		c.Resolved = c.Resolved.With(netip.MustParseAddr("192.0.2.1"), &model.Resolved{Lapsed: []string{"www.example.org"}})
		p := c.compute(nil)
		edit(c)
		next := c.compute(p)
		at := Subject{model.Egress, netip.MustParseAddr("10.0.1.1")}
		if next.Keeps(at, netip.MustParseAddr("192.0.2.1"), model.TCP, 443) {
			t.Fatalf("%s has changed, and it goes on", name)
		}
		if !next.Stricter(p) {
			t.Errorf("%s has changed, and it is not stricter", name)
		}
	}
}

// changes counts the elements that differ.
func changes(a, b *Plan) (n int) {
	for range model.Diff(a.Pods, b.Pods) {
		n++
	}
	for range model.Diff(a.Ranges, b.Ranges) {
		n++
	}
	for range model.Diff(a.Cells, b.Cells) {
		n++
	}
	for range model.Diff(a.Rows, b.Rows) {
		n++
	}
	return n
}

// TestDomainProblems: names that nobody learns of, and such as are the cluster's.
func TestDomainProblems(t *testing.T) {
	c := newCluster(t)
	c.Network = model.DefaultNetwork()
	dns := c.Network.DNS.Service
	c.judge("p", model.AdminTier, 1, model.Egress, act(model.Accept, allow(nil, domain("www.example.org"), domain("*.svc.cluster.local"))))
	var p *Plan
	for _, test := range []struct {
		service bool
		servers [2]model.NameServer
		want    []string
	}{
		{false, [2]model.NameServer{}, []string{"NameOfCluster", "NamesNotHeard"}},
		{true, [2]model.NameServer{}, []string{"NameOfCluster"}}, // not known yet
		{true, [2]model.NameServer{model.NameServerAbsent, model.NameServerAbsent}, []string{"NameOfCluster", "NamesNotHeard"}},
		{true, [2]model.NameServer{model.NameServerWell, model.NameServerAbsent}, []string{"NameOfCluster"}},
		{true, [2]model.NameServer{model.NameServerHung, model.NameServerUnknown}, []string{"NameOfCluster", "NamesNotHeard"}},
	} {
		if c.NameServers = test.servers; test.service {
			c.Services = c.Services.With(dns, &model.Service{ServiceKey: dns})
		}
		var problems []model.Problem
		p, problems = Compute(p, &c.Snapshot, "a")
		var got []string
		for _, problem := range problems {
			if got = append(got, problem.Reason); problem.Name != "p" || problem.Field != "spec.egress[0].to" {
				t.Errorf("%v", problem)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, test.want) {
			t.Errorf("%+v: %q, want %q", test, got, test.want)
		}
	}
}
