package conformance_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/conformance/policyworld"
	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/hostport"
	"github.com/fairlead-net/fairlead/plan/masquerade"
	"github.com/fairlead-net/fairlead/plan/policy"
	"github.com/fairlead-net/fairlead/plan/service"
)

var worldFile = flag.String("world", "", "send packets in the cluster of this file, as a test has written it, and not in random ones")

// worldNode is the node whose pods are judged in policyworld, on the kernel. All
// addresses that its pods may have are there, whether somebody has them or not.
type worldNode struct {
	*policyNode
	devices map[netip.Addr]string
}

func newWorldNode(t *testing.T) *worldNode {
	n := &worldNode{devices: map[netip.Addr]string{}}
	n.policyNode = &policyNode{
		pods: map[string][]netip.Addr{}, own: []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd01::1")},
		plane: nftables.New(),
	}
	for number := 1; number <= 7; number++ {
		device := fmt.Sprint("pod", number)
		n.pods[device] = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1, byte(number)}), netip.MustParseAddr(fmt.Sprint("fd00:1::", number))}
		for _, addr := range n.pods[device] {
			n.devices[addr] = device
		}
	}
	n.wires = newWires(t, n.pods, n.own...)
	n.plan = &plan.Node{
		Name: policyworld.Here, Masquerade: &masquerade.Plan{}, HostPort: &hostport.Plan{}, Service: &service.Plan{}, AntiSpoof: n.sources(n.pods),
	}
	return n
}

// enter makes the node that of a cluster.
func (n *worldNode) enter(s *model.Snapshot) {
	n.t.Helper()
	next := *n.plan
	next.Service, _ = service.Compute(nil, s, policyworld.Here)
	n.plan = &next
	planned, _ := policy.Compute(nil, s, policyworld.Here)
	n.apply(planned)
}

// Who answers for the Service of DNS, and where.
var answers = [...]netip.Addr{netip.MustParseAddr("203.0.113.53"), netip.MustParseAddr("2001:db8::53")}

const answersAt = 5300

// answered adds to a cluster who answers for its Service of DNS: somebody outside.
func answered(s *model.Snapshot) {
	for _, names := range s.Services.All() {
		for _, family := range model.Families {
			slice := &model.EndpointSlice{
				SliceKey: model.SliceKey{Namespace: names.Namespace, Name: "answers" + family.String()}, Service: names.Name, Family: family,
				Endpoints: []model.Endpoint{{Address: answers[family], Ready: true, Serving: true}},
			}
			for _, port := range names.Ports {
				slice.Ports = append(slice.Ports, model.EndpointPort{Name: port.Name, Protocol: port.Protocol, Port: answersAt})
			}
			s.Slices = s.Slices.With(slice.SliceKey, slice)
		}
	}
}

// packet is the first one of a connection; not ok if it is none that a wire could
// carry, or what becomes of it is not defined.
func (n *worldNode) packet(s *model.Snapshot, c policyworld.Connection) (p wired, arrives, ok bool) {
	p = wired{device: wiresUplink, source: c.Pod, destination: c.Peer, protocol: c.Protocol, port: c.Port}
	if c.Direction == model.Ingress {
		p.source, p.destination = c.Peer, c.Pod
	}
	if c.Protocol == icmp {
		p.protocol = [...]model.Protocol{icmp, icmp6}[model.FamilyOf(c.Pod)]
	}
	if device, local := n.devices[p.source]; local {
		p.device = device
	}
	if slices.Contains(n.own, p.source) {
		return p, false, false // the node's own come from no wire
	}
	asked := policyworld.Connection{Direction: model.Egress, Pod: p.source, Peer: p.destination, Protocol: p.protocol, Port: p.port}
	for _, names := range s.Services.All() {
		if names.Serves == nil && slices.Contains(names.ClusterIPs, p.destination) { // it is judged by who answers
			asked.Peer, asked.Port = answers[model.FamilyOf(p.destination)], answersAt
		}
	}
	out, defined := policyworld.Judge(s, asked)
	in, too := policyworld.Judge(s, policyworld.Connection{Direction: model.Ingress, Pod: p.destination, Peer: p.source, Protocol: p.protocol, Port: p.port})
	arrives = out.Allowed && in.Allowed
	for _, names := range s.Services.All() {
		has := func(port model.ServicePort) bool { return port.Protocol == p.protocol && port.Port == p.port }
		switch {
		case slices.Contains(names.ClusterIPs, p.source):
			return p, false, false
		case slices.Contains(names.ClusterIPs, p.destination) && !slices.ContainsFunc(names.Ports, has):
			return p, false, false // the Service refuses it, and the packet comes back with that
		}
	}
	return p, arrives, defined && too
}

// TestRandomWorldsOnTheKernel: in random clusters, what comes out of the kernel is
// what the API's documentation allows. One that fails is made small and written
// down, and is tried again with -world.
func TestRandomWorldsOnTheKernel(t *testing.T) {
	n := newWorldNode(t)
	if *worldFile != "" {
		n.replay()
		return
	}
	worlds := uint64(300)
	if testing.Short() {
		worlds = 30
	}
	came := map[bool]int{}
	for seed := range worlds {
		w := policyworld.New(seed)
		answered(&w.Snapshot)
		n.enter(&w.Snapshot)
		some, wants := n.packets(w, came)
		if wrong := n.differ(some, wants); wrong != nil {
			n.shrink(seed, w.Snapshot, wrong)
		}
	}
	t.Logf("%d packets arrive, %d do not", came[true], came[false])
}

func (n *worldNode) packets(w *policyworld.World, came map[bool]int) (some []wired, wants []bool) {
	for _, c := range w.Connections(60) {
		if p, arrives, ok := n.packet(&w.Snapshot, c); ok {
			some, wants = append(some, p), append(wants, arrives)
			came[arrives]++
		}
	}
	return some, wants
}

// differ sends packets and returns the first that does otherwise than it should;
// nil: none. Those that are not to come have the time that the others take, and a
// last look.
func (n *worldNode) differ(some []wired, wants []bool) *wired {
	numbers := make([]uint32, len(some))
	for i, p := range some {
		numbers[i] = n.send(p)
	}
	defer clear(n.arrived)
	missing := func() int {
		n.receive()
		return slices.IndexFunc(numbers, func(number uint32) bool { return wants[slices.Index(numbers, number)] && !n.arrived[number] })
	}
	for attempt := 0; missing() >= 0 && attempt < 30; attempt++ {
		n.wait(100)
	}
	if at := missing(); at >= 0 {
		return &some[at]
	}
	n.wait(5)
	n.receive()
	for i, number := range numbers {
		if n.arrived[number] && !wants[i] {
			return &some[i]
		}
	}
	return nil
}

// shrink leaves out of a cluster all without which the packet goes right, and
// fails.
func (n *worldNode) shrink(seed uint64, s model.Snapshot, wrong *wired) {
	n.t.Helper()
	fails := func(s *model.Snapshot) bool {
		n.enter(s)
		p, arrives, ok := n.packet(s, policyworld.Connection{Direction: model.Egress, Pod: wrong.source, Peer: wrong.destination, Protocol: wrong.protocol, Port: wrong.port})
		p.device = wrong.device
		return ok && n.differ([]wired{p}, []bool{arrives}) != nil
	}
	if !fails(&s) {
		n.t.Fatalf("seed %d: %s went wrong once, and then not", seed, wrong)
	}
	least := policyworld.Shrink(s, fails)
	_, arrives, _ := n.packet(least, policyworld.Connection{Direction: model.Egress, Pod: wrong.source, Peer: wrong.destination, Protocol: wrong.protocol, Port: wrong.port})
	var text strings.Builder
	if err := kube.WriteSnapshot(&text, least); err != nil {
		n.t.Error(err)
	}
	file, err := os.CreateTemp("", "fairlead-world-*.yaml")
	if err == nil {
		_, err = file.WriteString(text.String())
		n.check(file.Close())
	}
	n.check(err)
	n.t.Fatalf("seed %d: %s should arrive: %t\n%s\nreplay: go test ./dataplane/conformance -run %s -world %s\nplan:   fairlead plan --snapshot %[6]s --node %s\n%s",
		seed, wrong, arrives, policyworld.Text(least), n.t.Name(), file.Name(), policyworld.Here, text.String())
}

// replay sends random packets in the cluster of a file.
func (n *worldNode) replay() {
	file, err := os.Open(*worldFile)
	if err != nil {
		n.t.Fatal(err)
	}
	defer file.Close()
	s, err := kube.ReadSnapshot(file)
	if err != nil {
		n.t.Fatal(err)
	}
	n.enter(s)
	w := &policyworld.World{Rand: rand.New(rand.NewPCG(1, 6)), Snapshot: *s}
	for range 50 {
		some, wants := n.packets(w, map[bool]int{})
		if wrong := n.differ(some, wants); wrong != nil {
			n.t.Fatalf("%s goes wrong", wrong)
		}
	}
}
