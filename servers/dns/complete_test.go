package dns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	plandns "github.com/fairlead-net/fairlead/plan/dns"
)

// some is a Forwarder that knows some names, with an address each; all others
// there are not.
type some struct {
	Forwarder
	t     testing.TB
	names map[string]string
	asked []string
}

func (s *some) Cached(q Question, into []byte) ([]byte, bool) {
	s.asked = append(s.asked, q.Name.String())
	addr, ok := s.names[q.Name.String()]
	w := &world{t: s.t, rcode: dns.RcodeNameError, records: "example. 60 IN SOA a. b. 1 2 3 4 5"}
	switch {
	case addr == "fails":
		w.rcode = dns.RcodeServerFailure
	case ok && q.Type == dns.TypeA:
		w.rcode, w.records = dns.RcodeSuccess, q.Name.String()+" 60 IN A "+addr
	case ok:
		w.rcode = dns.RcodeSuccess
	}
	answer, err := w.Answer(s.t.Context(), q, into)
	return answer, err == nil
}

// TestCompletion: a pod's first query has the answer that the last of its search
// would have.
func TestCompletion(t *testing.T) {
	pod := asker{addr: netip.MustParseAddr("10.244.1.7")}
	search, err := plandns.ParseName("corp.example")
	if err != nil {
		t.Fatal(err)
	}
	served := servedNow(t)
	served.Complete, served.Search = true, []plandns.Name{search}
	served.Pods = served.Pods.With(pod.addr, &Client{Namespace: "default", Name: "pod"})
	world := &some{t: t, names: map[string]string{
		"www.example.com.": "192.0.2.1", "git.a.corp.example.": "192.0.2.2", "broken.b.corp.example.": "fails", "broken.b.": "192.0.2.3",
	}}
	const here = ".default.svc.cluster.local."
	for _, test := range []struct {
		from asker
		name string
		kind uint16
		want string
	}{
		{pod, "www.example.com" + here, dns.TypeA, "NOERROR\nwww.example.com.default.svc.cluster.local. 5 IN CNAME www.example.com.\nwww.example.com. 60 IN A 192.0.2.1"},
		{pod, "www.example.com" + here, dns.TypeAAAA, "NOERROR\nwww.example.com.default.svc.cluster.local. 5 IN CNAME www.example.com.\nauthority example. 60 IN SOA a. b. 1 2 3 4 5"},
		{pod, "git.a" + here, dns.TypeA, "NOERROR\ngit.a.default.svc.cluster.local. 5 IN CNAME git.a.corp.example.\ngit.a.corp.example. 60 IN A 192.0.2.2"},
		{pod, "kube-dns.kube-system" + here, dns.TypeA, "NOERROR\nkube-dns.kube-system.default.svc.cluster.local. 5 IN CNAME kube-dns.kube-system.svc.cluster.local.\nkube-dns.kube-system.svc.cluster.local. 5 IN A 10.96.0.10"},
		{pod, "none.example.com" + here, dns.TypeA, "NXDOMAIN\nauthority cluster.local. 5 IN " + soa},
		{pod, "broken.b" + here, dns.TypeA, "NXDOMAIN\nauthority cluster.local. 5 IN " + soa},
		{pod, "www.example.com" + here, dns.TypeMX, "NXDOMAIN\nauthority cluster.local. 5 IN " + soa},
		{pod, "www.example.com.other.svc.cluster.local.", dns.TypeA, "NXDOMAIN\nauthority cluster.local. 5 IN " + soa},
		{client, "www.example.com" + here, dns.TypeA, "NXDOMAIN\nauthority cluster.local. 5 IN " + soa},
	} {
		got := text(answered(t, served, memory{world}, test.from, packed(t, new(dns.Msg).SetQuestion(test.name, test.kind))))
		if strings.TrimSpace(got) != test.want {
			t.Errorf("%s %s:\n%s\nwant\n%s", test.name, dns.TypeToString[test.kind], got, test.want)
		}
	}
	if slices.Contains(world.asked, "www.example.com.svc.cluster.local.") {
		t.Error("a name of the cluster was asked for outside")
	}

	off := *served
	off.Complete = false
	old := *served
	old.Old = true
	for want, served := range map[string]*Served{"NXDOMAIN": &off, "SERVFAIL": &old} {
		if got := text(answered(t, served, memory{world}, pod, packed(t, new(dns.Msg).SetQuestion("www.example.com"+here, dns.TypeA)))); !strings.HasPrefix(got, want) {
			t.Errorf("without completion: %s, want %s", got, want)
		}
	}
}

// TestClientCounts: what a client costs others is known, whether it asks for the
// whole name or the server completes it.
func TestClientCounts(t *testing.T) {
	pod, counted := asker{addr: netip.MustParseAddr("10.244.1.7")}, &Client{Namespace: "default", Name: "pod"}
	served := servedNow(t)
	served.Complete = true
	served.Pods = served.Pods.With(pod.addr, counted)
	world := &some{t: t, names: map[string]string{"www.example.com.": "192.0.2.1"}}
	bytes := 0
	for _, name := range []string{
		"www.example.com.", "www.example.com.default.svc.cluster.local.", "none.example.com.", // outside
		"web.default.svc.cluster.local.", "none.default.svc.cluster.local.",
	} {
		message := packed(t, new(dns.Msg).SetQuestion(name, dns.TypeA))
		a := &answering{others: &Client{}, counts: &counts{}, q: &query{}, r: &reply{}, outside: memory{world}, random: 1}
		bytes += len(message) + len(a.message(served, message, pod, nil))
	}
	got := []uint64{counted.Queries.Load(), counted.Outside.Load(), counted.Negative.Load(), counted.Bytes.Load()}
	if want := []uint64{5, 3, 2, uint64(bytes)}; !slices.Equal(got, want) {
		t.Errorf("queries, outside, NXDOMAIN, bytes: %v, want %v", got, want)
	}
}
