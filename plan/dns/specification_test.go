package dns

import (
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// cluster has a Service of each kind.
func cluster() *model.Snapshot {
	return world(func(s *model.Snapshot) {
		s.Network.DNS.PodNames = true
		serve := func(service *model.Service) { s.Services = s.Services.With(service.ServiceKey, service) }
		name := func(name *model.Name) { s.Names = s.Names.With(name.ServiceKey, name) }
		hosts := func(hosts *model.Hosts) { s.Hosts = s.Hosts.With(hosts.SliceKey, hosts) }
		key := func(namespace, name string) model.ServiceKey {
			return model.ServiceKey{Namespace: namespace, Name: name}
		}
		of := func(name, service string, ports []model.EndpointPort, all ...model.Host) {
			hosts(&model.Hosts{SliceKey: model.SliceKey{Namespace: "shop", Name: name}, Service: service, Ports: ports, Hosts: all})
		}
		host := func(addr, hostname string) model.Host {
			return model.Host{Address: addresses(addr)[0], Hostname: hostname}
		}

		serve(service("kube-system", "kube-dns", addresses("10.96.0.10"), port("dns", model.UDP, 53), port("dns-tcp", model.TCP, 53)))
		serve(service("shop", "web", addresses("10.96.0.7", "fd96::7"), port("http", model.TCP, 80), port("dns", model.UDP, 53), port("dns", model.TCP, 53)))
		serve(service("shop", "unnamed", addresses("10.96.0.8"), port("", model.TCP, 80)))
		name(&model.Name{ServiceKey: key("shop", "others"), ClusterIPs: addresses("10.96.0.9"), Ports: []model.ServicePort{port("sctp", model.SCTP, 9)}})

		name(&model.Name{ServiceKey: key("shop", "db")})
		sql := []model.EndpointPort{{Name: "sql", Protocol: model.TCP, Port: 5432}, {Protocol: model.TCP, Port: 99}}
		of("db-v4", "db", sql, host("10.0.0.1", "db-0"), host("10.0.0.2", "DB-1"), host("10.0.0.3", ""))
		of("db-v6", "db", sql, host("fd00::1", "db-0"), host("fd00::3", ""))
		name(&model.Name{ServiceKey: key("shop", "all")})
		of("all-1", "all", nil, host("10.0.0.1", ""), host("10.0.0.4", "same"), host("10.0.0.5", "same"), host("2001:db8::7", "same"))
		name(&model.Name{ServiceKey: key("shop", "none")})
		of("none-1", "none", sql)
		name(&model.Name{ServiceKey: key("shop", "nothing")})
		of("web-1", "web", sql, host("10.0.0.9", "web-0")) // of a Service with an address

		name(&model.Name{ServiceKey: key("shop", "out"), External: "www.Example.com"})
		name(&model.Name{ServiceKey: key("shop", "in"), External: "web.shop.svc.cluster.local"})
		name(&model.Name{ServiceKey: key("quiet", "none")})

		pod := func(name, addr string, finished bool) {
			key := model.PodKey{Namespace: "shop", Name: name}
			s.Pods = s.Pods.With(key, &model.Pod{PodKey: key, Addresses: addresses(addr), Finished: finished})
		}
		pod("a", "10.0.0.1", false)
		pod("b", "fd00::1", false)
		pod("c", "10.0.0.77", true)
		s.ServiceCIDRs = s.ServiceCIDRs.With("kubernetes", &model.ServiceCIDR{Name: "kubernetes", Prefixes: prefixes("10.96.0.0/12", "fd96::/108")})
		s.Nodes = s.Nodes.With("a", &model.Node{Name: "a", PodCIDRs: prefixes("10.0.0.0/24", "fd00::/64")})
	})
}

// TestSpecification has a row or more for each sentence of Kubernetes' DNS-based
// service discovery 1.1.0. What is said of answers, such as the CNAME's target and
// the additional section, is the server's.
func TestSpecification(t *testing.T) {
	const nibbles = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0."
	zone, problems := Compute(nil, cluster())
	if zone == nil || len(problems) > 0 {
		t.Fatalf("zone %v, problems %v", zone, problems)
	}
	for _, test := range []struct{ section, name, kind, want string }{
		{"2.1 case", "WEB.Shop.sVc.Cluster.LOCAL", "A", "10.96.0.7"},
		{"2.1 hostname: the endpoint's", "db-0.db.shop.svc.cluster.local", "A", "10.0.0.1"},
		{"2.1 hostname: made for it, for this Service", "10-0-0-3.db.shop.svc.cluster.local", "A", "10.0.0.3"},
		{"2.1 hostname: of IPv6", "fd00--3.db.shop.svc.cluster.local", "AAAA", "fd00::3"},
		{"2.1 hostname: not of one that has its own", "10-0-0-1.db.shop.svc.cluster.local", "A", "NXDOMAIN"},
		{"2.1 hostname: of another Service of the same pod", "10-0-0-1.all.shop.svc.cluster.local", "A", "10.0.0.1"},

		{"2.2 version", "dns-version.cluster.local", "TXT", "1.1.0"},
		{"2.2 version has no address", "dns-version.cluster.local", "A", "NODATA"},

		{"2.3.1 A", "web.shop.svc.cluster.local", "A", "10.96.0.7"},
		{"2.3.1 AAAA", "web.shop.svc.cluster.local", "AAAA", "fd96::7"},
		{"2.3.1 no AAAA", "unnamed.shop.svc.cluster.local", "AAAA", "NODATA"},
		{"2.3.1 of another program", "others.shop.svc.cluster.local", "A", "10.96.0.9"},
		{"2.3.2 SRV", "_http._tcp.web.shop.svc.cluster.local", "SRV", "80 web.shop.svc.cluster.local."},
		{"2.3.2 of each protocol", "_dns._udp.web.shop.svc.cluster.local", "SRV", "53 web.shop.svc.cluster.local."},
		{"2.3.2 of each protocol", "_dns._tcp.web.shop.svc.cluster.local", "SRV", "53 web.shop.svc.cluster.local."},
		{"2.3.2 SCTP", "_sctp._sctp.others.shop.svc.cluster.local", "SRV", "9 others.shop.svc.cluster.local."},
		{"2.3.2 of no other protocol", "_http._udp.web.shop.svc.cluster.local", "SRV", "NXDOMAIN"},
		{"2.3.2 of no other port", "_https._tcp.web.shop.svc.cluster.local", "SRV", "NXDOMAIN"},
		{"2.3.2 has no address", "_http._tcp.web.shop.svc.cluster.local", "A", "NODATA"},
		{"2.3.2 unnamed", "_80._tcp.unnamed.shop.svc.cluster.local", "SRV", "NXDOMAIN"},
		{"2.3.2 unnamed", "_tcp.unnamed.shop.svc.cluster.local", "SRV", "NXDOMAIN"},
		{"2.3.3 PTR", "7.0.96.10.in-addr.arpa", "PTR", "web.shop.svc.cluster.local."},
		{"2.3.3 PTR of IPv6", "7.0.0.0." + nibbles + "0.6.9.d.f.ip6.arpa", "PTR", "web.shop.svc.cluster.local."},

		{"2.4.1 A", "db.shop.svc.cluster.local", "A", "10.0.0.1, 10.0.0.2, 10.0.0.3"},
		{"2.4.1 AAAA", "db.shop.svc.cluster.local", "AAAA", "fd00::1, fd00::3"},
		{"2.4.1 none ready", "none.shop.svc.cluster.local", "A", "NXDOMAIN"},
		{"2.4.1 no endpoints", "nothing.shop.svc.cluster.local", "A", "NXDOMAIN"},
		{"2.4.1 host", "db-1.db.shop.svc.cluster.local", "A", "10.0.0.2"},
		{"2.4.1 host of two families", "db-0.db.shop.svc.cluster.local", "AAAA", "fd00::1"},
		{"2.4.1 all addresses of a hostname", "same.all.shop.svc.cluster.local", "A", "10.0.0.4, 10.0.0.5"},
		{"2.4.1 all addresses of a hostname", "same.all.shop.svc.cluster.local", "AAAA", "2001:db8::7"},
		{"2.4.1 no such host", "db-2.db.shop.svc.cluster.local", "A", "NXDOMAIN"},
		{"2.4.2 SRV", "_sql._tcp.db.shop.svc.cluster.local", "SRV",
			"5432 db-0.db.shop.svc.cluster.local., 5432 db-1.db.shop.svc.cluster.local., 5432 10-0-0-3.db.shop.svc.cluster.local., 5432 fd00--3.db.shop.svc.cluster.local."},
		{"2.4.2 none ready", "_sql._tcp.none.shop.svc.cluster.local", "SRV", "NXDOMAIN"},
		{"2.4.2 unnamed", "_99._tcp.db.shop.svc.cluster.local", "SRV", "NXDOMAIN"},
		{"2.4.3 PTR, of each Service", "1.0.0.10.in-addr.arpa", "PTR", "db-0.db.shop.svc.cluster.local., 10-0-0-1.all.shop.svc.cluster.local."},
		{"2.4.3 PTR of a hostname of many", "5.0.0.10.in-addr.arpa", "PTR", "same.all.shop.svc.cluster.local."},
		{"2.4.3 PTR of IPv6", "3.0.0.0." + nibbles + "0.0.0.d.f.ip6.arpa", "PTR", "fd00--3.db.shop.svc.cluster.local."},

		{"2.5 CNAME", "out.shop.svc.cluster.local", "A", "CNAME www.example.com."},
		{"2.5 CNAME, whatever is asked", "out.shop.svc.cluster.local", "TXT", "CNAME www.example.com."},
		{"2.5 CNAME in the cluster", "in.shop.svc.cluster.local", "AAAA", "CNAME web.shop.svc.cluster.local."},
	} {
		if got := answer(zone, mustName(t, test.name), test.kind); !sameSet(got, test.want) {
			t.Errorf("%s: %s %s is\n%s, want\n%s", test.section, test.name, test.kind, got, test.want)
		}
	}
}

// TestBeyondSpecification: what the specification leaves open, and what CoreDNS
// answers besides.
func TestBeyondSpecification(t *testing.T) {
	zone, _ := Compute(nil, cluster())
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
	snapshot := cluster()
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
