package outside

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

func TestAnswers(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:203:113::10")}
	for _, c := range []struct {
		name    string
		kind    uint16
		rcode   int
		answers int
		soa     bool
	}{
		{"www.example.com.", dns.TypeA, dns.RcodeSuccess, 1, false},
		{"WWW.Example.Com.", dns.TypeAAAA, dns.RcodeSuccess, 1, false},
		{"four20.example.com.", dns.TypeA, dns.RcodeSuccess, 1, false},
		{"four20.example.com.", dns.TypeAAAA, dns.RcodeSuccess, 0, true},
		{"six20.example.com.", dns.TypeAAAA, dns.RcodeSuccess, 1, false},
		{"alias-alias-four20.example.com.", dns.TypeA, dns.RcodeSuccess, 3, false},
		{"www.example.com.", dns.TypeTXT, dns.RcodeSuccess, 0, true},
		{"example.com.", dns.TypeA, dns.RcodeSuccess, 0, true},
		{"a.b.example.com.", dns.TypeA, dns.RcodeNameError, 0, true},
		{"www.example.org.", dns.TypeA, dns.RcodeNameError, 0, true},
	} {
		query := new(dns.Msg)
		query.SetQuestion(c.name, c.kind)
		got := answer(query, own)
		if got.Rcode != c.rcode || len(got.Answer) != c.answers || (len(got.Ns) == 1) != c.soa {
			t.Errorf("%s %s: %s", c.name, dns.TypeToString[c.kind], got)
		}
	}
}
