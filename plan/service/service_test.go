package service

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

// cluster is a snapshot in the making, seen from node a in zone z1.
type cluster struct{ model.Snapshot }

func newCluster() *cluster {
	c := &cluster{}
	c.Nodes = c.Nodes.With("a", &model.Node{
		Name: "a", Zone: "z1", Addresses: []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")},
	})
	return c
}

var web = model.ServiceKey{Namespace: "default", Name: "web"}

// service is one at 10.96.0.1:80 and fd96::1, with node port 30080.
func service() *model.Service {
	return &model.Service{
		ServiceKey: web, ClusterIPs: []netip.Addr{addr("10.96.0.1"), addr("fd96::1")},
		Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80, NodePort: 30080}},
	}
}

func (c *cluster) serve(s *model.Service) { c.Services = c.Services.With(s.ServiceKey, s) }

// slice makes one of the endpoints of web.
func (c *cluster) slice(name string, port uint16, endpoints ...model.Endpoint) {
	slice := &model.EndpointSlice{
		SliceKey: model.SliceKey{Namespace: web.Namespace, Name: name}, Service: web.Name,
		Ports:     []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: port}, {Name: "dns", Protocol: model.UDP, Port: 53}},
		Endpoints: endpoints,
	}
	if len(endpoints) > 0 {
		slice.Family = model.FamilyOf(endpoints[0].Address)
	}
	c.Slices = c.Slices.With(slice.SliceKey, slice)
}

// endpoint is one by words: an address, a node, and conditions, of which ready
// and serving are the default.
func endpoint(at, node string, words ...string) model.Endpoint {
	e := model.Endpoint{Address: addr(at), Node: node, Ready: true, Serving: true}
	for _, word := range words {
		switch {
		case word == "unready":
			e.Ready, e.Serving = false, false
		case word == "terminating": // and still serving
			e.Ready, e.Terminating = false, true
		case word == "published": // terminating, and ready as publishNotReadyAddresses has it
			e.Serving, e.Terminating = false, true
		case word == "dead": // terminating, and not serving any more
			e.Ready, e.Serving, e.Terminating = false, false, true
		case strings.HasPrefix(word, "zone="):
			e.Hints = &model.Hints{Zones: strings.Split(word[5:], ",")}
		case strings.HasPrefix(word, "node="):
			e.Hints = &model.Hints{Zones: []string{"z1"}, Nodes: strings.Split(word[5:], ",")}
		}
	}
	return e
}

// text is all that a plan says, sorted.
func text(p *Plan) string {
	var lines []string
	for vip, f := range p.Frontends.All() {
		lines = append(lines, fmt.Sprintf("%s %s %s inside %s outside %s masquerade %s sticky %d from %v",
			vip, f.Kind, f.Port, p.answer(f, f.Inside), p.answer(f, f.Outside), f.Masquerade, f.Sticky, f.Ranges))
	}
	for pool, b := range p.Backends.All() {
		lines = append(lines, fmt.Sprintf("pool %s %v sticky %d", pool, b.Targets, b.Sticky))
	}
	for port, s := range p.Serving.All() {
		lines = append(lines, fmt.Sprintf("serving %s %v", port, s.Targets))
	}
	for ip := range p.ClusterIPs.All() {
		lines = append(lines, fmt.Sprintf("cluster IP %s", ip))
	}
	for cidr := range p.CIDRs.All() {
		lines = append(lines, fmt.Sprintf("CIDR %s", cidr))
	}
	for pod := range p.Hairpins.All() {
		lines = append(lines, fmt.Sprintf("hairpin %s", pod))
	}
	for port, check := range p.HealthChecks.All() {
		lines = append(lines, fmt.Sprintf("health check %d %s %v", port, check.Service, check.Local))
	}
	for addr := range p.HealthAddresses.All() {
		lines = append(lines, fmt.Sprintf("health checks at %s", addr))
	}
	for _, problem := range p.problems {
		lines = append(lines, "problem "+problem.String())
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// answer is one with its targets.
func (p *Plan) answer(f *Frontend, a Answer) string {
	if a.Do != Forward {
		return a.String()
	}
	b, ok := p.Backends.Get(f.Pool(a))
	if !ok || len(b.Targets) != a.Count {
		return fmt.Sprintf("%s, of a pool with %v", a, b)
	}
	return fmt.Sprint(b.Targets)
}

// answers are what a VIP answers to those inside and those outside.
func (c *cluster) answers(t *testing.T, protocol model.Protocol, at string) [2]string {
	t.Helper()
	p, problems := Compute(nil, &c.Snapshot, "a")
	if len(problems) > 0 {
		t.Fatalf("problems %v", problems)
	}
	f, ok := p.Frontends.Get(VIP{protocol, netip.MustParseAddrPort(at)})
	if !ok {
		t.Fatalf("no frontend at %s in\n%s", at, text(p))
	}
	return [2]string{p.answer(f, f.Inside), p.answer(f, f.Outside)}
}

// TestChoosing: which endpoints a ClusterIP and a node port have, by the
// conditions and hints of all, and the policies of the Service.
func TestChoosing(t *testing.T) {
	const none, drop = "reject", "drop"
	tests := []struct {
		name            string
		local           string // policies that are Local: internal, external, both
		endpoints       []model.Endpoint
		inner           string // of the ClusterIP, to everyone
		inside, outside string // of the node port
	}{
		{"ready ones", "", []model.Endpoint{endpoint("10.0.0.2", "b"), endpoint("10.0.0.1", "a"), endpoint("10.0.0.3", "b", "unready")},
			"[10.0.0.1:8080 10.0.0.2:8080]", "[10.0.0.1:8080 10.0.0.2:8080]", "[10.0.0.1:8080 10.0.0.2:8080]"},
		{"none at all", "", nil, none, none, none},
		{"none that is usable", "both", []model.Endpoint{endpoint("10.0.0.1", "a", "unready"), endpoint("10.0.0.2", "a", "dead")}, none, none, none},
		{"leaving ones if none is ready", "", []model.Endpoint{endpoint("10.0.0.1", "a", "terminating"), endpoint("10.0.0.2", "b", "dead")},
			"[10.0.0.1:8080]", "[10.0.0.1:8080]", "[10.0.0.1:8080]"},
		{"not the leaving ones if one is ready", "", []model.Endpoint{endpoint("10.0.0.1", "a", "terminating"), endpoint("10.0.0.2", "b")},
			"[10.0.0.2:8080]", "[10.0.0.2:8080]", "[10.0.0.2:8080]"},
		{"external Local, inside goes anywhere", "external", []model.Endpoint{endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "b")},
			"[10.0.0.1:8080 10.0.0.2:8080]", "[10.0.0.1:8080 10.0.0.2:8080]", "[10.0.0.1:8080]"},
		{"external Local, none here", "external", []model.Endpoint{endpoint("10.0.0.2", "b")}, "[10.0.0.2:8080]", "[10.0.0.2:8080]", drop},
		{"external Local, a leaving one here though others are ready (kubernetes#85643)", "external", []model.Endpoint{endpoint("10.0.0.1", "a", "terminating"), endpoint("10.0.0.2", "b")},
			"[10.0.0.2:8080]", "[10.0.0.2:8080]", "[10.0.0.1:8080]"},
		{"internal Local", "internal", []model.Endpoint{endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "b")},
			"[10.0.0.1:8080]", "[10.0.0.1:8080 10.0.0.2:8080]", "[10.0.0.1:8080 10.0.0.2:8080]"},
		{"internal Local, none here", "internal", []model.Endpoint{endpoint("10.0.0.2", "b")}, drop, "[10.0.0.2:8080]", "[10.0.0.2:8080]"},
		{"zone hints", "external", []model.Endpoint{endpoint("10.0.0.1", "a", "zone=z2"), endpoint("10.0.0.2", "b", "zone=z1"), endpoint("10.0.0.3", "b", "zone=z1,z2")},
			"[10.0.0.2:8080 10.0.0.3:8080]", "[10.0.0.2:8080 10.0.0.3:8080]", "[10.0.0.1:8080]"},
		{"one without hints", "", []model.Endpoint{endpoint("10.0.0.1", "a", "zone=z2"), endpoint("10.0.0.2", "b", "zone=z1"), endpoint("10.0.0.3", "b")},
			"[10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080]", "[10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080]", "[10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080]"},
		{"an unready one without hints does not matter", "", []model.Endpoint{endpoint("10.0.0.1", "a", "zone=z2"), endpoint("10.0.0.2", "b", "zone=z1"), endpoint("10.0.0.3", "b", "unready")},
			"[10.0.0.2:8080]", "[10.0.0.2:8080]", "[10.0.0.2:8080]"},
		{"hints for other zones only", "", []model.Endpoint{endpoint("10.0.0.1", "a", "zone=z2"), endpoint("10.0.0.2", "b", "zone=z3")},
			"[10.0.0.1:8080 10.0.0.2:8080]", "[10.0.0.1:8080 10.0.0.2:8080]", "[10.0.0.1:8080 10.0.0.2:8080]"},
		{"node hints before zone hints", "", []model.Endpoint{endpoint("10.0.0.1", "b", "node=b"), endpoint("10.0.0.2", "a", "node=a")},
			"[10.0.0.2:8080]", "[10.0.0.2:8080]", "[10.0.0.2:8080]"},
		{"node hints for others: the zone", "", []model.Endpoint{endpoint("10.0.0.1", "b", "node=b"), endpoint("10.0.0.2", "c", "node=c")},
			"[10.0.0.1:8080 10.0.0.2:8080]", "[10.0.0.1:8080 10.0.0.2:8080]", "[10.0.0.1:8080 10.0.0.2:8080]"},
		{"published though they are not ready, and leave", "external", []model.Endpoint{endpoint("10.0.0.1", "a", "published"), endpoint("10.0.0.2", "b", "published")},
			"[10.0.0.1:8080 10.0.0.2:8080]", "[10.0.0.1:8080 10.0.0.2:8080]", "[10.0.0.1:8080]"},
		{"a dead one is not served (kubernetes#109414)", "", []model.Endpoint{endpoint("10.0.0.1", "a", "dead"), endpoint("10.0.0.2", "b")},
			"[10.0.0.2:8080]", "[10.0.0.2:8080]", "[10.0.0.2:8080]"},
		{"its address is another pod's by now (kubernetes#109414)", "", []model.Endpoint{endpoint("10.0.0.1", "a", "dead"), endpoint("10.0.0.1", "b")},
			"[10.0.0.1:8080]", "[10.0.0.1:8080]", "[10.0.0.1:8080]"},
		{"all in the zone leave, others are ready", "", []model.Endpoint{endpoint("10.0.0.1", "a", "terminating", "zone=z1"), endpoint("10.0.0.2", "b", "zone=z2")},
			"[10.0.0.2:8080]", "[10.0.0.2:8080]", "[10.0.0.2:8080]"},
		{"an address of two pods is the one's that stays (kubernetes#135266)", "", []model.Endpoint{endpoint("10.0.0.1", "a", "terminating"), endpoint("10.0.0.1", "a")},
			"[10.0.0.1:8080]", "[10.0.0.1:8080]", "[10.0.0.1:8080]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, s := newCluster(), service()
			s.InternalLocal = test.local == "internal" || test.local == "both"
			s.ExternalLocal = test.local == "external" || test.local == "both"
			c.serve(s)
			c.slice("1", 8080, test.endpoints...)
			if got, want := c.answers(t, model.TCP, "10.96.0.1:80"), [2]string{test.inner, test.inner}; got != want {
				t.Errorf("the ClusterIP answers %q, want %q", got, want)
			}
			if got, want := c.answers(t, model.TCP, "192.0.2.1:30080"), [2]string{test.inside, test.outside}; got != want {
				t.Errorf("the node port answers %q, want %q", got, want)
			}
			if got := c.answers(t, model.TCP, "[fd96::1]:80"); got != [2]string{none, none} {
				t.Errorf("the IPv6 address answers %q, and has no endpoints", got)
			}
		})
	}
}

// TestNamedPorts: a named targetPort differs from pod to pod, so that slices of
// one Service have different numbers for one port; TCP and UDP share one.
func TestNamedPorts(t *testing.T) {
	c, s := newCluster(), service()
	s.Ports = append(s.Ports, model.ServicePort{Name: "dns", Protocol: model.UDP, Port: 80})
	c.serve(s)
	c.slice("1", 8080, endpoint("10.0.0.1", "a"))
	c.slice("2", 9090, endpoint("10.0.0.2", "a"))
	c.slice("3", 0, endpoint("10.0.0.3", "a")) // no number: ignored
	if got := c.answers(t, model.TCP, "10.96.0.1:80")[0]; got != "[10.0.0.1:8080 10.0.0.2:9090]" {
		t.Errorf("TCP answers %s", got)
	}
	if got := c.answers(t, model.UDP, "10.96.0.1:80")[0]; got != "[10.0.0.1:53 10.0.0.2:53 10.0.0.3:53]" {
		t.Errorf("UDP answers %s", got)
	}
}

// TestAddresses: who is asked and who is masqueraded at each kind of address.
func TestAddresses(t *testing.T) {
	c, s := newCluster(), service()
	s.ExternalIPs = []netip.Addr{addr("198.51.100.1")}
	s.LoadBalancerIPs = []netip.Addr{addr("198.51.100.2"), addr("2001:db8:2::2")}
	s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("203.0.113.0/24")}
	s.ExternalLocal = true
	s.Affinity = 600
	c.serve(s)
	c.slice("1", 8080, endpoint("10.0.0.1", "b"))
	p, _ := Compute(nil, &c.Snapshot, "a")
	const want = `TCP 10.96.0.1:80 ClusterIP default/web:http IPv4 inside [10.0.0.1:8080] outside [10.0.0.1:8080] masquerade outside sticky 600 from []
TCP 192.0.2.1:30080 NodePort default/web:http IPv4 inside [10.0.0.1:8080] outside drop masquerade node sticky 600 from []
TCP 198.51.100.1:80 ExternalIP default/web:http IPv4 inside [10.0.0.1:8080] outside drop masquerade node sticky 600 from []
TCP 198.51.100.2:80 LoadBalancer default/web:http IPv4 inside [10.0.0.1:8080] outside drop masquerade node sticky 600 from [192.0.2.0/24 198.51.100.2/32 203.0.113.0/24]
TCP [2001:db8:2::2]:80 LoadBalancer default/web:http IPv6 inside reject outside reject masquerade node sticky 600 from []
TCP [2001:db8::1]:30080 NodePort default/web:http IPv6 inside reject outside reject masquerade node sticky 600 from []
TCP [fd96::1]:80 ClusterIP default/web:http IPv6 inside reject outside reject masquerade outside sticky 600 from []
cluster IP 10.96.0.1
cluster IP fd96::1
health checks at 0.0.0.0
health checks at ::
pool default/web:http IPv4 [10.0.0.1:8080] sticky 600`
	if got := text(p); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestSourceRangesOpen: a range of all restricts nobody.
func TestSourceRangesOpen(t *testing.T) {
	c, s := newCluster(), service()
	s.LoadBalancerIPs = []netip.Addr{addr("198.51.100.2")}
	s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("0.0.0.0/0")}
	c.serve(s)
	p, _ := Compute(nil, &c.Snapshot, "a")
	f, _ := p.Frontends.Get(VIP{model.TCP, netip.MustParseAddrPort("198.51.100.2:80")})
	if f.Ranges != nil {
		t.Errorf("ranges are %v", f.Ranges)
	}
}

// TestContest: of two Services that claim an address, the older one has it, and
// a ClusterIP goes before all; the other one gets it as soon as it is free.
func TestContest(t *testing.T) {
	c := newCluster()
	older, newer, thief := service(), service(), service()
	newer.Name, newer.Created, newer.ClusterIPs = "a", 10, []netip.Addr{addr("10.96.0.2")}
	thief.Name, thief.Created, thief.ClusterIPs = "b", -10, []netip.Addr{addr("10.96.0.3")}
	older.Ports[0].NodePort, newer.Ports[0].NodePort, thief.Ports[0].NodePort = 0, 0, 0
	older.ExternalIPs, newer.ExternalIPs = []netip.Addr{addr("198.51.100.1")}, []netip.Addr{addr("198.51.100.1")}
	thief.ExternalIPs = []netip.Addr{addr("10.96.0.1")}
	var p *Plan
	owner := func(at string) string {
		f, ok := p.Frontends.Get(VIP{model.TCP, netip.MustParseAddrPort(at)})
		if !ok {
			return "nobody"
		}
		return f.Port.Service.Name
	}
	var problems []model.Problem
	compute := func() { p, problems = Compute(p, &c.Snapshot, "a") }
	for _, s := range []*model.Service{newer, thief, older} {
		c.serve(s)
		compute()
	}
	if owner("198.51.100.1:80") != "web" || owner("10.96.0.1:80") != "web" {
		t.Errorf("the owners are %s and %s", owner("198.51.100.1:80"), owner("10.96.0.1:80"))
	}
	if len(problems) != 2 || problems[0].Name != "a" || problems[1].Name != "b" || problems[0].Reason != "AddressTaken" {
		t.Errorf("problems %v", problems)
	}
	c.Services = c.Services.Without(web)
	compute()
	if owner("198.51.100.1:80") != "a" || owner("10.96.0.1:80") != "b" || len(problems) != 0 {
		t.Errorf("then the owners are %s and %s, problems %v", owner("198.51.100.1:80"), owner("10.96.0.1:80"), problems)
	}
}

// TestReservedAddresses: by no external address does a Service take what the network
// stands on, the port of tunnels and the API servers; for as long as they are that.
func TestReservedAddresses(t *testing.T) {
	c := newCluster()
	thief := service()
	thief.Ports = []model.ServicePort{{Name: "vxlan", Protocol: model.UDP, Port: 4789}, {Name: "api", Protocol: model.TCP, Port: 6443}}
	thief.ExternalIPs = []netip.Addr{addr("192.0.2.7")}
	c.serve(thief)
	network := model.DefaultNetwork()
	c.Network = network
	c.slice("unrelated", 6443, endpoint("192.0.2.7", "b"))
	kubernetes := &model.EndpointSlice{
		SliceKey: model.SliceKey{Namespace: "default", Name: "kubernetes"}, Service: "kubernetes",
		Ports: []model.EndpointPort{{Name: "https", Protocol: model.TCP, Port: 6443}}, Endpoints: []model.Endpoint{endpoint("192.0.2.7", "")},
	}
	var p *Plan
	expect := func(when string, udp, tcp bool) {
		t.Helper()
		var problems []model.Problem
		p, problems = Compute(p, &c.Snapshot, "a")
		at := netip.MustParseAddr("192.0.2.7")
		_, hasUDP := p.Frontends.Get(VIP{model.UDP, netip.AddrPortFrom(at, 4789)})
		_, hasTCP := p.Frontends.Get(VIP{model.TCP, netip.AddrPortFrom(at, 6443)})
		wanted := 0
		for _, has := range []bool{udp, tcp} {
			if !has {
				wanted++
			}
		}
		if hasUDP != udp || hasTCP != tcp || len(problems) != wanted || wanted > 0 && problems[0].Reason != "AddressReserved" {
			t.Errorf("%s it has UDP: %t, TCP: %t; %v", when, hasUDP, hasTCP, problems)
		}
		if _, ok := p.Frontends.Get(VIP{model.UDP, netip.MustParseAddrPort("10.96.0.1:4789")}); !ok {
			t.Errorf("%s its ClusterIP leads nowhere", when)
		}
	}
	expect("without an API server", false, true)
	c.Slices = c.Slices.With(kubernetes.SliceKey, kubernetes)
	expect("with an API server", false, false)
	other := *network
	other.VXLANPort = 4790
	c.Network = &other
	expect("with another port of tunnels", true, false)
	c.Slices = c.Slices.Without(kubernetes.SliceKey)
	expect("when the API server is elsewhere", true, true)
}

// TestNodeUnknown: without its own object, a node keeps what it has.
func TestNodeUnknown(t *testing.T) {
	c := newCluster()
	c.serve(service())
	before, _ := Compute(nil, &c.Snapshot, "a")
	c.Nodes = c.Nodes.Without("a")
	if after, _ := Compute(before, &c.Snapshot, "a"); after != before {
		t.Error("the plan changed as the node's object went")
	}
	if fresh, _ := Compute(nil, &c.Snapshot, "a"); fresh != nil {
		t.Error("a node that was never known has a plan")
	}
}

// TestAgainstScratch walks through random clusters: a plan that was made from
// the last one is that which is made from nothing.
func TestAgainstScratch(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 5))
		c := newCluster()
		var p *Plan
		for step := range 200 {
			for range 1 + random.IntN(3) {
				c.mutate(random)
			}
			next, _ := Compute(p, &c.Snapshot, "a")
			fresh, _ := Compute(nil, &c.Snapshot, "a")
			if got, want := text(next), text(fresh); got != want {
				t.Fatalf("seed %d step %d: got\n%s\nwant\n%s", seed, step, got, want)
			}
			if p != nil {
				keeps(t, p, next)
			}
			p = next
		}
	}
}

// keeps fails if something equal was made anew: data planes would look at it.
func keeps(t *testing.T, old, next *Plan) {
	t.Helper()
	for change := range model.Diff(old.Frontends, next.Frontends) {
		if change.Had && change.Has && change.Old.Equal(change.New) {
			t.Fatalf("%s was made anew", change.Key)
		}
	}
	for change := range model.Diff(old.HealthChecks, next.HealthChecks) {
		if change.Had && change.Has && *change.Old == *change.New {
			t.Fatalf("health check %d was made anew", change.Key)
		}
	}
	for change := range model.Diff(old.Backends, next.Backends) {
		if change.Had && change.Has && change.Old.Equal(change.New) {
			t.Fatalf("%s was made anew", change.Key)
		}
	}
}

func (c *cluster) mutate(random *rand.Rand) {
	pick := func(n int) int { return random.IntN(n) }
	key := model.ServiceKey{Namespace: "default", Name: fmt.Sprint("s", pick(4))}
	switch pick(10) {
	case 0:
		c.Services = c.Services.Without(key)
	case 1, 2, 3:
		c.serve(randomService(random, key))
	case 4:
		c.Slices = c.Slices.Without(model.SliceKey{Namespace: "default", Name: fmt.Sprint("e", pick(6))})
	case 5, 6, 7, 8:
		slice := randomSlice(random, key.Name)
		c.Slices = c.Slices.With(slice.SliceKey, slice)
	case 9:
		switch pick(8) {
		case 6:
			network := *model.DefaultNetwork()
			network.VXLANPort = uint16([]int{53, 4789}[pick(2)])
			c.Former = &network.Routing
		case 7:
			slice := randomSlice(random, "kubernetes")
			slice.Name = "kubernetes"
			if c.Slices = c.Slices.Without(slice.SliceKey); pick(2) == 0 {
				slice.Ports = []model.EndpointPort{{Name: "https", Protocol: model.TCP, Port: 80}}
				slice.Endpoints = []model.Endpoint{endpoint([]string{"192.0.2.1", "192.0.2.11", "10.96.0.1"}[pick(3)], "")}
				c.Slices = c.Slices.With(slice.SliceKey, slice)
			}
		case 4:
			c.configure(func(s *model.Services) {
				s.NodePortAddresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("0.0.0.0/0")}[:pick(4)]
				s.LocalhostNodePorts, s.MasqueradeAll = pick(2) == 0, pick(2) == 0
			})
		case 5:
			c.Links = c.Links.Without(fmt.Sprint("eth", pick(2)))
		case 0:
			node := model.Node{Name: "a", Zone: fmt.Sprint("z", pick(3)), Addresses: []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")}[:pick(3)]}
			c.Nodes = c.Nodes.With("a", &node)
		case 1:
			name := fmt.Sprint(pick(2))
			c.ServiceCIDRs = c.ServiceCIDRs.With(name, &model.ServiceCIDR{
				Name: name, Prefixes: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.96.0.0/%d", 16+pick(3)))},
			})
		case 2:
			c.ServiceCIDRs = c.ServiceCIDRs.Without(fmt.Sprint(pick(2)))
		case 3:
			pod := model.AttachmentKey{ContainerID: fmt.Sprint(pick(2))}
			c.Attachments = c.Attachments.With(pod, &model.Attachment{AttachmentKey: pod, Addresses: []netip.Addr{addr(fmt.Sprintf("10.0.0.%d", pick(3)))}})
		}
	}
}

func randomService(random *rand.Rand, key model.ServiceKey) *model.Service {
	pick := func(n int) int { return random.IntN(n) }
	address := func() netip.Addr { return addr(fmt.Sprintf("10.96.0.%d", pick(6))) }
	s := &model.Service{
		ServiceKey: key, Created: int64(pick(3)), ClusterIPs: []netip.Addr{address(), addr(fmt.Sprintf("fd96::%d", pick(6)))},
		Affinity: uint32(pick(2)), InternalLocal: pick(2) == 0, ExternalLocal: pick(2) == 0,
		HealthCheckNodePort: uint16([]int{0, 32000, 32001}[pick(3)]),
	}
	if families := pick(3); families < 2 { // else both
		s.ClusterIPs = s.ClusterIPs[families : families+1]
	}
	for _, port := range []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}, {Name: "dns", Protocol: model.UDP, Port: 53}}[:1+pick(2)] {
		if pick(2) == 0 {
			port.NodePort = uint16(30000 + pick(3))
		}
		s.Ports = append(s.Ports, port)
	}
	if pick(3) == 0 {
		s.ExternalIPs = []netip.Addr{address(), addr("192.0.2.1")}[:1+pick(2)]
	}
	if pick(3) == 0 {
		s.LoadBalancerIPs = []netip.Addr{address(), addr("192.0.2.11")}[:1+pick(2)]
		s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("::/0")}[:pick(3)]
	}
	return s
}

func randomSlice(random *rand.Rand, service string) *model.EndpointSlice {
	pick := func(n int) int { return random.IntN(n) }
	slice := &model.EndpointSlice{
		SliceKey: model.SliceKey{Namespace: "default", Name: fmt.Sprint("e", pick(6))}, Service: service,
		Family: model.Families[pick(2)],
		Ports:  []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: uint16(8080 + pick(2))}, {Name: "dns", Protocol: model.UDP, Port: 53}}[:1+pick(2)],
	}
	for range pick(5) {
		at := fmt.Sprintf("10.0.0.%d", pick(6))
		if slice.Family == model.IPv6 {
			at = fmt.Sprintf("fd00::%d", pick(6))
		}
		words := []string{"", "", "", "unready", "terminating", "dead", "zone=z1", "zone=z2", "node=a"}
		slice.Endpoints = append(slice.Endpoints, endpoint(at, []string{"a", "b", ""}[pick(3)], words[pick(len(words))]))
	}
	return slice
}
