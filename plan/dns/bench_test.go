package dns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// large is a cluster of so many Services with an address, and as many headless ones
// of so many endpoints each.
func large(services, endpoints int) *model.Snapshot {
	var all []*model.Service
	var names []*model.Name
	var hosts []*model.Hosts
	for i := range services {
		namespace := fmt.Sprintf("namespace-%d", i%100)
		all = append(all, service(namespace, fmt.Sprintf("service-%d", i), []netip.Addr{numbered(0x0a600000, i)}, port("http", model.TCP, 80)))
		key := model.ServiceKey{Namespace: namespace, Name: fmt.Sprintf("headless-%d", i)}
		names = append(names, &model.Name{ServiceKey: key})
		if endpoints > 0 {
			hosts = append(hosts, slice(key, i*endpoints, endpoints))
		}
	}
	return world(func(s *model.Snapshot) {
		s.Services = model.Collect(func(yield func(model.ServiceKey, *model.Service) bool) {
			for _, s := range all {
				yield(s.ServiceKey, s)
			}
		})
		s.Names = model.Collect(func(yield func(model.ServiceKey, *model.Name) bool) {
			for _, n := range names {
				yield(n.ServiceKey, n)
			}
		})
		s.Hosts = model.Collect(func(yield func(model.SliceKey, *model.Hosts) bool) {
			for _, h := range hosts {
				yield(h.SliceKey, h)
			}
		})
	})
}

// slice is one of so many endpoints, whose addresses begin with the first.
func slice(key model.ServiceKey, first, endpoints int) *model.Hosts {
	h := &model.Hosts{
		SliceKey: model.SliceKey{Namespace: key.Namespace, Name: fmt.Sprintf("%s-%d", key.Name, first)}, Service: key.Name,
		Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
	}
	for i := range endpoints {
		h.Hosts = append(h.Hosts, model.Host{Address: numbered(0x0b000000, first+i)})
	}
	return h
}

func numbered(base uint32, i int) netip.Addr {
	var bytes [4]byte
	binary.BigEndian.PutUint32(bytes[:], base+uint32(i))
	return netip.AddrFrom4(bytes)
}

// BenchmarkFirst is a zone made anew: time, what is allocated, and what stays of it
// besides the snapshot.
func BenchmarkFirst(b *testing.B) {
	pods := world(func(s *model.Snapshot) {
		s.Network.DNS.PodNames = true
		for i := range 50_000 {
			key := model.PodKey{Namespace: fmt.Sprintf("namespace-%d", i%100), Name: fmt.Sprint(i)}
			s.Pods = s.Pods.With(key, &model.Pod{PodKey: key, Addresses: []netip.Addr{numbered(0x0b000000, i)}})
		}
	})
	for name, snapshot := range map[string]*model.Snapshot{
		"10000 services": large(10_000, 0), "and 100000 headless endpoints": large(10_000, 10), "50000 pods": pods,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				before := heap()
				zone, _ := Compute(nil, snapshot)
				b.ReportMetric(float64(heap()-before)/1e6, "MB")
				runtime.KeepAlive(zone)
			}
			runtime.KeepAlive(snapshot)
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// BenchmarkChange is one change among many Services.
func BenchmarkChange(b *testing.B) {
	snapshot := large(10_000, 10)
	key := model.ServiceKey{Namespace: "namespace-7", Name: "headless-7"}
	whole := slice(key, 70, 10)
	one := *whole
	one.Hosts = whole.Hosts[:9]
	many := model.ServiceKey{Namespace: "namespace-7", Name: "many"}
	snapshot.Names = snapshot.Names.With(many, &model.Name{ServiceKey: many})
	for i := range 50 {
		all := slice(many, 1_000_000+100*i, 100)
		snapshot.Hosts = snapshot.Hosts.With(all.SliceKey, all)
	}
	wholeOfMany := slice(many, 1_000_000, 100)
	oneOfMany := *wholeOfMany
	oneOfMany.Hosts = wholeOfMany.Hosts[:99]
	web := model.ServiceKey{Namespace: "namespace-7", Name: "service-7"}
	for name, change := range map[string]func(*model.Snapshot, int){
		"service": func(s *model.Snapshot, i int) {
			s.Services = s.Services.With(web, service(web.Namespace, web.Name, []netip.Addr{numbered(0x0a600000, 7)}, port("http", model.TCP, uint16(80+i%2))))
		},
		"endpoint": func(s *model.Snapshot, i int) {
			s.Hosts = s.Hosts.With(whole.SliceKey, []*model.Hosts{whole, &one}[i%2])
		},
		"endpoint of 5000": func(s *model.Snapshot, i int) {
			s.Hosts = s.Hosts.With(wholeOfMany.SliceKey, []*model.Hosts{wholeOfMany, &oneOfMany}[i%2])
		},
		"nothing": func(s *model.Snapshot, i int) {
			s.Links = s.Links.With("eth0", &model.Link{MTU: i})
		},
	} {
		b.Run(name, func(b *testing.B) {
			zone, _ := Compute(nil, snapshot)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				next := *snapshot
				next.Revision++
				change(&next, i)
				zone, _ = Compute(zone, &next)
				snapshot = &next
			}
		})
	}
}

// BenchmarkLookup is what a query needs of the zone.
func BenchmarkLookup(b *testing.B) {
	zone, _ := Compute(nil, large(10_000, 10))
	for name, text := range map[string]string{
		"service": "service-7.namespace-7.svc.cluster.local", "nothing": "nothing.namespace-7.svc.cluster.local",
		"reverse": "7.0.0.11.in-addr.arpa", "outside": "www.example.com",
	} {
		b.Run(name, func(b *testing.B) {
			query := mustName(b, text)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := zone.Authority(query); ok {
					zone.Lookup(query)
				}
			}
		})
	}
}
