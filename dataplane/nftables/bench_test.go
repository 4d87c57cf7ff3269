package nftables

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/antispoof"
)

func BenchmarkFirstApply(b *testing.B) {
	netnstest.Enter(b)
	wanted := many(1000)
	for b.Loop() {
		apply(b, New(), wanted)
	}
}

func BenchmarkOneNodeChanges(b *testing.B) {
	netnstest.Enter(b)
	plane, wanted := New(), many(1000)
	more := *wanted.Masquerade
	more.Cluster = more.Cluster.With(netip.MustParsePrefix("10.200.0.0/24"), struct{}{})
	extra := masquerading(&more)
	apply(b, plane, wanted)
	for i := 0; b.Loop(); i++ {
		if i%2 == 0 {
			apply(b, plane, extra)
		} else {
			apply(b, plane, wanted)
		}
	}
}

// BenchmarkPodAdded is what CNI ADD waits for, on a node that has 100 pods.
func BenchmarkPodAdded(b *testing.B) {
	netnstest.Enter(b)
	without := many(100)
	for pod := range 100 {
		addPod(without, pod)
	}
	with, sources := *without, *without.AntiSpoof
	with.AntiSpoof = &sources
	addPod(&with, 100)
	plane := New()
	for b.Loop() {
		b.StopTimer()
		apply(b, plane, without)
		b.StartTimer()
		apply(b, plane, &with)
	}
}

func addPod(to *plan.Node, pod int) {
	device, mac := fmt.Sprintf("fl%013x", pod), model.MAC{2, 0, 0, 0, 0, byte(pod)}
	for _, addr := range []netip.Addr{
		netip.AddrFrom4([4]byte{10, 244, 1, byte(pod)}), netip.MustParseAddr(fmt.Sprintf("fd00:1::%x", pod)), {},
	} {
		to.AntiSpoof.Sources = to.AntiSpoof.Sources.With(antispoof.Source{Device: device, MAC: mac, Address: addr}, struct{}{})
	}
}
