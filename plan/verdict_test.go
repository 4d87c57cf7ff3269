package plan_test

import (
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// TestVerdictOfNodePorts: the pod 10.244.0.5, fd00::5 of node a has port 53 of
// UDP, everywhere, and 80 of TCP at 192.0.2.1.
func TestVerdictOfNodePorts(t *testing.T) {
	addr, to := netip.MustParseAddr, netip.MustParseAddrPort
	node := plan.Compute(nil, threeNodes(), "a")
	dns, web, dns6 := to("10.244.0.5:5353"), to("10.244.0.5:8080"), to("[fd00::5]:5353")
	tests := []struct {
		name, source, destination string
		protocol                  model.Protocol
		port                      uint16
		want                      plan.Hop
	}{
		{"from outside", "203.0.113.1", "192.0.2.1", model.UDP, 53, plan.Hop{Reachable: true, Device: "fl1", Pod: dns}},
		{"from outside, IPv6", "2001:db8:ffff::1", "2001:db8::1", model.UDP, 53, plan.Hop{Reachable: true, Device: "fl1", Pod: dns6}},
		{"at one address", "203.0.113.1", "192.0.2.1", model.TCP, 80, plan.Hop{Reachable: true, Device: "fl1", Pod: web}},
		{"not at another address", "203.0.113.1", "192.0.2.77", model.TCP, 80, plan.Hop{Reachable: true}},
		{"not by another protocol", "203.0.113.1", "192.0.2.1", model.SCTP, 80, plan.Hop{Reachable: true}},
		{"from another pod", "10.244.0.6", "192.0.2.1", model.UDP, 53, plan.Hop{Reachable: true, Device: "fl1", Pod: dns}},
		{"from the pod itself", "10.244.0.5", "192.0.2.1", model.UDP, 53, plan.Hop{Reachable: true, Device: "fl1", Pod: dns, Masquerade: true, As: addr("192.0.2.1")}},
		{"from 127.0.0.1", "127.0.0.1", "127.0.0.1", model.UDP, 53, plan.Hop{Reachable: true, Device: "fl1", Pod: dns, Masquerade: true, As: addr("192.0.2.1")}},
		{"from ::1", "::1", "::1", model.UDP, 53, plan.Hop{Reachable: true}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := plan.Verdict(node, plan.Packet{
				Source: addr(test.source), Destination: addr(test.destination), Local: true,
				Protocol: test.protocol, Port: test.port,
			})
			if got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestVerdictOfSpoofed(t *testing.T) {
	addr := netip.MustParseAddr
	node := plan.Compute(nil, threeNodes(), "a")
	honest := plan.Packet{Device: "fl1", MAC: model.MAC{2, 0, 0, 0, 0, 5}, Source: addr("10.244.0.5"), Destination: addr("10.244.1.9")}
	if hop := plan.Verdict(node, honest); hop.Spoofed || !hop.Reachable {
		t.Errorf("an honest packet: %+v", hop)
	}
	for name, lie := range map[string]func(*plan.Packet){
		"address":         func(p *plan.Packet) { p.Source = addr("10.244.0.6") },
		"MAC":             func(p *plan.Packet) { p.MAC[5] = 6 },
		"device":          func(p *plan.Packet) { p.Device = "fl2" },
		"other family":    func(p *plan.Packet) { p.Source = addr("fd00::6") },
		"to the loopback": func(p *plan.Packet) { p.Destination = addr("127.0.0.1") },
	} {
		packet := honest
		lie(&packet)
		if hop := plan.Verdict(node, packet); hop != (plan.Hop{Spoofed: true}) {
			t.Errorf("%s: %+v", name, hop)
		}
	}
}
