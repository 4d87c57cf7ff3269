package dns

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	plandns "github.com/fairlead-net/fairlead/plan/dns"
	"github.com/fairlead-net/fairlead/plan/dns/specification"
)

// TestSpecification: each sentence of Kubernetes' DNS-based service discovery, on
// the wire, by UDP and by TCP.
func TestSpecification(t *testing.T) {
	server, at := start(t, nil)
	served := *servedNow(t)
	served.Zone, _ = plandns.Compute(nil, specification.Cluster())
	server.Serve(&served)
	udp, tcp := dialUDP(t, at), dial(t, "tcp", at)
	for _, test := range specification.Sentences() {
		kind := dns.StringToType[test.Type]
		if strings.HasPrefix(test.Want, "CNAME") {
			kind = dns.TypeCNAME // its target is perhaps outside
		}
		query := new(dns.Msg)
		query.SetQuestion(test.Name+".", kind)
		udp.write(packed(t, query))
		tcp.write(framed(packed(t, query)))
		for network, answer := range map[string]*dns.Msg{"udp": udp.read(), "tcp": tcp.next()} {
			want := strings.Split(test.Want, ", ")
			slices.Sort(want)
			if got := recordsIn(answer, kind); !slices.Equal(got, want) {
				t.Errorf("%s: %s %s is, by %s, %q, want %q", test.Section, test.Name, test.Type, network, got, want)
			}
			if answer != nil && (answer.Id != query.Id || !answer.Authoritative || answer.Question[0] != query.Question[0]) {
				t.Errorf("%s: %s: the answer is of\n%s", test.Section, test.Name, answer)
			}
			if negative := test.Want == "NODATA" || test.Want == "NXDOMAIN"; negative && !hasSOA(answer) {
				t.Errorf("%s: %s is denied without an SOA, as nobody may remember it", test.Section, test.Name)
			}
		}
	}
}

// recordsIn are what a message answers, as sentences have it, sorted.
func recordsIn(m *dns.Msg, kind uint16) (all []string) {
	switch {
	case m == nil:
		return []string{"nothing"}
	case m.Rcode == dns.RcodeNameError:
		return []string{"NXDOMAIN"}
	case m.Rcode != dns.RcodeSuccess:
		return []string{dns.RcodeToString[m.Rcode]}
	case len(m.Answer) == 0:
		return []string{"NODATA"}
	}
	for _, r := range m.Answer {
		switch r := r.(type) {
		case *dns.A:
			all = append(all, r.A.String())
		case *dns.AAAA:
			all = append(all, r.AAAA.String())
		case *dns.SRV:
			all = append(all, fmt.Sprintf("%d %s", r.Port, r.Target))
		case *dns.PTR:
			all = append(all, r.Ptr)
		case *dns.TXT:
			all = append(all, r.Txt...)
		case *dns.CNAME:
			all = append(all, "CNAME "+r.Target)
		}
		if r.Header().Rrtype != kind {
			all = append(all, "not asked for: "+r.String())
		}
	}
	slices.Sort(all)
	return all
}

func hasSOA(m *dns.Msg) bool {
	return m != nil && slices.ContainsFunc(m.Ns, func(r dns.RR) bool { return r.Header().Rrtype == dns.TypeSOA })
}
