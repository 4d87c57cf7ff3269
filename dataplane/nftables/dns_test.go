package nftables

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/dns"
)

// exampleDNS has a server that is well.
func exampleDNS() *dns.Listen {
	listen := &dns.Listen{}
	for _, at := range []string{"10.96.0.10:53", "[fd96::a]:53"} {
		for _, all := range []*model.Map[dns.Port, struct{}]{&listen.Ports, &listen.Queries, &listen.Own} {
			*all = all.With(dns.Port{Protocol: model.UDP, At: netip.MustParseAddrPort(at)}, struct{}{})
		}
	}
	return listen
}

func TestDNSListing(t *testing.T) {
	netnstest.Enter(t)
	apply(t, New(), example())
	for _, want := range []string{
		`set dns4 {
		type ipv4_addr . inet_proto . inet_service
		comment "where DNS is, on every node"
		elements = { 10.96.0.10 . udp . 53 }
`,
		`set dns-here6 {
		type ipv6_addr . inet_proto . inet_service
		comment "where queries are answered here, if somebody listens"
		elements = { fd96::a . udp . 53 }
`,
		`set dns-own4 {
		type ipv4_addr . inet_proto . inet_service
		comment "where the node's own queries are answered here"
		elements = { 10.96.0.10 . udp . 53 }
`,
		`iifgroup 175 jump from-pod
		th dport 53 jump dns-query
`,
		`chain dns-query {
		ip daddr . meta l4proto . th dport @dns-here4 jump dns-query4 comment "queries of DNS"
		ip6 daddr . meta l4proto . th dport @dns-here6 jump dns-query6 comment "queries of DNS"
`,
		`type filter hook output priority raw; policy accept;
		th sport 53 jump dns-answers
		th dport 53 jump dns-asked
`,
		`chain dns-answers {
		ip saddr . meta l4proto . th sport @dns4 notrack comment "answers of DNS"
`,
		`chain dns-asked {
		ip daddr . meta l4proto . th dport @dns-own4 goto dns-own-query4 comment "queries of the node that are answered here"
		ip saddr . meta l4proto . th dport @dns4 ip daddr . meta l4proto . th dport @dns4 notrack return comment "queries of who watches the server"
		ip daddr . meta l4proto . tcp dport @dns-here4 update @dns-elsewhere4 { ip saddr . tcp sport } comment "queries of the node that others answer"
`,
		`chain dns-own-query4 {
		tcp flags syn / syn,ack delete @dns-elsewhere4 { ip saddr . tcp sport }
		ip saddr . tcp sport @dns-elsewhere4 update @dns-elsewhere4 { ip saddr . tcp sport } return comment "connections that others answer"
		notrack
`,
		`chain dns-query4 {
		socket wildcard 1 return comment "another program's, which has all addresses"
		tcp flags syn / syn,ack delete @dns-elsewhere4 { ip saddr . tcp sport }
		ip saddr . tcp sport @dns-elsewhere4 update @dns-elsewhere4 { ip saddr . tcp sport } return comment "connections that others answer"
		socket transparent 0 notrack return comment "somebody listens"
		update @dns-elsewhere4 { ip saddr . tcp sport } comment "nobody does"
`,
	} {
		if list := listed(t, "list", "table", "inet", TableName); !strings.Contains(list, want) {
			t.Fatalf("nft does not list\n%s\nbut\n%s", want, list)
		}
	}
}

// TestDNSStays: what is not known of DNS is left as it is.
func TestDNSStays(t *testing.T) {
	netnstest.Enter(t)
	plane, node := New(), example()
	apply(t, plane, node)
	unknown := *node
	unknown.DNS = nil
	apply(t, plane, &unknown)
	if left := listedIn(t, "dns-here4"); len(left) != 1 {
		t.Errorf("queries are answered here at %v, want what was there", left)
	}
	none := *node
	none.DNS = &dns.Listen{}
	apply(t, plane, &none)
	if left := listedIn(t, "dns-here4"); len(left) != 0 {
		t.Errorf("queries are answered here at %v, want nowhere", left)
	}
}

// TestDNSWithoutSockets: a kernel that cannot tell whether somebody listens has
// none of it, and says so where there is a server.
func TestDNSWithoutSockets(t *testing.T) {
	netnstest.Enter(t)
	if !knowsSockets() {
		t.Fatal("this kernel lacks " + socketFeature)
	}
	plane := New()
	plane.noSockets = true
	problems, err := plane.Apply(t.Context(), example())
	must(t, err)
	if len(problems) != 1 || problems[0].Reason != "DNSNotHere" || problems[0].Remedy == "" {
		t.Errorf("problems %v, want one of DNSNotHere", problems)
	}
	if list := listed(t, "list", "table", "inet", TableName); strings.Contains(list, "notrack") {
		t.Error("queries are not tracked, and there may be nobody who listens")
	}
}
