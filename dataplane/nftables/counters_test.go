package nftables

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

// TestCounters: each rule that counts has a name of its own, and counts. The
// names are labels of a metric, which people have written into their dashboards.
func TestCounters(t *testing.T) {
	netnstest.Enter(t)
	plane := New()
	var counted dataplane.Counted = plane
	if counters, err := counted.Counters(); err != nil || len(counters) != 0 {
		t.Fatalf("without a table: %v, %v", counters, err)
	}
	apply(t, plane, example())
	counters, err := counted.Counters()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Service without endpoints here, or not its client", "Service without endpoints, or not its port",
		"Service, with the address of the node",
		"another address or MAC than the pod's", "from 127.0.0.1 to pods",
		"from pods of this node to the outside", "no pod's packet looks like one of a tunnel",
		"pods that reach themselves", "to the node's loopback interface",
	}
	met := func(rule string) (found dataplane.Counter) {
		for _, counter := range counters {
			if counter.Rule == rule {
				found = counter
			}
		}
		return found
	}
	for _, rule := range want {
		if met(rule) != (dataplane.Counter{Rule: rule}) {
			t.Errorf("counter %+v, want that of %q", met(rule), rule)
		}
	}
	for _, counter := range counters {
		if counter.Rule == "" {
			t.Errorf("a rule that counts has no name: %+v", counter)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "pod"
	pod := netlink.NewVeth(attrs)
	pod.PeerName = "wire"
	addr, err := netlink.ParseAddr("10.244.1.2/32")
	for _, err := range []error{
		err, netlink.LinkAdd(pod), netlink.AddrAdd(pod, addr), netlink.LinkSetUp(pod),
		netlink.RouteAdd(&netlink.Route{LinkIndex: pod.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(198, 51, 100, 0), Mask: net.CIDRMask(24, 32)}}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 244, 1, 2)}, &net.UDPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(make([]byte, 72)); err != nil {
		t.Fatal(err)
	}
	counters, err = counted.Counters()
	if out := met("from pods of this node to the outside"); err != nil || out.Packets != 1 || out.Bytes != 100 {
		t.Errorf("after a packet of 100 bytes to the outside: %+v, %v", out, err)
	}
}
