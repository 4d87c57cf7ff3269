package hop_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/trace"
)

var update = flag.Bool("update", false, "write testdata anew")

// TestWays follows packets through three nodes that are as planned.
func TestWays(t *testing.T) {
	w := newWorld(t, model.DefaultNetwork())
	var all strings.Builder
	for _, family := range model.Families {
		outside := map[model.Family]string{model.IPv4: "203.0.113.10", model.IPv6: "2001:db8:203:113::10"}[family]
		nobody := map[model.Family]string{model.IPv4: "10.244.1.77", model.IPv6: "fd00:10:244:1::77"}[family]
		far := map[model.Family]string{model.IPv4: "10.244.3.77", model.IPv6: "fd00:10:244:3::77"}[family]
		for _, trip := range []trace.Trip{
			{From: w.pod("a", family), To: w.pod("b", family)},
			{From: w.pod("a", family), To: w.pod("c", family)},
			{From: w.pod("c", family), To: w.pod("a", family)},
			{From: w.pod("a", family), To: w.node("node1", family)},
			{From: w.pod("a", family), To: w.node("node3", family)},
			{From: w.pod("a", family), To: w.node("node2", family), Protocol: model.TCP, Port: 8080},
			{From: w.node("node1", family), To: w.pod("a", family)},
			{From: w.node("node1", family), To: w.pod("c", family)},
			{From: w.node("node1", family), To: w.node("node2", family)},
			{From: w.pod("a", family), To: trace.End{Name: outside, Address: netip.MustParseAddr(outside)}},
			{From: w.pod("a", family), To: trace.End{Name: nobody, Node: "node1", Address: netip.MustParseAddr(nobody), Pod: true}},
			{From: w.pod("a", family), To: trace.End{Name: far, Node: "node3", Address: netip.MustParseAddr(far), Pod: true}},
		} {
			all.WriteString(w.text(trip) + "\n")
		}
	}
	golden(t, "ways", all.String())
}

// TestBackends follows packets through the other tunnels.
func TestBackends(t *testing.T) {
	for _, backend := range []model.Backend{model.BackendIPIP} {
		t.Run(string(backend), func(t *testing.T) {
			network := model.DefaultNetwork()
			network.Backend = backend
			w := newWorld(t, network)
			golden(t, string(backend), w.text(trace.Trip{From: w.pod("a", model.IPv4), To: w.pod("c", model.IPv4)}))
		})
	}
}

// TestTunnelOfAnother: a node that reaches a network by a tunnel that is not of the
// cluster sends what is for it out, and nobody asks which node that leads to.
func TestTunnelOfAnother(t *testing.T) {
	w := newWorld(t, model.DefaultNetwork())
	w.in("router", `
		ip link add office type vxlan id 50 local 172.30.1.1 remote 172.30.1.11 dstport 8000
		ip addr add 192.168.50.1/30 dev office
		ip addr add 10.50.0.10/32 dev lo
		ip link set office up`)
	w.in("node1", `
		ip link add office type vxlan id 50 local 172.30.1.11 remote 172.30.1.1 dstport 8000
		ip addr add 192.168.50.2/30 dev office
		ip link set office up
		ip route add 10.50.0.0/16 via 192.168.50.1 dev office`)
	text := w.text(trace.Trip{From: w.pod("a", model.IPv4), To: trace.End{Name: "10.50.0.10", Address: netip.MustParseAddr("10.50.0.10")}})
	if !strings.Contains(text, "leaves the cluster") || strings.ContainsAny(text, "✗?!") {
		t.Errorf("of a packet that is answered, it is said:\n%s", text)
	}
}

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	// Whether the kernel has asked for a neighbour on a network depends on what
	// else it has sent there; the kernel's own device for ipip has no neighbours, and
	// the one for a program has.
	got = regexp.MustCompile(` lladdr 02:(00:00:00:0[01]:0\d|fa:ac:1e:02:0d)`).ReplaceAllString(got, "")
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("it is not as in %s (go test -update writes it anew):\n%s", path, got)
	}
}
