// Package specification is Kubernetes' DNS-based service discovery 1.1.0 as a
// suite: a cluster, and what each sentence says of its names. Whoever plans names,
// and whoever answers, is tested with it. It is immutable, and for tests alone.
package specification

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// Sentence is one of the specification, of one name.
type Sentence struct {
	Section string
	Name    string // without a dot at the end
	Type    string // of the records: A, AAAA, SRV, PTR, TXT or CNAME
	// Want are the records, in any order, with a comma between; of SRV the port and
	// the target. A name that has none of them is NODATA, one that is not there
	// NXDOMAIN; one that stands for another is CNAME and that.
	Want string
}

// nibbles are 23 of a reverse name.
const nibbles = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0."

// Sentences returns a row or more for each sentence that is about records.
func Sentences() []Sentence {
	return []Sentence{
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
	}
}

// Cluster returns the objects that the sentences are about: Services of each kind.
func Cluster() *model.Snapshot {
	s := &model.Snapshot{Revision: 1, Network: model.DefaultNetwork(), NamesKnown: true}
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
	return s
}

func service(namespace, name string, addrs []netip.Addr, ports ...model.ServicePort) *model.Service {
	return &model.Service{ServiceKey: model.ServiceKey{Namespace: namespace, Name: name}, ClusterIPs: addrs, Ports: ports}
}

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func port(name string, protocol model.Protocol, number uint16) model.ServicePort {
	return model.ServicePort{Name: name, Protocol: protocol, Port: number}
}
