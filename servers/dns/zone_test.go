package dns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/fairlead-net/fairlead/model"
	plandns "github.com/fairlead-net/fairlead/plan/dns"
)

// cluster is what the tests serve.
func cluster() *model.Snapshot {
	s := &model.Snapshot{Revision: 17, Network: model.DefaultNetwork(), NamesKnown: true}
	service := func(namespace, name string, ports []model.ServicePort, addrs ...string) {
		key := model.ServiceKey{Namespace: namespace, Name: name}
		s.Services = s.Services.With(key, &model.Service{ServiceKey: key, ClusterIPs: addresses(addrs...), Ports: ports})
	}
	external := func(namespace, name, to string) {
		key := model.ServiceKey{Namespace: namespace, Name: name}
		s.Names = s.Names.With(key, &model.Name{ServiceKey: key, External: to})
	}
	http := []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}}
	service("kube-system", "kube-dns", nil, "10.96.0.10", "fd00:96::10")
	service("default", "web", http, "10.96.0.20", "fd00:96::20")
	service("default", "four", nil, "10.96.0.21")
	external("default", "out", "www.example.org")
	external("default", "in", "web.default.svc.cluster.local")
	external("default", "round", "about.default.svc.cluster.local")
	external("default", "about", "round.default.svc.cluster.local")
	for name, count := range map[string]int{"few": 3, "many": 200} {
		key := model.ServiceKey{Namespace: "default", Name: name}
		s.Names = s.Names.With(key, &model.Name{ServiceKey: key, Ports: http})
		hosts := &model.Hosts{
			SliceKey: model.SliceKey{Namespace: "default", Name: name + "-1"}, Service: name,
			Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
		}
		for i := range count {
			hosts.Hosts = append(hosts.Hosts, model.Host{Address: netip.AddrFrom4([4]byte{10, 244, 1, byte(i)})})
		}
		s.Hosts = s.Hosts.With(hosts.SliceKey, hosts)
	}
	s.ServiceCIDRs = s.ServiceCIDRs.With("kubernetes", &model.ServiceCIDR{Name: "kubernetes", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}})
	return s
}

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// servedNow is the cluster, to clients at loopback addresses.
func servedNow(t testing.TB) *Served {
	t.Helper()
	zone, problems := plandns.Compute(nil, cluster())
	if zone == nil || len(problems) > 0 {
		t.Fatalf("no zone: %v", problems)
	}
	return &Served{
		Zone: zone, Revision: 17,
		Clients: NewRanges([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}),
	}
}

// client is who asks in tests.
var client = asker{addr: netip.MustParseAddr("127.0.0.1")}

// answered is the answer to a message, without a network; nil: there is none.
func answered(t testing.TB, s *Served, elsewhere outside, from asker, message []byte) *dns.Msg {
	t.Helper()
	a := &answering{others: &Client{}, counts: &counts{}, q: &query{}, r: &reply{}, outside: elsewhere, random: 1}
	raw := a.message(s, message, from, nil)
	if raw == nil {
		return nil
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(raw); err != nil {
		t.Fatalf("the answer %x to %x is not understood: %v", raw, message, err)
	}
	return answer
}

func packed(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// text writes an answer as tests compare it: the rcode, and the records of each
// section, sorted by nothing.
func text(m *dns.Msg) string {
	if m == nil {
		return "nothing"
	}
	lines := []string{dns.RcodeToString[m.Rcode]}
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, r := range section {
			if r.Header().Rrtype != dns.TypeOPT {
				lines = append(lines, []string{"", "authority ", "additional "}[i]+strings.Join(strings.Fields(r.String()), " "))
			}
		}
	}
	return strings.Join(lines, "\n")
}

const soa = "SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 17 7200 1800 86400 5"

// TestZone: what the specification of names says, on the wire.
func TestZone(t *testing.T) {
	served := servedNow(t)
	for _, test := range []struct {
		name string
		kind uint16
		want string
	}{
		{"web.default.svc.cluster.local.", dns.TypeA, "NOERROR\nweb.default.svc.cluster.local. 5 IN A 10.96.0.20"},
		{"WEB.default.sVc.cluster.LOCAL.", dns.TypeA, "NOERROR\nWEB.default.sVc.cluster.LOCAL. 5 IN A 10.96.0.20"},
		{"web.default.svc.cluster.local.", dns.TypeAAAA, "NOERROR\nweb.default.svc.cluster.local. 5 IN AAAA fd00:96::20"},
		{"web.default.svc.cluster.local.", dns.TypeANY, "NOERROR\nweb.default.svc.cluster.local. 5 IN HINFO \"RFC8482\" \"\""},
		{"four.default.svc.cluster.local.", dns.TypeAAAA, "NOERROR\nauthority cluster.local. 5 IN " + soa},
		{"web.default.svc.cluster.local.", dns.TypeMX, "NOERROR\nauthority cluster.local. 5 IN " + soa},
		{"default.svc.cluster.local.", dns.TypeA, "NOERROR\nauthority cluster.local. 5 IN " + soa},
		{"none.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN\nauthority cluster.local. 5 IN " + soa},
		{"none.default.svc.cluster.local.", dns.TypeANY, "NXDOMAIN\nauthority cluster.local. 5 IN " + soa},
		{"_http._tcp.web.default.svc.cluster.local.", dns.TypeSRV, "NOERROR\n_http._tcp.web.default.svc.cluster.local. 5 IN SRV 0 100 80 web.default.svc.cluster.local.\nadditional web.default.svc.cluster.local. 5 IN A 10.96.0.20\nadditional web.default.svc.cluster.local. 5 IN AAAA fd00:96::20"},
		{"cluster.local.", dns.TypeSOA, "NOERROR\ncluster.local. 5 IN " + soa},
		{"cluster.local.", dns.TypeNS, "NOERROR\ncluster.local. 5 IN NS kube-dns.kube-system.svc.cluster.local.\nadditional kube-dns.kube-system.svc.cluster.local. 5 IN A 10.96.0.10\nadditional kube-dns.kube-system.svc.cluster.local. 5 IN AAAA fd00:96::10"},
		{"cluster.local.", dns.TypeA, "NOERROR\nauthority cluster.local. 5 IN " + soa},
		{"dns-version.cluster.local.", dns.TypeTXT, "NOERROR\ndns-version.cluster.local. 5 IN TXT \"1.1.0\""},
		{"_fairlead.cluster.local.", dns.TypeTXT, "NOERROR\n_fairlead.cluster.local. 0 IN TXT \"revision=17\""},
		{"_fairlead.cluster.local.", dns.TypeA, "NOERROR\nauthority cluster.local. 5 IN " + soa},
		{"20.0.96.10.in-addr.arpa.", dns.TypePTR, "NOERROR\n20.0.96.10.in-addr.arpa. 5 IN PTR web.default.svc.cluster.local."},
		{"20.0.96.10.in-addr.arpa.", dns.TypeA, "NOERROR\nauthority 96.10.in-addr.arpa. 5 IN " + soa},
		{"99.0.96.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN\nauthority 96.10.in-addr.arpa. 5 IN " + soa},
		{"96.10.in-addr.arpa.", dns.TypeSOA, "NOERROR\n96.10.in-addr.arpa. 5 IN " + soa},
		{"9.9.9.9.in-addr.arpa.", dns.TypePTR, "REFUSED"},
		{"in.default.svc.cluster.local.", dns.TypeA, "NOERROR\nin.default.svc.cluster.local. 5 IN CNAME web.default.svc.cluster.local.\nweb.default.svc.cluster.local. 5 IN A 10.96.0.20"},
		{"in.default.svc.cluster.local.", dns.TypeCNAME, "NOERROR\nin.default.svc.cluster.local. 5 IN CNAME web.default.svc.cluster.local."},
		{"in.default.svc.cluster.local.", dns.TypeTXT, "NOERROR\nin.default.svc.cluster.local. 5 IN CNAME web.default.svc.cluster.local.\nauthority cluster.local. 5 IN " + soa},
		{"round.default.svc.cluster.local.", dns.TypeA, "SERVFAIL"},
		{"out.default.svc.cluster.local.", dns.TypeA, "SERVFAIL"},
		{"example.org.", dns.TypeA, "REFUSED"},
		{".", dns.TypeNS, "REFUSED"},
		{"example.org.", dns.TypeANY, "NOERROR\nexample.org. 3600 IN HINFO \"RFC8482\" \"\""},
		{"cluster.local.", dns.TypeAXFR, "REFUSED"},
		{"cluster.local.", dns.TypeMAILA, "NOTIMP"},
		{"cluster.local.", dns.TypeOPT, "FORMERR"},
	} {
		query := new(dns.Msg).SetQuestion(test.name, test.kind)
		got := answered(t, served, memory{}, client, packed(t, query))
		if text(got) != test.want {
			t.Errorf("%s %s:\n%s\nwant\n%s", test.name, dns.TypeToString[test.kind], text(got), test.want)
			continue
		}
		if got.Id != query.Id || !got.Response || !got.RecursionDesired || !got.RecursionAvailable || got.IsEdns0() != nil || got.Truncated {
			t.Errorf("%s %s: the header is %+v", test.name, dns.TypeToString[test.kind], got.MsgHdr)
		}
		ours := got.Rcode == dns.RcodeSuccess && test.name != "example.org." || got.Rcode == dns.RcodeNameError
		if ours != got.Authoritative && test.want != "SERVFAIL" {
			t.Errorf("%s %s: authoritative: %v", test.name, dns.TypeToString[test.kind], got.Authoritative)
		}
	}
}

// TestUnknown: nothing is denied before it is known, nor what an old file lacks.
func TestUnknown(t *testing.T) {
	ask := func(s *Served, name string) string {
		return text(answered(t, s, memory{}, client, packed(t, new(dns.Msg).SetQuestion(name, dns.TypeA))))
	}
	for _, name := range []string{"web.default.svc.cluster.local.", "example.org.", "1.0.0.10.in-addr.arpa."} {
		if got := ask(&Served{}, name); got != "SERVFAIL" {
			t.Errorf("%s, before anything is known: %s", name, got)
		}
	}
	old := servedNow(t)
	old.Old = true
	if got := ask(old, "web.default.svc.cluster.local."); !strings.HasPrefix(got, "NOERROR") {
		t.Errorf("what is known of old: %s", got)
	}
	if got := ask(old, "none.default.svc.cluster.local."); got != "SERVFAIL" {
		t.Errorf("what was not known of old: %s", got)
	}
}

// TestSpread: each of several addresses is the first as often as the others.
func TestSpread(t *testing.T) {
	served := servedNow(t)
	a := &answering{others: &Client{}, counts: &counts{}, q: &query{}, r: &reply{}, outside: memory{}, random: 1}
	message := packed(t, new(dns.Msg).SetQuestion("few.default.svc.cluster.local.", dns.TypeA))
	first := map[string]int{}
	for range 3000 {
		answer := new(dns.Msg)
		if err := answer.Unpack(a.message(served, message, client, nil)); err != nil || len(answer.Answer) != 3 {
			t.Fatalf("%v: %s", err, text(answer))
		}
		first[answer.Answer[0].(*dns.A).A.String()]++
	}
	for addr, count := range first {
		if count < 800 || count > 1200 || len(first) != 3 {
			t.Errorf("%s is first %d times of 3000", addr, count)
		}
	}
}

// TestTruncation: as much as fits is there, the rest is told of by TC; by TCP it is
// all there.
func TestTruncation(t *testing.T) {
	served := servedNow(t)
	ask := new(dns.Msg).SetQuestion("many.default.svc.cluster.local.", dns.TypeA)
	for _, test := range []struct {
		edns, limit int
		tcp         bool
	}{{0, 512, false}, {100, 512, false}, {1000, 1000, false}, {4096, 1232, false}, {0, 65535, true}, {4096, 65535, true}} {
		ask.Extra = nil
		if test.edns > 0 {
			ask.SetEdns0(uint16(test.edns), false)
		}
		a := &answering{others: &Client{}, counts: &counts{}, q: &query{}, r: &reply{}, outside: memory{}, random: 1}
		raw := a.message(served, packed(t, ask), asker{client.addr, test.tcp}, nil)
		answer := new(dns.Msg)
		if err := answer.Unpack(raw); err != nil {
			t.Fatal(err)
		}
		if len(raw) > test.limit || test.limit != 65535 && len(raw) < test.limit-16 {
			t.Errorf("EDNS %d: %d bytes, the limit is %d", test.edns, len(raw), test.limit)
		}
		if answer.Truncated != !test.tcp || (len(answer.Answer) == 200) != test.tcp {
			t.Errorf("EDNS %d, TCP %v: truncated %v with %d records", test.edns, test.tcp, answer.Truncated, len(answer.Answer))
		}
		if (answer.IsEdns0() != nil) != (test.edns > 0) {
			t.Errorf("EDNS %d: %v", test.edns, answer.IsEdns0())
		}
	}
	ask.SetQuestion("_http._tcp.many.default.svc.cluster.local.", dns.TypeSRV)
	if answer := answered(t, served, memory{}, asker{client.addr, true}, packed(t, ask)); len(answer.Answer) != 200 || len(answer.Extra) < 200 {
		t.Errorf("SRV: %d records, and %d more", len(answer.Answer), len(answer.Extra))
	}
}
