package dns

import (
	"fmt"
	"math/rand"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestIncremental: whatever changes, a zone made of the last one is as one made
// anew; and each is whole.
func TestIncremental(t *testing.T) {
	for seed := range int64(30) {
		random := edits{rand.New(rand.NewSource(seed))}
		snapshot := world(func(*model.Snapshot) {})
		var zone *Zone
		var problems []model.Problem
		for step := range 150 {
			next := *snapshot
			for range 1 + random.Intn(3) {
				random.edit(&next)
			}
			next.Revision++
			snapshot = &next
			if random.Intn(4) == 0 {
				continue // several edits become one change
			}
			before := zone
			zone, problems = Compute(zone, snapshot)
			anew, wanted := Compute(nil, snapshot)
			if text := differ(zone, anew); text != "" {
				t.Fatalf("seed %d, step %d: %s", seed, step, text)
			}
			if !slices.Equal(problems, wanted) {
				t.Fatalf("seed %d, step %d: problems %v, want %v", seed, step, problems, wanted)
			}
			if text := whole(zone); text != "" {
				t.Fatalf("seed %d, step %d: %s", seed, step, text)
			}
			if before != nil && (before.Serial != zone.Serial) == (differ(before, zone) == "") {
				t.Fatalf("seed %d, step %d: serial %d follows %d, though %q", seed, step, zone.Serial, before.Serial, differ(before, zone))
			}
		}
	}
}

// differ says in which way two zones differ; empty: in none.
func differ(a, b *Zone) string {
	if a.Origin != b.Origin || a.TTL != b.TTL || a.NS != b.NS {
		return fmt.Sprintf("%s %d %s, and %s %d %s", a.Origin, a.TTL, a.NS, b.Origin, b.TTL, b.NS)
	}
	for change := range model.Diff(a.names, b.names) {
		if !change.Had || !change.Has || !change.Old.equal(change.New) {
			return fmt.Sprintf("%s: %+v, and %+v", change.Key, change.Old, change.New)
		}
	}
	for change := range model.Diff(a.reverse, b.reverse) {
		if !change.Had || !change.Has || !change.Old.equal(change.New) {
			return fmt.Sprintf("%s: %+v, and %+v", change.Key, change.Old, change.New)
		}
	}
	return ""
}

// whole says what is missing: names above others, and what names lead to.
func whole(z *Zone) string {
	for name, records := range z.names.All() {
		if name != z.Origin && z.Lookup(name.parent()) == nil {
			return fmt.Sprintf("%s is there, and not what is above it", name)
		}
		for _, srv := range records.SRV {
			if target := z.Lookup(srv.Target); target == nil || len(target.Addrs) == 0 {
				return fmt.Sprintf("%s leads to %s, which is nowhere", name, srv.Target)
			}
		}
	}
	for addr, records := range z.reverse.All() {
		for _, name := range records.PTR {
			if target := z.Lookup(name); target == nil || !slices.Contains(target.Addrs, addr) {
				return fmt.Sprintf("%s has the name %s, which is not its", addr, name)
			}
		}
	}
	return ""
}

// edits are random ones, of a small world, so that they meet.
type edits struct{ *rand.Rand }

func (e edits) edit(s *model.Snapshot) {
	key := model.ServiceKey{Namespace: e.of("a", "b"), Name: e.of("x", "y", "z")}
	network := *s.Network
	switch e.Intn(16) {
	case 0, 1:
		s.Services = s.Services.With(key, service(key.Namespace, key.Name, e.addresses("10.96.0."), e.ports()...))
		s.Names = s.Names.Without(key)
	case 2, 3, 4:
		name := &model.Name{ServiceKey: key}
		switch e.Intn(5) {
		case 0:
			name.External = e.of("example.com", "1.2.3.4", "x.a.svc.cluster.local", "y.b.svc.cluster.local", "a..b")
		case 1:
			name.ClusterIPs, name.Ports = e.addresses("10.96.0."), e.ports()
		}
		s.Names = s.Names.With(key, name)
		if e.Intn(4) > 0 { // else it is both, for a moment
			s.Services = s.Services.Without(key)
		}
	case 5:
		s.Services, s.Names = s.Services.Without(key), s.Names.Without(key)
	case 6, 7, 8, 9:
		hosts := &model.Hosts{SliceKey: model.SliceKey{Namespace: key.Namespace, Name: e.of("1", "2", "3", "4", "5")}, Service: key.Name}
		for _, port := range e.ports() {
			hosts.Ports = append(hosts.Ports, model.EndpointPort{Name: port.Name, Protocol: port.Protocol, Port: port.Port})
		}
		for _, addr := range e.addresses("10.0.0.") {
			hosts.Hosts = append(hosts.Hosts, model.Host{Address: addr, Hostname: e.of("", "", "", "h-0", "H-1", "10-0-0-1")})
		}
		s.Hosts = s.Hosts.With(hosts.SliceKey, hosts)
	case 10:
		s.Hosts = s.Hosts.Without(model.SliceKey{Namespace: key.Namespace, Name: e.of("1", "2", "3", "4", "5")})
	case 11, 12:
		key := model.PodKey{Namespace: key.Namespace, Name: e.of("p", "q", "r")}
		s.Pods = s.Pods.With(key, &model.Pod{PodKey: key, Addresses: e.addresses("10.0.0."), Finished: e.Intn(4) == 0})
	case 13:
		s.Pods = s.Pods.Without(model.PodKey{Namespace: key.Namespace, Name: e.of("p", "q", "r")})
	case 14:
		network.DNS.PodNames = e.Intn(2) == 0
		network.DNS.TTL = uint32(e.Intn(2))
		s.Network = &network
	case 15:
		if e.Intn(4) == 0 {
			network.DNS.Zone = e.of("cluster.local", "k8s.example")
			s.Network = &network
		}
	}
}

func (e edits) of(all ...string) string { return all[e.Intn(len(all))] }

// addresses are different ones, of two families.
func (e edits) addresses(prefix string) (all []netip.Addr) {
	for range 1 + e.Intn(3) {
		text := fmt.Sprintf("%s%d", prefix, e.Intn(4))
		if e.Intn(3) == 0 {
			text = fmt.Sprintf("fd00::%d", e.Intn(4))
		}
		if addr := netip.MustParseAddr(text); !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	return all
}

func (e edits) ports() (all []model.ServicePort) {
	for range e.Intn(3) {
		next := port(e.of("", "http", "dns"), []model.Protocol{model.TCP, model.UDP}[e.Intn(2)], uint16(1+e.Intn(2)))
		if !slices.ContainsFunc(all, func(p model.ServicePort) bool { return p.Name == next.Name && p.Protocol == next.Protocol }) {
			all = append(all, next)
		}
	}
	return all
}
