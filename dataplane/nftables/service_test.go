package nftables

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/service"
)

// seen is what the kernel holds for Services, read without the code that wrote
// it.
type seen struct {
	t      *testing.T
	maps   map[string]map[string][]byte // key: value, by name of the map
	chains map[string]map[uint32]string // class: chain, by name of the map
}

func see(t *testing.T) *seen {
	s := &seen{t, map[string]map[string][]byte{}, map[string]map[uint32]string{}}
	conn := &nft.Conn{}
	table := ourTable()
	for _, family := range []string{"4", "6"} {
		for _, name := range []string{
			"services", "service-pools", "services-outside", "services-inside", "service-pools-inside", "service-sources",
			"service-slots", "sticky-slots", "sticky-targets",
		} {
			s.maps[name+family] = map[string][]byte{}
			elements, err := conn.GetSetElements(&nft.Set{Table: table, Name: name + family})
			must(t, err)
			for _, element := range elements {
				s.maps[name+family][string(element.Key)] = element.Val
			}
		}
		for _, name := range []string{"service-chains", "service-answers"} {
			s.chains[name+family] = map[uint32]string{}
			for _, element := range strings.Split(inMap(t, name+family), ",") {
				var major, minor uint32
				var chain string
				if _, err := fmt.Sscanf(strings.TrimSpace(element), "%x:%x : goto %s", &major, &minor, &chain); err != nil {
					t.Fatalf("%s has %q: %v", name, element, err)
				}
				s.chains[name+family][major<<16|minor] = chain
			}
		}
	}
	return s
}

// inMap are the elements of a map as nft writes them.
func inMap(t *testing.T, name string) string {
	_, list, _ := strings.Cut(listed(t, "list", "map", "inet", TableName, name), "elements = {")
	list, _, _ = strings.Cut(list, "}")
	return list
}

// answer follows a packet to a VIP through the maps, and says where it may come
// out.
func (s *seen) answer(vip service.VIP, inside bool) string {
	family := "4"
	if vip.At.Addr().Is6() {
		family = "6"
	}
	key := string(vip.At.Addr().AsSlice()) + string([]byte{byte(vip.Protocol), 0, 0, 0, byte(vip.At.Port() >> 8), byte(vip.At.Port()), 0, 0})
	number := func(name string) uint32 {
		value, ok := s.maps[name+family][key]
		if !ok {
			s.t.Fatalf("%s is not in %s", vip, name+family)
		}
		return binary.NativeEndian.Uint32(value)
	}
	class, pools := number("services"), "service-pools"
	chain := s.chains["service-chains"+family][class]
	if strings.HasPrefix(chain, "service-special") || strings.HasPrefix(chain, "service-restricted") {
		if class = number("services-outside"); inside {
			class, pools = number("services-inside"), "service-pools-inside"
		}
		chain = s.chains["service-answers"+family][class]
	}
	switch chain {
	case "service-reject":
		return "reject"
	case "service-drop":
		return "drop"
	}
	var count int
	if _, err := fmt.Sscanf(chain, "services"+family+"-1-of-%d", &count); err != nil || strings.Contains(chain, "inside") != (pools != "service-pools") {
		s.t.Fatalf("%s leads by class %#x to chain %q", vip, class, chain)
	}
	var targets []string
	for slot := range count {
		key := string(native(number(pools))) + string(native(uint32(slot)))
		value, ok := s.maps["service-slots"+family][key]
		if strings.Contains(chain, "-for-") {
			name := s.maps["sticky-slots"+family][key]
			if value, ok = s.maps["sticky-targets"+family][string(name)]; binary.NativeEndian.Uint32(name)>>nameBits<<nameBits != number(pools) {
				s.t.Fatalf("the name of a target is %x, of pool %x", name, number(pools))
			}
		}
		if !ok {
			s.t.Fatalf("%s: slot %d of %d is missing", vip, slot, count)
		}
		addr, _ := netip.AddrFromSlice(value[:len(value)-4])
		targets = append(targets, netip.AddrPortFrom(addr, binary.BigEndian.Uint16(value[len(value)-4:])).String())
	}
	slices.Sort(targets)
	return fmt.Sprint(targets)
}

// requireServices compares the kernel with a plan, and finds what is left over.
func requireServices(t *testing.T, when string, p *service.Plan) {
	t.Helper()
	s := see(t)
	for vip, f := range p.Frontends.All() {
		for _, inside := range []bool{false, true} {
			a := f.Outside
			if inside {
				a = f.Inside
			}
			want := a.String()
			if b, ok := p.Backends.Get(f.Pool(a)); ok && a.Do == service.Forward {
				var targets []string
				for _, target := range b.Targets {
					targets = append(targets, target.String())
				}
				slices.Sort(targets)
				want = fmt.Sprint(targets)
			}
			if got := s.answer(vip, inside); got != want {
				t.Fatalf("%s: %s (inside: %t) leads to %s, want %s", when, vip, inside, got, want)
			}
		}
	}
	targets := 0
	for _, b := range p.Backends.All() {
		targets += len(b.Targets)
	}
	held := len(s.maps["service-slots4"]) + len(s.maps["service-slots6"]) + len(s.maps["sticky-slots4"]) + len(s.maps["sticky-slots6"])
	if vips := len(s.maps["services4"]) + len(s.maps["services6"]); vips != p.Frontends.Len() || held != targets {
		t.Fatalf("%s: the kernel holds %d VIPs and %d targets, want %d and %d", when, vips, held, p.Frontends.Len(), targets)
	}
}

// TestServicesInAnyOrder walks through random Services. Whatever came before,
// and though the process starts anew or somebody removes the table, the kernel
// holds what the last plan says, and nothing else.
func TestServicesInAnyOrder(t *testing.T) {
	netnstest.Enter(t)
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(seed, 3))
		snapshot := &model.Snapshot{Network: model.DefaultNetwork(), PoliciesKnown: true}
		snapshot.Nodes = snapshot.Nodes.With("self", &model.Node{
			Name: "self", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		})
		plane := New()
		var node *plan.Node
		for step := range 40 {
			for range 1 + random.IntN(3) {
				mutateServices(random, snapshot)
			}
			switch random.IntN(20) {
			case 0:
				plane = New()
			case 1:
				conn := &nft.Conn{}
				conn.DelTable(ourTable())
				must(t, conn.Flush())
				plane.lost.Store(true) // as Run would
			}
			node = plan.Compute(node, snapshot, "self")
			apply(t, plane, node)
			requireServices(t, fmt.Sprintf("seed %d step %d", seed, step), node.Service)
		}
	}
}

func mutateServices(random *rand.Rand, snapshot *model.Snapshot) {
	pick := random.IntN
	name := fmt.Sprint("s", pick(4))
	key := model.ServiceKey{Namespace: "default", Name: name}
	if pick(8) == 0 {
		snapshot.Services = snapshot.Services.Without(key)
		return
	}
	if pick(3) == 0 {
		number := name[1:]
		s := &model.Service{
			ServiceKey: key, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0." + number), netip.MustParseAddr("fd96::" + number)}[:1+pick(2)],
			Ports:    []model.ServicePort{{Name: "p", Protocol: model.TCP, Port: 80, NodePort: uint16(pick(2) * (30000 + int(name[1])))}},
			Affinity: uint32(pick(3) * 60), InternalLocal: pick(2) == 0, ExternalLocal: pick(2) == 0,
		}
		if pick(2) == 0 {
			s.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("203.0.113." + number), netip.MustParseAddr("2001:db8:113::" + number)}[:1+pick(2)]
			s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("198.51.100.7/32"), netip.MustParsePrefix("2001:db8::/32")}[:pick(4)]
		}
		snapshot.Services = snapshot.Services.With(key, s)
		return
	}
	slice := &model.EndpointSlice{
		SliceKey: model.SliceKey{Namespace: "default", Name: name + fmt.Sprint(pick(2))}, Service: name, Family: model.Families[pick(2)],
		Ports: []model.EndpointPort{{Name: "p", Protocol: model.TCP, Port: 8080}},
	}
	for n := range pick(12) {
		addr := fmt.Sprintf("10.244.0.%d", n+pick(6))
		if slice.Family == model.IPv6 {
			addr = fmt.Sprintf("fd00::%d", n+pick(6))
		}
		slice.Endpoints = append(slice.Endpoints, model.Endpoint{
			Address: netip.MustParseAddr(addr), Node: []string{"self", "other"}[pick(2)], Ready: pick(4) > 0, Serving: true, Terminating: pick(4) == 0,
		})
	}
	snapshot.Slices = snapshot.Slices.With(slice.SliceKey, slice)
}

// twoServices has two at 10.96.0.1 and 2, with three endpoints each.
func twoServices() *model.Snapshot {
	snapshot := manyServices(2, 3)
	return snapshot
}

// TestOneEndpoint: what one endpoint changes is its own slot and how many there
// are. If it goes, the last one is moved into the hole; who comes then takes its
// place.
func TestOneEndpoint(t *testing.T) {
	netnstest.Enter(t)
	snapshot := twoServices()
	node := plan.Compute(nil, snapshot, "node0")
	plane := New()
	apply(t, plane, node)
	before, table := see(t), chainHandle(t)
	slice := sliceOf(1, 0, 3)
	first, last := slice.Endpoints[0], slice.Endpoints[2]
	slice.Endpoints = slice.Endpoints[1:]
	snapshot.Slices = snapshot.Slices.With(slice.SliceKey, slice)
	node = plan.Compute(node, snapshot, "node0")
	apply(t, plane, node)
	requireServices(t, "without the first", node.Service)
	after := see(t)
	changed := 0
	for key, value := range before.maps["service-slots4"] {
		now, ok := after.maps["service-slots4"][key]
		switch {
		case !ok:
			changed++
		case string(now) != string(value):
			changed++
			if !strings.HasPrefix(string(now), string(last.Address.AsSlice())) || !strings.HasPrefix(string(value), string(first.Address.AsSlice())) {
				t.Errorf("slot %x has %x in the place of %x", key, now, value)
			}
		}
	}
	if changed != 2 {
		t.Errorf("%d slots changed, want 2", changed)
	}
	if !maps.EqualFunc(before.maps["service-pools4"], after.maps["service-pools4"], func(a, b []byte) bool { return string(a) == string(b) }) {
		t.Error("the numbers of pools changed")
	}
	if now := chainHandle(t); now != table {
		t.Error("the table was replaced")
	}
}

// TestServiceRefused: a Service that the kernel does not take is named, and stays
// as it was; all others are as they should be, and it goes in itself once it
// can.
func TestServiceRefused(t *testing.T) {
	netnstest.Enter(t)
	snapshot := twoServices()
	good := plan.Compute(nil, snapshot, "node0")
	bad := *good
	services := *good.Service
	bad.Service = &services
	for pool, b := range services.Backends.All() {
		changed := &service.Backends{Targets: b.Targets[:2:2]}
		if pool.Service.Name == "service1" {
			changed.Targets = append(changed.Targets, netip.MustParseAddrPort("[fd00::1]:80"))
		} else {
			services.Backends = services.Backends.With(pool, changed)
			for vip, f := range services.Frontends.All() {
				if f.Port == pool.Port {
					fewer := *f
					fewer.Inside.Count, fewer.Outside.Count = 2, 2
					services.Frontends = services.Frontends.With(vip, &fewer)
				}
			}
			continue
		}
		services.Backends = services.Backends.With(pool, changed)
	}
	plane := New()
	apply(t, plane, good)
	for range 2 {
		problems, err := plane.Apply(t.Context(), &bad)
		must(t, err)
		if len(problems) != 1 || problems[0].Object() != "Service/default/service1" || problems[0].Reason != "KernelRefused" || problems[0].Remedy == "" {
			t.Fatalf("problems %v", problems)
		}
		mixed := services
		for pool, b := range good.Service.Backends.All() {
			if pool.Service.Name == "service1" {
				mixed.Backends = mixed.Backends.With(pool, b)
			}
		}
		requireServices(t, "with one that is refused", &mixed)
	}
	apply(t, plane, good)
	requireServices(t, "mended", good.Service)
}

// TestSlots: of random changes, slots have no holes, sticky targets keep their
// names, and no more slots differ than there are changes.
func TestSlots(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for _, sticky := range []uint32{0, 60} {
		choose := func() *service.Backends {
			b := &service.Backends{Sticky: sticky}
			for n := range 20 {
				if random.IntN(2) == 0 {
					b.Targets = append(b.Targets, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80))
				}
			}
			return b
		}
		backends := choose()
		s := newSlots(backends, 7)
		for range 2000 {
			next := choose()
			t1 := s.become(backends, next)
			targets := slices.Clone(t1.targets)
			slices.SortFunc(targets, netip.AddrPort.Compare)
			if !slices.Equal(targets, next.Targets) {
				t.Fatalf("slots hold %v, want %v", t1.targets, next.Targets)
			}
			names := map[uint32]bool{}
			for slot, target := range t1.targets {
				if sticky == 0 {
					continue
				}
				if names[t1.names[slot]] = true; int(t1.names[slot]) > 20 {
					t.Fatalf("a name is %d", t1.names[slot])
				}
				if before := slices.Index(s.targets, target); before >= 0 && s.names[before] != t1.names[slot] {
					t.Fatalf("%s was named anew", target)
				}
			}
			if sticky != 0 && len(names) != len(t1.targets) {
				t.Fatalf("names %v are not unique", t1.names)
			}
			gone, come := difference(backends.Targets, next.Targets)
			m := newServiceMaps(model.IPv4)
			if n := len(m.poolElements(t1, s)); sticky == 0 && n > max(len(gone), len(come)) {
				t.Fatalf("%d slots differ, for %d that went and %d that came", n, len(gone), len(come))
			}
			s, backends = t1, next
		}
	}
}

// TestServiceListing loads what nft lists of Services of each kind, as
// TestListingCanBeLoaded does, and shows what an administrator sees.
func TestServiceListing(t *testing.T) {
	snapshot := twoServices()
	s := &model.Service{
		ServiceKey: model.ServiceKey{Namespace: "default", Name: "service1"}, Affinity: 10800, ExternalLocal: true,
		ClusterIPs:      []netip.Addr{netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("fd96::1")},
		LoadBalancerIPs: []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8:113::1")},
		SourceRanges:    []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		Ports:           []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}},
	}
	snapshot.Services = snapshot.Services.With(s.ServiceKey, s)
	slice := sliceOf(1, 0, 2)
	slice.Name, slice.Family = "six", model.IPv6
	slice.Endpoints[0].Address, slice.Endpoints[1].Address = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	snapshot.Slices = snapshot.Slices.With(slice.SliceKey, slice)
	cidr := &model.ServiceCIDR{Name: "a", Prefixes: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/16"), netip.MustParsePrefix("fd96::/64")}}
	snapshot.ServiceCIDRs = snapshot.ServiceCIDRs.With("a", cidr)
	node := plan.Compute(nil, snapshot, "node0")
	testLoading(t, node)
	list := listed(t, "list", "table", "inet", TableName)
	for _, want := range []string{
		"172.16.0.0 . tcp . 80 : 0:3", "203.0.113.1 . tcp . 80 . 198.51.100.0/24",
		"0:3 : goto services4-1-of-3", "2:1 : goto service-reject",
		"typeof meta priority . numgen random mod 2 : ip daddr . th dport",
		"meta l4proto { tcp, udp, sctp } dnat ip to meta priority . numgen random mod 3 map @service-slots4\n",
		"ct original ip6 daddr . meta l4proto . ct original proto-dst map @service-sources6",
		"update @sticky-clients6 { @nh,96,96 . meta priority & ffff:f000 timeout 3h : meta priority }",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
}

// withoutServices leaves out what TestServiceListing and TestPolicyListing look
// at.
func withoutServices(list string) string {
	blocks := strings.Split(list, "\n\n")
	for i, block := range blocks {
		header, _, _ := strings.Cut(strings.TrimSpace(block), "{")
		if strings.Contains(header, "service") || strings.Contains(header, "sticky") || strings.Contains(header, "cluster-ips") || strings.Contains(header, "policy") ||
			strings.Contains(header, " dns") || strings.Contains(header, "raw-output") ||
			strings.Contains(block, "jump policy") && !strings.Contains(block, "jump hostport") {
			blocks[i] = ""
		}
	}
	blocks = slices.DeleteFunc(blocks, func(block string) bool { return block == "" })
	var lines []string
	for line := range strings.Lines(strings.Join(blocks, "\n\n")) {
		if !strings.Contains(line, "jump service") && !strings.Contains(line, "jump dns") && !strings.Contains(line, "jump policy") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
