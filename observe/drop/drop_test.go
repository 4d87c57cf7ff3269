package drop

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/policy"
	"github.com/fairlead-net/fairlead/plan/service"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// scene is a node with a client, and a server that one policy denies all and
// another allows port 80.
func scene(t *testing.T) Scene {
	t.Helper()
	s := &model.Snapshot{PoliciesKnown: true, Network: model.DefaultNetwork()}
	s.Nodes = s.Nodes.With("node1", &model.Node{Name: "node1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}})
	s.Namespaces = s.Namespaces.With("shop", &model.Namespace{Name: "shop"})
	for name, addr := range map[string]string{"client": "10.244.0.2", "server": "10.244.0.3"} {
		pod := &model.Pod{
			PodKey: model.PodKey{Namespace: "shop", Name: name}, UID: model.UIDOf("uid of " + name), Node: "node1",
			Addresses: []netip.Addr{netip.MustParseAddr(addr)}, Labels: model.LabelsOf(map[string]string{"app": name}),
		}
		s.Pods = s.Pods.With(pod.PodKey, pod)
		key := model.AttachmentKey{ContainerID: name, Interface: "eth0"}
		s.Attachments = s.Attachments.With(key, &model.Attachment{AttachmentKey: key, Pod: pod.PodKey, UID: pod.UID, Addresses: pod.Addresses, Device: "veth-" + name})
	}
	for _, name := range []string{"allow-web", "deny-all"} {
		p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "shop", Name: name}, Isolates: [2]bool{model.Ingress: true}}
		if name == "allow-web" {
			p.Rules[model.Ingress] = []model.PolicyRule{{Anyone: true, Ports: []model.PolicyPort{{Protocol: model.TCP, From: 80, To: 80}}}}
		}
		s.Policies = s.Policies.With(p.PolicyKey, p)
	}
	return Scene{"node1", plan.Compute(nil, s, "node1")}
}

func packet(protocol model.Protocol, from, to string) Packet {
	source, destination := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	return Packet{source.Addr(), destination.Addr(), protocol, source.Port(), destination.Port(), nil}
}

// TestJudge: a record names the pods, the Service, the rule, and the one that
// comes nearest to allowing it.
func TestJudge(t *testing.T) {
	s := scene(t)
	vip := netip.MustParseAddrPort("10.96.0.7:90")
	s.Plan.Service = &service.Plan{}
	s.Plan.Service.Frontends = s.Plan.Service.Frontends.With(service.VIP{Protocol: model.TCP, At: vip},
		&service.Frontend{Port: service.Port{Service: model.ServiceKey{Namespace: "shop", Name: "front"}}})
	by := s.Plan.Policy.Decide(policy.Subject{Direction: model.Ingress, Address: netip.MustParseAddr("10.244.0.3")}, netip.MustParseAddr("10.244.0.2"), model.TCP, 8080).By
	d := Denied{Packet: packet(model.TCP, "10.244.0.2:4000", "10.244.0.3:8080"), Time: noon, Called: vip, By: &by}
	r := s.Judge(d)
	want := "default deny by NetworkPolicy shop/allow-web, direction ingress; nearest allow: NetworkPolicy shop/allow-web, spec.ingress[0], port differs"
	if r.Source.String() != "shop/client" || r.Destination.String() != "shop/server" || r.Destination.Labels["app"] != "server" ||
		r.Service != "shop/front" || r.Port() != "8080/TCP" || r.Why() != want {
		t.Errorf("%s to %s of %s at %s: %s", r.Source, r.Destination, r.Service, r.Port(), r.Why())
	}
	if subject, peer := r.Subject(), r.Peer(); subject.Pod != "server" || peer.Pod != "client" {
		t.Errorf("the policy is for %s, called by %s", subject, peer)
	}
	if !r.Is("shop", "client") || !r.Is("", "") || r.Is("shop", "other") || r.Is("other", "") {
		t.Error("the wrong pods are found")
	}

	query := Denied{Packet: packet(model.TCP, "10.244.0.2:4000", vip.String()), Time: noon, Direction: model.Egress, Called: vip, By: &by}
	if r := s.Judge(query); r.Service != "shop/front" || r.Called.IsValid() {
		t.Errorf("a query that is denied before it is translated, to %q at %s", r.Service, r.Called)
	}
	d.Called = netip.AddrPortFrom(d.Destination, d.DestinationPort)
	if r := s.Judge(d); r.Called.IsValid() {
		t.Errorf("what was called, %s, is no other", r.Called)
	}
	other := policy.Rule{Tier: model.AdminTier, Policy: model.PolicyKey{Name: "admin"}, Rule: 2}
	d.By = &other
	if got := s.Judge(d).Why(); got != "denied by ClusterNetworkPolicy admin, spec.ingress[2], direction ingress" {
		t.Errorf("a rule that the plan does not have any more: %s", got)
	}
	d.By = &policy.Rule{Rule: policy.Unknown}
	if got := s.Judge(d).Why(); got != "what the pod may do is not known yet, direction ingress" {
		t.Error(got)
	}
	d.By, d.Direction = nil, model.Egress
	r = Scene{Node: "node1"}.Judge(d)
	if got := r.Why(); got != "denied by a policy that has gone, direction egress" || r.Subject().Address != d.Source || r.Source.String() != "10.244.0.2" {
		t.Errorf("nothing is known: %s", got)
	}
}

// TestDecode: of the first bytes of a packet, what is there is read, and no byte
// makes it fail.
func TestDecode(t *testing.T) {
	four := func(protocol byte, offset uint16, payload ...byte) []byte {
		h := make([]byte, 20)
		h[0], h[9] = 0x45, protocol
		binary.BigEndian.PutUint16(h[6:], offset)
		copy(h[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
		return append(h, payload...)
	}
	six := func(next byte, payload ...byte) []byte {
		h := make([]byte, 40)
		h[0], h[6], h[23], h[39] = 0x60, next, 1, 2
		return append(h, payload...)
	}
	options := []byte{6, 0, 0, 0, 0, 0, 0, 0}
	for name, test := range map[string]struct {
		bytes []byte
		want  string
	}{
		"TCP":                 {four(6, 0, 0x10, 0, 0, 80), "10.0.0.1 10.0.0.2 TCP 4096 80 -"},
		"with options":        {append([]byte{0x46}, append(four(17, 0)[1:], 1, 1, 1, 1, 0, 53, 0, 54)...), "10.0.0.1 10.0.0.2 UDP 53 54 -"},
		"cut off":             {four(6, 0, 0x10), "10.0.0.1 10.0.0.2 TCP 0 0 -"},
		"a later fragment":    {four(6, 1, 0x10, 0, 0, 80), "10.0.0.1 10.0.0.2 TCP 0 0 -"},
		"a first fragment":    {four(6, 0x2000, 0x10, 0, 0, 80), "10.0.0.1 10.0.0.2 TCP 4096 80 -"},
		"ping":                {four(1, 0, 8, 3, 0, 80), "10.0.0.1 10.0.0.2 ICMP 0 0 {8 3}"},
		"another protocol":    {four(47, 0, 8, 3, 0, 80), "10.0.0.1 10.0.0.2 47 0 0 -"},
		"TCP over IPv6":       {six(6, 0, 1, 0, 2), "::1 ::2 TCP 1 2 -"},
		"behind options":      {six(0, append(slices.Clone(options), 0, 1, 0, 2)...), "::1 ::2 TCP 1 2 -"},
		"options cut off":     {six(60, 6, 9, 0, 0, 0, 0, 0, 0), "::1 ::2 60 0 0 -"},
		"fragment of IPv6":    {six(44, 17, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0, 2), "::1 ::2 UDP 0 0 -"},
		"the first of IPv6":   {six(44, 17, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2), "::1 ::2 UDP 1 2 -"},
		"ping over IPv6":      {six(58, 128, 0, 0, 0), "::1 ::2 ICMPv6 0 0 {128 0}"},
		"nothing":             {nil, "none"},
		"ARP":                 {[]byte{0, 1, 8, 0}, "none"},
		"a short header":      {[]byte{0x45, 0, 0}, "none"},
		"a length of 0":       {append([]byte{0x40}, make([]byte, 30)...), "none"},
		"a short IPv6 header": {[]byte{0x60, 0, 0}, "none"},
	} {
		p, ok := Decode(test.bytes)
		got := "none"
		if ok {
			got = fmt.Sprintf("%s %s %s %d %d -", p.Source, p.Destination, protocolName(p.Protocol), p.SourcePort, p.DestinationPort)
			if p.ICMP != nil {
				got = strings.TrimSuffix(got, "-") + fmt.Sprint(*p.ICMP)
			}
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		for length := range test.bytes {
			Decode(test.bytes[:length])
		}
	}
}

// TestCommunityID: connections have the names that the specification gives them,
// those of answers too.
func TestCommunityID(t *testing.T) {
	icmp := func(protocol model.Protocol, from, to string, kind, code uint8) Packet {
		return Packet{netip.MustParseAddr(from), netip.MustParseAddr(to), protocol, 0, 0, &ICMP{kind, code}}
	}
	for want, packets := range map[string][]Packet{
		"1:LQU9qZlK+B5F3KDmev6m5PMibrg=": {packet(model.TCP, "128.232.110.120:34855", "66.35.250.204:80"), packet(model.TCP, "66.35.250.204:80", "128.232.110.120:34855")},
		"1:d/FP5EW3wiY1vCndhwleRRKHowQ=": {packet(model.UDP, "192.168.1.52:54585", "8.8.8.8:53"), packet(model.UDP, "8.8.8.8:53", "192.168.1.52:54585")},
		"1:jQgCxbku+pNGw8WPbEc/TS/uTpQ=": {packet(model.SCTP, "192.168.170.8:7", "192.168.170.56:80")},
		"1:X0snYXpgwiv9TZtqg64sgzUn6Dk=": {icmp(icmp4, "192.168.0.89", "192.168.0.1", 8, 0), icmp(icmp4, "192.168.0.1", "192.168.0.89", 0, 0)},
		"1:dGHyGvjMfljg6Bppwm3bg0LO8TY=": {icmp(icmp6, "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 135, 0)},
	} {
		for _, p := range packets {
			if got := p.CommunityID(); got != want {
				t.Errorf("%+v is %s, want %s", p, got, want)
			}
		}
	}
}

// TestECS: a line has the fields of the schema.
func TestECS(t *testing.T) {
	by := policy.Rule{Tier: model.NamespaceTier, Policy: model.PolicyKey{Namespace: "shop", Name: "allow-web"}, Rule: policy.Isolated}
	r := scene(t).Judge(Denied{
		Packet: packet(model.TCP, "10.244.0.2:4000", "10.244.0.3:8080"), Time: noon, Called: netip.MustParseAddrPort("10.96.0.7:90"), By: &by,
	})
	line, err := ECS(r, "prod")
	if err != nil || strings.Count(string(line), "\n") != 1 {
		t.Fatalf("%v %s", err, line)
	}
	var object map[string]any
	if err := json.Unmarshal(line, &object); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	flatten(got, "", object)
	want := map[string]string{
		"@timestamp": "2026-05-04T12:00:00Z", "ecs.version": ecsVersion,
		"event.kind": "event", "event.category": "[network]", "event.type": "[connection denied]", "event.action": "dropped", "event.outcome": "success",
		"event.dataset": "fairlead.drops", "event.module": "fairlead", "event.reason": r.Why(),
		"message":   "shop/client to shop/server 8080/TCP dropped: " + r.Why(),
		"rule.name": "default deny", "rule.ruleset": "NetworkPolicy shop/allow-web", "rule.category": "NetworkPolicy",
		"source.address": "10.244.0.2", "source.ip": "10.244.0.2", "source.port": "4000",
		"destination.address": "10.96.0.7", "destination.ip": "10.96.0.7", "destination.port": "90", "destination.nat.ip": "10.244.0.3", "destination.nat.port": "8080",
		"network.type": "ipv4", "network.transport": "tcp", "network.iana_number": "6", "network.direction": "ingress",
		"network.community_id": packet(model.TCP, "10.244.0.3:8080", "10.244.0.2:4000").CommunityID(),
		"host.name":            "node1", "observer.vendor": "Fairlead", "observer.product": "Fairlead", "observer.type": "firewall",
		"orchestrator.type": "kubernetes", "orchestrator.cluster.name": "prod", "orchestrator.namespace": "shop",
		"orchestrator.resource.type": "pod", "orchestrator.resource.name": "server", "orchestrator.resource.id": model.UIDOf("uid of server").String(),
		"orchestrator.resource.ip": "[10.244.0.3]", "orchestrator.resource.label": "[app:server]",
		"labels.source_namespace": "shop", "labels.source_pod": "client", "labels.source_labels": "app=client",
		"labels.destination_namespace": "shop", "labels.destination_pod": "server", "labels.destination_labels": "app=server",
		"labels.nearest_allow": "NetworkPolicy shop/allow-web, spec.ingress[0], port differs",
	}
	if !maps.Equal(got, want) {
		for _, key := range slices.Sorted(maps.Keys(want)) {
			if got[key] != want[key] {
				t.Errorf("%s is %q, want %q", key, got[key], want[key])
			}
			delete(got, key)
		}
		t.Errorf("besides %v", got)
	}
}

func flatten(to map[string]string, name string, value any) {
	if object, ok := value.(map[string]any); ok {
		for key, value := range object {
			flatten(to, strings.TrimPrefix(name+"."+key, "."), value)
		}
		return
	}
	to[name] = fmt.Sprint(value)
}

// TestRing: the latest are kept, in an order that a clock does not upset, and who
// waits hears of more.
func TestRing(t *testing.T) {
	ring := &Ring{Size: 3}
	_, more := ring.Since(time.Time{})
	for i := range 10 {
		ring.Add(&Record{Node: fmt.Sprint(i), Time: noon.Add(-time.Duration(i) * time.Second)})
	}
	select {
	case <-more:
	default:
		t.Error("nobody hears of more")
	}
	records, more := ring.Since(time.Time{})
	if len(records) != 3 || records[0].Node != "7" || records[2].Node != "9" {
		t.Fatalf("kept are %+v", records)
	}
	select {
	case <-more:
		t.Error("there are no more")
	default:
	}
	if later, _ := ring.Since(records[1].Time); len(later) != 1 || later[0].Node != "9" {
		t.Errorf("later are %+v", later)
	}
}

// TestFile: a log takes so much space and no more, goes on after a restart, and
// after somebody has moved it away.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log", "drops.json")
	file := &File{Path: path, Limit: 20, Keep: 2}
	write := func(text string) {
		t.Helper()
		if err := file.Write([]byte(text + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	has := func(want ...string) {
		t.Helper()
		for i, want := range want {
			name := path
			if i > 0 {
				name = fmt.Sprintf("%s.%d", path, i)
			}
			if got, err := os.ReadFile(name); strings.ReplaceAll(string(got), "\n", " ") != want {
				t.Errorf("%s has %q, %v; want %q", filepath.Base(name), got, err, want)
			}
		}
		if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) > 3 {
			t.Errorf("there are %v", entries)
		}
	}
	for i := range 7 {
		write(fmt.Sprintf("line %d..", i))
	}
	has("line 6.. ", "line 4.. line 5.. ", "line 2.. line 3.. ")
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	file = &File{Path: path, Limit: 20, Keep: 2}
	write("again")
	has("line 6.. again ")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil { // as logrotate does
		t.Fatal(err)
	}
	write("anew")
	has("anew ", "line 6.. again ")
}
