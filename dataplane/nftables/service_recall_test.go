package nftables

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// staying is a snapshot with Services of both families that clients stay with.
func staying(t testing.TB, names ...string) *model.Snapshot {
	t.Helper()
	snapshot := manyServices(0, 0)
	for n, name := range names {
		s := &model.Service{
			ServiceKey: model.ServiceKey{Namespace: "default", Name: name}, Affinity: 600, ExternalLocal: true,
			ClusterIPs:  []netip.Addr{netip.AddrFrom4([4]byte{172, 16, 0, byte(n + 1)}), netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(n + 1)})},
			ExternalIPs: []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, byte(n + 1)}), netip.AddrFrom16([16]byte{0: 0x20, 15: byte(n + 1)})},
			Ports:       []model.ServicePort{{Protocol: model.TCP, Port: 80}},
		}
		snapshot.Services = snapshot.Services.With(s.ServiceKey, s)
		for _, family := range model.Families {
			slice := &model.EndpointSlice{
				SliceKey: model.SliceKey{Namespace: "default", Name: name + family.String()}, Service: name, Family: family,
				Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 8080}},
			}
			for i := range 8 {
				addr := netip.AddrFrom4([4]byte{10, byte(i), byte(n), 5})
				if family == model.IPv6 {
					addr = netip.AddrFrom16([16]byte{0: 0xfd, 1: 1, 14: byte(n), 15: byte(i)})
				}
				slice.Endpoints = append(slice.Endpoints, model.Endpoint{Address: addr, Node: "node0", Ready: true, Serving: true})
			}
			snapshot.Slices = snapshot.Slices.With(slice.SliceKey, slice)
		}
	}
	return snapshot
}

// testClient is the nth client, as in the key of its map.
func testClient(family model.Family, n int) []byte {
	client := make([]byte, clientLength[family])
	binary.BigEndian.PutUint16(client[len(client)-2:], uint16(n+1))
	return client
}

// clientsOf are who of so many clients stays where, by the kernel and the
// numbers that a plane has given: client and pool, target. Each is looked up:
// a list made while the kernel enlarges a map lacks some.
func clientsOf(t *testing.T, plane *Plane, clients int) map[string]netip.AddrPort {
	t.Helper()
	r, err := openReader()
	must(t, err)
	defer r.close()
	found := map[string]netip.AddrPort{}
	for pool, slots := range plane.services.pools {
		if !slots.sticky {
			continue
		}
		for n := range clients {
			client := testClient(pool.Family, n)
			key := append(client, native(slots.id())...)
			stays, err := r.find(plane.services.families[pool.Family].affinity.Name, key)
			must(t, err)
			if len(stays.value) == 0 {
				continue
			}
			if stays.left <= 0 || stays.left > 100*time.Second {
				t.Errorf("%x stays for %v", key, stays.left)
			}
			name := binary.NativeEndian.Uint32(stays.value)
			at := slices.Index(slots.names, name-slots.id())
			if at < 0 {
				t.Fatalf("%x stays with %x, which %v has not", key, name, pool)
			}
			found[string(client)+pool.String()] = slots.targets[at]
		}
	}
	return found
}

// TestClientsStayOverRestart: a table that replaces another has the clients that
// stayed with a target, by whatever numbers; those alone whose target is gone
// are free.
func TestClientsStayOverRestart(t *testing.T) {
	netnstest.Enter(t)
	first := New()
	apply(t, first, plan.Compute(nil, staying(t, "a", "b"), "node0"))

	// What packets would do.
	conn := &nft.Conn{}
	for pool, slots := range first.services.pools {
		m := &first.services.families[pool.Family]
		for client := range 20 {
			key := append(testClient(pool.Family, client), native(slots.id())...)
			name := slots.id() | slots.names[client%len(slots.names)]
			must(t, conn.SetAddElements(m.affinity, []nft.SetElement{{Key: key, Val: native(name), Timeout: 100 * time.Second}}))
		}
	}
	must(t, conn.Flush())
	before := clientsOf(t, first, 20)
	if len(before) != 160 { // two Services of two pools in each family
		t.Fatalf("%d clients stay", len(before))
	}

	// Another Service takes the first numbers, and an endpoint of b is gone.
	next := staying(t, "0", "a", "b")
	for _, name := range []string{"a", "b"} {
		s, _ := next.Services.Get(model.ServiceKey{Namespace: "default", Name: name})
		old, _ := staying(t, "a", "b").Services.Get(s.ServiceKey)
		next.Services = next.Services.With(s.ServiceKey, old)
		for _, family := range model.Families {
			key := model.SliceKey{Namespace: "default", Name: name + family.String()}
			slice, _ := staying(t, "a", "b").Slices.Get(key)
			if name == "b" {
				slice.Endpoints = slice.Endpoints[1:]
			}
			next.Slices = next.Slices.With(key, slice)
		}
	}
	s, _ := next.Services.Get(model.ServiceKey{Namespace: "default", Name: "0"})
	s.ClusterIPs, s.ExternalIPs = []netip.Addr{netip.MustParseAddr("172.16.9.9"), netip.MustParseAddr("fd00::99")}, nil
	apply(t, New(), plan.Compute(nil, next, "node0"))
	second := New() // by now sets of ranges have had both names
	apply(t, second, plan.Compute(nil, next, "node0"))
	after := clientsOf(t, second, 20)
	gone := 0
	for client, target := range before {
		if after[client] == target {
			continue
		}
		if _, bound := after[client]; bound {
			t.Errorf("%x stayed with %s and is now with %s", client, target, after[client])
		}
		gone++
	}
	if gone != 12 || len(after) != len(before)-gone { // 3 of 20 in each pool of b
		t.Errorf("%d clients are free, %d of %d stay", gone, len(after), len(before))
	}
}

// TestManyClientsStay: of more clients than are taken over, those that are stay
// with their own target.
func TestManyClientsStay(t *testing.T) {
	netnstest.Enter(t)
	before := mostRecalled
	mostRecalled = 100
	t.Cleanup(func() { mostRecalled = before })
	snapshot := staying(t, "a", "b")
	first := New()
	apply(t, first, plan.Compute(nil, snapshot, "node0"))
	conn := &nft.Conn{}
	const clients = 3000 // more than the kernel tells at once
	for pool, slots := range first.services.pools {
		m := &first.services.families[pool.Family]
		var elements []nft.SetElement
		for client := range clients {
			key := append(testClient(pool.Family, client), native(slots.id())...)
			elements = append(elements, nft.SetElement{Key: key, Val: native(slots.id() | slots.names[client%len(slots.names)]), Timeout: 100 * time.Second})
		}
		for part := range slices.Chunk(elements, 500) {
			must(t, conn.SetAddElements(m.affinity, part))
		}
		must(t, conn.Flush())
	}
	stayed := clientsOf(t, first, clients)
	second := New()
	apply(t, second, plan.Compute(nil, snapshot, "node0"))
	after := clientsOf(t, second, clients)
	if len(after) < 2*mostRecalled || len(after) == len(stayed) {
		t.Errorf("%d of %d stay", len(after), len(stayed))
	}
	for client, target := range after {
		if stayed[client] != target {
			t.Fatalf("%x stayed with %s and is now with %s", client, stayed[client], target)
		}
	}
}
