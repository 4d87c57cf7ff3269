package conformance_test

import (
	"errors"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/drop"
	"github.com/fairlead-net/fairlead/observe/nflog"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// TestDropsAreRead: what is denied is read from the kernel's log, of both
// families and of every protocol, with the rule and what was called; and one
// process reads it.
func TestDropsAreRead(t *testing.T) {
	n := newPolicyNode(t, 2)
	rule := policy.Rule{Tier: model.NamespaceTier, Policy: model.PolicyKey{Namespace: "web", Name: "deny-all"}, Rule: policy.Isolated}
	p := &policy.Plan{}
	ports := &policy.Ports{Default: policy.Decision{By: rule}}
	p.Rows = p.Rows.With(ports.Row(), ports)
	for _, addr := range n.pods["pod1"] {
		p.Cells = p.Cells.With(policy.Cell{Subject: policy.Subject{Direction: model.Ingress, Address: addr}}, ports.Row())
	}
	n.apply(p)
	var socket *nflog.Socket
	n.node.Do(func() {
		var err error
		socket, err = nflog.Open(nftables.DeniedLogGroup, 128)
		n.check(err)
		if _, err := nflog.Open(nftables.DeniedLogGroup, 128); !errors.Is(err, nflog.ErrTaken) {
			t.Errorf("a second reader is told %v", err)
		}
	})
	defer socket.Close()

	var packets []wired
	for _, family := range model.Families {
		for _, protocol := range []model.Protocol{model.TCP, model.UDP, model.SCTP, [...]model.Protocol{icmp, icmp6}[family]} {
			packets = append(packets, wired{
				device: "pod2", source: n.pods["pod2"][family], destination: n.pods["pod1"][family], protocol: protocol, port: 5432,
			})
		}
	}
	n.expect("all is denied", packets, func(wired) bool { return false })
	stop := time.AfterFunc(5*time.Second, func() { _ = socket.Close() })
	defer stop.Stop()
	scene := drop.Scene{Node: "node1", Plan: &plan.Node{Policy: p}}
	var read []nflog.Packet
	for len(read) < len(packets) {
		more, err := socket.Receive()
		if err != nil {
			t.Fatalf("after %d of %d packets: %v", len(read), len(packets), err)
		}
		read = append(read, more...)
	}
	for i, packet := range read {
		sent := packets[i]
		by, known := n.plane.DeniedBy(packet.Mark)
		decoded, ok := drop.Decode(packet.Payload)
		if !known || by != rule || !ok || packet.Prefix != "fairlead ingress" {
			t.Fatalf("of %s: %v %t %t %q", sent, by, known, ok, packet.Prefix)
		}
		// Kernels without NETFILTER_NETLINK_GLUE_CT do not tell.
		if packet.Original.IsValid() && packet.Original.Addr() != sent.destination {
			t.Errorf("%s was made to %s", sent, packet.Original)
		}
		r := scene.Judge(drop.Denied{Packet: decoded, Time: time.Now(), Called: packet.Original, By: &by})
		want := "5432/" + sent.protocol.String()
		if decoded.ICMP != nil {
			want = [...]string{"ICMP type 8", "ICMPv6 type 128"}[model.FamilyOf(sent.source)]
		}
		if r.Source.Address != sent.source || r.Destination.Address != sent.destination || r.Port() != want || r.Called.IsValid() {
			t.Errorf("%s is %+v", sent, r)
		}
	}
	if lost := socket.Lost(); lost != 0 {
		t.Errorf("%d are lost", lost)
	}
	n.flood(packets[0], 200)
	if _, err := socket.Receive(); err != nil {
		t.Error(err)
	}
	n.node.Do(func() {
		denials, err := n.plane.Denials()
		n.check(err)
		if len(denials) == 0 || denials[0].Packets < 200 {
			t.Errorf("of many, %+v are counted", denials)
		}
	})
}

// flood sends a packet often, and waits until the kernel has counted them.
func (n *policyNode) flood(p wired, times int) {
	for range times {
		n.send(p)
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); n.wait(10) {
		counted := uint64(0)
		n.node.Do(func() {
			denials, err := n.plane.Denials()
			n.check(err)
			for _, denial := range denials {
				counted += denial.Packets
			}
		})
		if counted >= uint64(times) {
			return
		}
	}
	n.t.Fatalf("fewer than %d packets were denied", times)
}
