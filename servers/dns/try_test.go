package dns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	plandns "github.com/fairlead-net/fairlead/plan/dns"
)

// TestTry: a query that is tried has the answer of one that is put, tells which
// names were looked up, and counts for nobody.
func TestTry(t *testing.T) {
	s := New(nil, nil, nil)
	served := servedNow(t)
	served.Complete = true
	pod := &Client{Namespace: "default", Name: "pod"}
	addr := netip.MustParseAddr("10.244.1.7")
	served.Pods = served.Pods.With(addr, pod)
	s.Serve(served)
	world := &some{t: t, names: map[string]string{"www.example.com.": "192.0.2.1"}}
	var seen []string
	try := func(client netip.Addr, noCompletion bool) string {
		seen = nil
		raw := s.Try(&Trial{
			Message: packed(t, new(dns.Msg).SetQuestion("www.example.com.default.svc.cluster.local.", dns.TypeA)), Client: client, NoCompletion: noCompletion,
			Seen: func(name plandns.Name, exists bool) { seen = append(seen, name.String()) },
			Find: func(q Question) []byte {
				seen = append(seen, "outside "+q.Name.String())
				answer, _ := world.Cached(q, nil)
				return answer
			},
		})
		if raw == nil {
			return "nothing"
		}
		m := new(dns.Msg)
		if err := m.Unpack(raw); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(text(m)), " ")
	}
	if got, want := try(addr, false), "NOERROR www.example.com.default.svc.cluster.local. 5 IN CNAME www.example.com. www.example.com. 60 IN A 192.0.2.1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	const here = "www.example.com.default.svc.cluster.local."
	if got, want := strings.Join(seen, " "), here+" www.example.com.svc.cluster.local. www.example.com.cluster.local. outside www.example.com."; got != want {
		t.Errorf("seen %s, want %s", got, want)
	}
	if got := try(addr, true); !strings.HasPrefix(got, "NXDOMAIN") || strings.Join(seen, " ") != here {
		t.Errorf("without completion: %s, seen %v", got, seen)
	}
	if got := try(netip.MustParseAddr("198.51.100.1"), false); got != "nothing" {
		t.Errorf("to a stranger: %s", got)
	}
	requests, _, _, totals := s.Counts()
	if len(requests) > 0 || pod.Queries.Load()+totals.Others.Queries.Load() > 0 {
		t.Error("what was tried was counted")
	}
}
