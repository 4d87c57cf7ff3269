package dns

import (
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/dns/specification"
)

// TestSpecification: what is said of answers, such as the CNAME's target and the
// additional section, is the server's.
func TestSpecification(t *testing.T) {
	zone, problems := Compute(nil, specification.Cluster())
	if zone == nil || len(problems) > 0 {
		t.Fatalf("zone %v, problems %v", zone, problems)
	}
	for _, test := range specification.Sentences() {
		if got := answer(zone, mustName(t, test.Name), test.Type); !sameSet(got, test.Want) {
			t.Errorf("%s: %s %s is\n%s, want\n%s", test.Section, test.Name, test.Type, got, test.Want)
		}
	}
}

// TestBeyondSpecification: what the specification leaves open, and what CoreDNS
// answers besides.
func TestBeyondSpecification(t *testing.T) {
	zone, _ := Compute(nil, specification.Cluster())
	for _, test := range []struct{ why, name, kind, want string }{
		{"apex", "cluster.local", "A", "NODATA"},
		{"above the apex", "local", "A", "NXDOMAIN"},
		{"above others", "svc.cluster.local", "A", "NODATA"},
		{"above others", "shop.svc.cluster.local", "A", "NODATA"},
		{"above others", "_tcp.web.shop.svc.cluster.local", "SRV", "NODATA"},
		{"above others", "_tcp.db.shop.svc.cluster.local", "SRV", "NODATA"},
		{"a namespace of which no Service has endpoints", "quiet.svc.cluster.local", "A", "NODATA"},
		{"no namespace", "other.svc.cluster.local", "A", "NXDOMAIN"},
		{"no Service", "other.shop.svc.cluster.local", "A", "NXDOMAIN"},
		{"no wildcards", "*.shop.svc.cluster.local", "A", "NXDOMAIN"},
		{"no endpoints below a Service with an address", "web-0.web.shop.svc.cluster.local", "A", "NXDOMAIN"},
		{"nor their reverse names", "9.0.0.10.in-addr.arpa", "PTR", "NXDOMAIN"},
		{"SRV of a Service itself, once for each place", "web.shop.svc.cluster.local", "SRV", "80 web.shop.svc.cluster.local., 53 web.shop.svc.cluster.local."},
		{"SRV of a Service itself, unnamed ports too", "unnamed.shop.svc.cluster.local", "SRV", "80 unnamed.shop.svc.cluster.local."},
		{"another type", "web.shop.svc.cluster.local", "TXT", "NODATA"},
		{"pods", "pod.cluster.local", "A", "NODATA"},
		{"pods of a namespace", "shop.pod.cluster.local", "A", "NODATA"},
		{"no pods of a namespace", "other.pod.cluster.local", "A", "NXDOMAIN"},
		{"a pod", "10-0-0-1.shop.pod.cluster.local", "A", "10.0.0.1"},
		{"a pod of IPv6", "fd00--1.shop.pod.cluster.local", "AAAA", "fd00::1"},
		{"a pod of another namespace", "10-0-0-1.kube-system.pod.cluster.local", "A", "NXDOMAIN"},
		{"no pod", "10-0-0-2.shop.pod.cluster.local", "A", "NXDOMAIN"},
		{"a pod that is done", "10-0-0-77.shop.pod.cluster.local", "A", "NXDOMAIN"},
		{"a reverse name that is none", "256.0.96.10.in-addr.arpa", "PTR", "NXDOMAIN"},
		{"a reverse name with a zero in front", "07.0.96.10.in-addr.arpa", "PTR", "NXDOMAIN"},
		{"a reverse name above others", "0.96.10.in-addr.arpa", "PTR", "NODATA"},
		{"a reverse name above others that are not ours", "10.in-addr.arpa", "PTR", "NXDOMAIN"},
	} {
		if got := answer(zone, mustName(t, test.name), test.kind); !sameSet(got, test.want) {
			t.Errorf("%s: %s %s is\n%s, want\n%s", test.why, test.name, test.kind, got, test.want)
		}
	}
	if got := zone.NS.String(); got != "kube-dns.kube-system.svc.cluster.local." {
		t.Errorf("the name server is %s", got)
	}
}

// TestAuthority: which names are ours to deny, and where the zone begins that they
// are in.
func TestAuthority(t *testing.T) {
	snapshot := specification.Cluster()
	zone, _ := Compute(nil, snapshot)
	seen := *snapshot
	network := *snapshot.Network
	network.Masquerade.On = [...]bool{model.IPv4: false, model.IPv6: true}
	network.Masquerade.Exclude = prefixes("fd77::/16")
	seen.Network = &network
	outside, _ := Compute(zone, &seen)
	const nibbles = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0."
	for _, test := range []struct{ name, want, outside string }{
		{"nothing.cluster.local", "cluster.local.", "cluster.local."},
		{"cluster.local", "cluster.local.", "cluster.local."},
		{"mycluster.local", "", ""},
		{"example.com", "", ""},
		{"local", "", ""},
		{"1.2.3.4.e164.arpa", "", ""},
		{"99.0.96.10.in-addr.arpa", "96.10.in-addr.arpa.", "96.10.in-addr.arpa."},
		{"99.0.111.10.in-addr.arpa", "111.10.in-addr.arpa.", "111.10.in-addr.arpa."},
		{"96.10.in-addr.arpa", "96.10.in-addr.arpa.", "96.10.in-addr.arpa."},
		{"99.0.112.10.in-addr.arpa", "", ""},
		{"10.in-addr.arpa", "", ""},
		{"9.0.0.10.in-addr.arpa", "0.0.10.in-addr.arpa.", ""},
		{"1.0.0.10.in-addr.arpa", "0.0.10.in-addr.arpa.", "1.0.0.10.in-addr.arpa."}, // it has a name
		{"f.e.e.b." + nibbles + "0.0.6.9.d.f.ip6.arpa", "0." + nibbles + "6.9.d.f.ip6.arpa.", "0." + nibbles + "6.9.d.f.ip6.arpa."},
		{"0." + nibbles + "6.9.d.f.ip6.arpa", "0." + nibbles + "6.9.d.f.ip6.arpa.", "0." + nibbles + "6.9.d.f.ip6.arpa."},
		{nibbles + "6.9.d.f.ip6.arpa", "", ""},
		{"0.0.0.0.0.1." + nibbles + "6.9.d.f.ip6.arpa", "", ""},
		{"ip6.arpa", "", ""},
		{"in-addr.arpa", "", ""},
		{"arpa", "", ""},
		{"", "", ""},
	} {
		wants := [...]string{test.want, test.outside}
		for i, z := range []*Zone{zone, outside} {
			origin, ok := z.Authority(mustName(t, test.name))
			got := ""
			if ok {
				got = origin.String()
			}
			if got != wants[i] {
				t.Errorf("%q is in %q, want %q", test.name, got, wants[i])
			}
		}
	}
	if _, ok := zone.Authority(mustName(t, "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa")); !ok {
		t.Error("an address outside that has a name here is not ours")
	}
}
