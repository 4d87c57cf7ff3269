package nftables

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// manyServices is a snapshot with so many Services of so many endpoints each, a
// hundred to a slice.
func manyServices(services, endpoints int) *model.Snapshot {
	snapshot := &model.Snapshot{Network: model.DefaultNetwork(), PoliciesKnown: true}
	for n := range 100 {
		name := fmt.Sprint("node", n)
		snapshot.Nodes = snapshot.Nodes.With(name, &model.Node{
			Name: name, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(n + 1)})},
			PodCIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n), 0, 0}), 16)},
		})
	}
	for n := range services {
		s := &model.Service{
			ServiceKey: model.ServiceKey{Namespace: "default", Name: fmt.Sprint("service", n)},
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{172, 16 + byte(n>>16), byte(n >> 8), byte(n)})},
			Ports:      []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}},
		}
		snapshot.Services = snapshot.Services.With(s.ServiceKey, s)
		for first := 0; first < endpoints; first += 100 {
			slice := sliceOf(n, first, min(endpoints, first+100))
			snapshot.Slices = snapshot.Slices.With(slice.SliceKey, slice)
		}
	}
	return snapshot
}

func sliceOf(service, first, last int) *model.EndpointSlice {
	slice := &model.EndpointSlice{
		SliceKey: model.SliceKey{Namespace: "default", Name: fmt.Sprintf("service%d-%d", service, first)},
		Service:  fmt.Sprint("service", service), Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
	}
	for n := first; n < last; n++ {
		pod := service*(last-first)*3 + n
		slice.Endpoints = append(slice.Endpoints, model.Endpoint{
			Address: netip.AddrFrom4([4]byte{10, byte(pod % 100), byte(pod >> 16), byte(pod >> 8)}), Node: fmt.Sprint("node", pod%100),
			Ready: true, Serving: true,
		})
	}
	return slice
}

// BenchmarkServicesFromNothing is the start of an agent: plan and table. The
// memory is that of the agent alone.
func BenchmarkServicesFromNothing(b *testing.B) {
	for _, size := range [][2]int{{10_000, 10}, {5_000, 50}} {
		b.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(b *testing.B) {
			netnstest.Enter(b)
			before := heap()
			snapshot := manyServices(size[0], size[1])
			objects := heap()
			b.ReportAllocs()
			var planning time.Duration
			var node *plan.Node
			var plane *Plane
			for b.Loop() {
				start := time.Now()
				node, plane = plan.Compute(nil, snapshot, "node0"), New()
				planning += time.Since(start)
				apply(b, plane, node)
			}
			b.ReportMetric((objects-before)/1e6, "snapshot-MB")
			b.ReportMetric((heap()-objects)/1e6, "rest-MB")
			runtime.KeepAlive(snapshot)
			runtime.KeepAlive(node)
			runtime.KeepAlive(plane)
			b.ReportMetric(float64(planning.Milliseconds())/float64(b.N), "plan-ms/op")
		})
	}
}

// heap is what is in use, in bytes.
func heap() float64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

// BenchmarkOneEndpoint is from a new snapshot to the kernel, as one endpoint of
// many comes or goes.
func BenchmarkOneEndpoint(b *testing.B) {
	for _, size := range [][2]int{{100, 10}, {10_000, 10}, {5_000, 50}} {
		b.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(b *testing.B) {
			netnstest.Enter(b)
			snapshot := manyServices(size[0], size[1])
			plane, node := New(), plan.Compute(nil, snapshot, "node0")
			apply(b, plane, node)
			var all []time.Duration
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				service := i / 2 % size[0]
				slice := sliceOf(service, 0, size[1])
				if i%2 == 0 {
					slice.Endpoints = slice.Endpoints[1:]
				}
				start := time.Now()
				next := *snapshot
				next.Slices = next.Slices.With(slice.SliceKey, slice)
				node = plan.Compute(node, &next, "node0")
				apply(b, plane, node)
				all, snapshot = append(all, time.Since(start)), &next
			}
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}
