package service

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// BenchmarkOneEndpointChanges shows that what a change costs does not follow how
// many Services there are.
func BenchmarkOneEndpointChanges(b *testing.B) {
	for _, services := range []int{100, 10_000} {
		b.Run(fmt.Sprint(services), func(b *testing.B) {
			c := newCluster()
			var slices [2]*model.EndpointSlice
			for n := range services {
				s := service()
				s.Name = fmt.Sprint("s", n)
				s.ClusterIPs, s.Ports[0].NodePort = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(n >> 8), byte(n)})}, 0
				c.serve(s)
				slice := &model.EndpointSlice{
					SliceKey: model.SliceKey{Namespace: "default", Name: s.Name}, Service: s.Name,
					Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
				}
				for e := range 10 {
					slice.Endpoints = append(slice.Endpoints, endpoint(fmt.Sprintf("10.0.0.%d", e), "a"))
				}
				c.Slices = c.Slices.With(slice.SliceKey, slice)
				fewer := *slice
				fewer.Endpoints = fewer.Endpoints[1:]
				slices = [2]*model.EndpointSlice{&fewer, slice}
			}
			p, _ := Compute(nil, &c.Snapshot, "a")
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				next := c.Snapshot
				next.Slices = next.Slices.With(slices[0].SliceKey, slices[i%2])
				p, _ = Compute(p, &next, "a")
			}
		})
	}
}
