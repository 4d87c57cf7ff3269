package conformance_test

import (
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// Ports over UDP of which all plans of TestPoliciesUnderLoad say the same.
const (
	portAllowed = 80
	portDenied  = 81
)

// TestPoliciesUnderLoad changes policies as fast as it can, while packets begin
// connections as fast as they can. What is allowed before a change and after it
// arrives, and nothing of what is denied.
func TestPoliciesUnderLoad(t *testing.T) { changeUnderLoad(t, func(*policyNode) {}) }

// TestPoliciesReplacedUnderLoad does the same with tables that take the place of
// the one before as a whole, as that of an agent that starts does.
func TestPoliciesReplacedUnderLoad(t *testing.T) {
	changeUnderLoad(t, func(n *policyNode) { n.plane = nftables.New() })
}

// changeUnderLoad does something before each change.
func changeUnderLoad(t *testing.T, before func(*policyNode)) {
	n := newPolicyNode(t, 2)
	for _, fd := range n.receivers {
		n.check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20))
	}
	w := loadWorld{policyWorld{rand.New(rand.NewPCG(2, 11))}}
	p := w.plan(n, &policy.Plan{})
	n.apply(p)
	n.node.Do(func() { // where conntrack is a module, the rules have loaded it
		n.check(os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", []byte("1"), 0))
	})
	var stop, ended atomic.Bool
	sender := loadWorld{policyWorld{rand.New(rand.NewPCG(3, 11))}}
	done, first := make(chan struct{}), n.number+1
	var allowedAt []bool // by number
	go func() {
		defer close(done)
		for !stop.Load() {
			packet := sender.packet(n)
			n.send(packet)
			allowedAt = append(allowedAt, packet.port == portAllowed)
		}
	}()
	arrived := map[uint32]bool{}
	gather := make(chan struct{})
	go func() {
		defer close(gather)
		for !ended.Load() {
			n.wait(50)
			n.gather(arrived)
		}
	}()
	const enough = 60
	changes, start := 0, time.Now()
	for ; changes < enough || time.Since(start) < 3*time.Second; changes++ {
		p = w.plan(n, p)
		before(n)
		n.apply(p)
	}
	stop.Store(true)
	<-done
	time.Sleep(200 * time.Millisecond) // nobody tells that nothing comes any more
	ended.Store(true)
	<-gather
	n.gather(arrived)
	sent, lost, passed := map[bool]int{}, 0, 0
	for i, allowed := range allowedAt {
		sent[allowed]++
		switch came := arrived[first+uint32(i)]; {
		case allowed && !came:
			lost++
		case !allowed && came:
			passed++
		}
	}
	t.Logf("%d packets that are allowed and %d that are denied, %d changes", sent[true], sent[false], changes)
	if lost+passed > 0 {
		t.Errorf("%d packets that are allowed were lost, %d that are denied arrived", lost, passed)
	}
	if sent[true] < 1000 || sent[false] < 1000 {
		t.Error("that shows too little")
	}
}

// loadWorld makes plans that say the same of two ports.
type loadWorld struct{ policyWorld }

// plan has cells for the second pod in any case.
func (w loadWorld) plan(n *policyNode, from *policy.Plan) *policy.Plan {
	p := *w.policyWorld.plan(n, from)
	for _, addr := range n.pods["pod2"] {
		for _, direction := range model.Directions {
			cell := policy.Cell{Subject: policy.Subject{Direction: direction, Address: addr}}
			if _, there := p.Cells.Get(cell); !there {
				ports := w.ports()
				p.Rows = p.Rows.With(ports.Row(), ports)
				p.Cells = p.Cells.With(cell, ports.Row())
			}
		}
	}
	rows := p.Rows
	p.Rows = model.Map[policy.Row, *policy.Ports]{}
	for cell, row := range p.Cells.All() {
		ports, _ := rows.Get(row)
		same := sayingTheSame(ports)
		p.Rows = p.Rows.With(same.Row(), same)
		p.Cells = p.Cells.With(cell, same.Row())
	}
	return &p
}

// sayingTheSame is a row with the same default. Some have ranges, of which the
// kernel knows a moment later.
func sayingTheSame(ports *policy.Ports) *policy.Ports {
	wide := uint16(len(ports.Ranges) % 3)
	same := &policy.Ports{Default: ports.Default}
	if ports.Default.Accept {
		same.Ranges = []policy.PortRange{{Protocol: model.UDP, From: portDenied, To: portDenied + wide, Decision: policy.Decision{
			By: policy.Rule{Policy: model.PolicyKey{Name: "c"}},
		}}}
	} else {
		same.Ranges = []policy.PortRange{{Protocol: model.UDP, From: portAllowed - wide, To: portAllowed, Decision: policy.Decision{Accept: true}}}
	}
	return same
}

// packet is one that all plans allow, or one of the second pod that all deny.
func (w loadWorld) packet(n *policyNode) wired {
	for {
		p := w.policyWorld.packet(n)
		p.protocol, p.port = model.UDP, portAllowed
		if w.IntN(2) == 0 && (p.device == "pod2" || p.destination == n.pods["pod2"][model.FamilyOf(p.destination)]) {
			p.port = portDenied
		}
		if p.source != p.destination && p.destination != n.own[model.FamilyOf(p.source)] {
			return p
		}
	}
}
