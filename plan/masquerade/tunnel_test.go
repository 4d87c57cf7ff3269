package masquerade

import (
	"math/rand/v2"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func routing(random *rand.Rand) *model.Routing {
	return &model.Routing{
		Backend: model.Backends[random.IntN(len(model.Backends))],
		UDPPort: []uint16{1, 1024, 8285, 32768, 65535}[random.IntN(5)],
	}
}

// requireTunnels checks that the ports of all tunnels are known, and no others,
// and that packets to them have thousands to leave from.
func requireTunnels(t *testing.T, got Tunnels, snapshot *model.Snapshot) {
	t.Helper()
	first, last := got.Others()
	if first < 1024 || int(last)-int(first) < 15_000 {
		t.Fatalf("tunnels %v leave %d to %d", got, first, last)
	}
	used := map[uint16]bool{}
	for _, routing := range []*model.Routing{&snapshot.Network.Routing, snapshot.Former, snapshot.Coming} {
		if routing == nil || routing.Backend != model.BackendUDP {
			continue
		}
		used[routing.UDPPort] = true
		if port := routing.UDPPort; !got.Has(port) || port >= first && port <= last {
			t.Fatalf("tunnels %v, which leave %d to %d, lack %d", got, first, last, port)
		}
	}
	for _, port := range got {
		if port != 0 && !used[port] {
			t.Fatalf("nothing uses %d of the tunnels %v", port, got)
		}
	}
}

func TestOthers(t *testing.T) {
	tests := map[string]struct {
		tunnels     Tunnels
		first, last uint16
	}{
		"none":          {Tunnels{}, 1024, 65535},
		"the default":   {Tunnels{8285}, 8286, 65535},
		"privileged":    {Tunnels{53}, 1024, 65535},
		"above":         {Tunnels{60000}, 1024, 59999},
		"the first":     {Tunnels{1024}, 1025, 65535},
		"the last":      {Tunnels{65535}, 1024, 65534},
		"between":       {Tunnels{2000, 60000}, 2001, 59999},
		"three":         {Tunnels{1024, 8285, 40000}, 8286, 39999},
		"one by one":    {Tunnels{8285, 8286, 8287}, 8288, 65535},
		"in four parts": {Tunnels{17000, 33000, 49000}, 49001, 65535},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if first, last := test.tunnels.Others(); first != test.first || last != test.last {
				t.Errorf("%v leave %d to %d, want %d to %d", test.tunnels, first, last, test.first, test.last)
			}
		})
	}
}
