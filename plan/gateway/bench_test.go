package gateway

import (
	"fmt"
	"testing"
)

// cluster has so many Ingresses, each of a host with ten paths.
func cluster(ingresses int) *world {
	w := newWorld()
	for n := range ingresses {
		w.ingress(fmt.Sprint("i", n), paths(n)...)
	}
	return w
}

func paths(n int) (lines []string) {
	for path := range 10 {
		lines = append(lines, fmt.Sprintf("prefix host%d.example.org/path%d/below web", n, path))
	}
	return append(lines, "proxy-body-size: 8m", "limit-rps: 100")
}

func BenchmarkCompute(b *testing.B) {
	w := cluster(500)
	b.Run("5000 routes from nothing", func(b *testing.B) {
		for b.Loop() {
			Compute(nil, &w.Snapshot)
		}
	})
	b.Run("one Ingress of 500", func(b *testing.B) {
		table, _ := Compute(nil, &w.Snapshot)
		for b.Loop() {
			w.ingress("i7", paths(7)...)
			table, _ = Compute(table, &w.Snapshot)
		}
	})
}

func BenchmarkRoute(b *testing.B) {
	w := cluster(500)
	table, _ := Compute(nil, &w.Snapshot)
	b.ReportAllocs()
	for b.Loop() {
		if route, _ := table.Route(table.Find("host77.example.org"), "/path7/below/and/more"); route == nil {
			b.Fatal("nobody takes it")
		}
	}
}
