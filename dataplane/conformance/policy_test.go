package conformance_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/hostport"
	"github.com/fairlead-net/fairlead/plan/masquerade"
	"github.com/fairlead-net/fairlead/plan/policy"
	"github.com/fairlead-net/fairlead/plan/service"
)

// policyNode is a node with pods of which each has two addresses.
type policyNode struct {
	*wires
	pods  map[string][]netip.Addr
	own   []netip.Addr
	plane *nftables.Plane
	plan  *plan.Node
}

func newPolicyNode(t testing.TB, pods int) *policyNode {
	n := &policyNode{
		pods:  map[string][]netip.Addr{},
		own:   []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		plane: nftables.New(),
	}
	for number := 1; number <= pods; number++ {
		n.pods[fmt.Sprint("pod", number)] = []netip.Addr{addressOf(1, number, model.IPv4), addressOf(1, number, model.IPv6)}
	}
	n.wires = newWires(t, n.pods, n.own...)
	n.plan = &plan.Node{
		Name: "self", Masquerade: &masquerade.Plan{}, HostPort: &hostport.Plan{}, Service: &service.Plan{},
		AntiSpoof: n.sources(n.pods),
	}
	return n
}

// addressOf is an address of a pod of a node.
func addressOf(node, pod int, family model.Family) netip.Addr {
	if family == model.IPv4 {
		return netip.AddrFrom4([4]byte{10, 244, byte(node), byte(pod)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:%d::%d", node, pod))
}

func (n *policyNode) apply(p *policy.Plan) {
	n.t.Helper()
	next := *n.plan
	next.Policy = p
	n.plan = &next
	n.node.Do(func() {
		problems, err := n.plane.Apply(n.t.Context(), n.plan)
		n.check(err)
		if len(problems) != 0 {
			n.t.Errorf("problems %v", problems)
		}
	})
}

// allowed is what the plan says of a packet: at the end of each pod of this node.
func (n *policyNode) allowed(p wired) bool {
	protocol, port := p.protocol, p.port
	if protocol == icmp || protocol == icmp6 {
		port = 0
	}
	decide := func(direction model.Direction, pod, peer netip.Addr) bool {
		return n.plan.Policy.Decide(policy.Subject{Direction: direction, Address: pod}, peer, protocol, port).Accept
	}
	if p.device != wiresUplink && !decide(model.Egress, p.source, p.destination) {
		return false
	}
	for _, addrs := range n.pods {
		for _, addr := range addrs {
			if addr == p.destination && !decide(model.Ingress, addr, p.source) {
				return false
			}
		}
	}
	return true
}

// policyWorld makes random plans.
type policyWorld struct{ *rand.Rand }

// TestRandomPolicies sends packets of all kinds while random plans follow each
// other, and what comes out is what the plan says.
func TestRandomPolicies(t *testing.T) {
	n := newPolicyNode(t, 3)
	plans, packets := 200, 150
	if testing.Short() {
		plans = 20
	}
	w := policyWorld{rand.New(rand.NewPCG(1, 11))}
	p := &policy.Plan{}
	for step := range plans {
		p = w.plan(n, p)
		if w.IntN(20) == 0 {
			n.plane = nftables.New()
		}
		n.apply(p)
		var some []wired
		for range packets {
			some = append(some, w.packet(n))
		}
		n.expect(fmt.Sprintf("plan %d", step), some, n.allowed)
	}
}

// peers are addresses elsewhere.
func (w policyWorld) peers(family model.Family) (all []netip.Addr) {
	for number := range 4 {
		all = append(all, addressOf(2, number, family), netip.MustParseAddr(fmt.Sprintf([...]string{"198.51.100.%d", "2001:db8:51::%d"}[family], 16*number)))
	}
	return all
}

func (w policyWorld) packet(n *policyNode) wired {
	family := model.Families[w.IntN(2)]
	p := wired{
		protocol: []model.Protocol{model.TCP, model.UDP, model.SCTP, [...]model.Protocol{icmp, icmp6}[family]}[w.IntN(4)],
		port:     w.port(), device: wiresUplink,
	}
	if w.IntN(4) == 0 {
		p.tos = 0x10
	}
	pod := func() string { return fmt.Sprint("pod", 1+w.IntN(len(n.pods))) }
	others := w.peers(family)
	other := others[w.IntN(len(others))]
	switch w.IntN(4) {
	case 0:
		p.source, p.destination = other, n.pods[pod()][family]
	case 1:
		p.device = pod()
		p.source, p.destination = n.pods[p.device][family], other
	case 2:
		p.device = pod()
		p.source, p.destination = n.pods[p.device][family], n.pods[pod()][family]
	default:
		p.device = pod()
		p.source, p.destination = n.pods[p.device][family], n.own[family]
	}
	return p
}

func (w policyWorld) port() uint16 {
	if w.IntN(8) == 0 {
		return 65535
	}
	return uint16(1 + w.IntN(20))
}

// between is a plan of what one pod may send and another receive.
func (w policyWorld) between(one, two netip.Addr, egress, ingress bool) *policy.Plan {
	p := &policy.Plan{}
	for subject, allowed := range map[policy.Subject]bool{
		{Direction: model.Egress, Address: one}: egress, {Direction: model.Ingress, Address: two}: ingress,
	} {
		ports := &policy.Ports{Default: policy.Decision{Accept: allowed}}
		if !allowed {
			ports.Default.By.Policy.Name = "one"
		}
		p.Rows = p.Rows.With(ports.Row(), ports)
		p.Cells = p.Cells.With(policy.Cell{Subject: subject}, ports.Row())
	}
	return p
}

// plan is a random one, or another one with some changes.
func (w policyWorld) plan(n *policyNode, from *policy.Plan) *policy.Plan {
	p := *from
	if w.IntN(4) == 0 {
		p = policy.Plan{}
	}
	group := func() policy.Group { return policy.Group(fmt.Sprint("group", w.IntN(4))) }
	for _, family := range model.Families {
		addrs := w.peers(family)
		for _, pod := range n.pods {
			addrs = append(addrs, pod[family])
		}
		for _, addr := range addrs {
			switch w.IntN(5) {
			case 0:
				p.Pods = p.Pods.With(addr, group())
			case 1:
				p.Pods = p.Pods.Without(addr)
			}
		}
		if w.IntN(2) == 0 {
			w.cut(&p, netip.MustParsePrefix([...]string{"198.51.100.0/26", "2001:db8:51::/122"}[family]), group)
		}
	}
	for _, pod := range n.pods {
		for _, addr := range pod {
			for _, direction := range model.Directions {
				w.cells(&p, policy.Subject{Direction: direction, Address: addr})
			}
		}
	}
	rows := model.Map[policy.Row, *policy.Ports]{}
	for _, row := range p.Cells.All() {
		ports, _ := p.Rows.Get(row)
		rows = rows.With(row, ports)
	}
	p.Rows = rows
	return &p
}

// cut puts new ranges in the place of those within a prefix.
func (w policyWorld) cut(p *policy.Plan, prefix netip.Prefix, group func() policy.Group) {
	for old := range p.Ranges.All() {
		if old.Overlaps(prefix) {
			p.Ranges = p.Ranges.Without(old)
		}
	}
	switch w.IntN(4) {
	case 0:
		p.Ranges = p.Ranges.With(prefix, group())
	case 1, 2:
		if prefix.Bits() < prefix.Addr().BitLen() {
			low := prefix.Addr().AsSlice()
			low[prefix.Bits()/8] |= 0x80 >> (prefix.Bits() % 8)
			w.cut(p, netip.PrefixFrom(prefix.Addr(), prefix.Bits()+1), group)
			w.cut(p, netip.PrefixFrom(addrOf(low), prefix.Bits()+1), group)
		}
	}
}

func (w policyWorld) cells(p *policy.Plan, subject policy.Subject) {
	groups := []policy.Group{policy.Itself, "group0", "group1", "group2", "group3"}
	say := func(group policy.Group) {
		ports := w.ports()
		p.Rows = p.Rows.With(ports.Row(), ports)
		p.Cells = p.Cells.With(policy.Cell{Subject: subject, Group: group}, ports.Row())
	}
	switch w.IntN(5) {
	case 0:
		for _, group := range append(groups, policy.Others) {
			p.Cells = p.Cells.Without(policy.Cell{Subject: subject, Group: group})
		}
	case 1, 2:
		say(policy.Others)
		for _, group := range groups {
			switch w.IntN(3) {
			case 0:
				say(group)
			case 1:
				p.Cells = p.Cells.Without(policy.Cell{Subject: subject, Group: group})
			}
		}
	}
}

func (w policyWorld) ports() *policy.Ports {
	decisions := []policy.Decision{{Accept: true}, {Accept: true}}
	for _, name := range []string{"a", "b"} {
		decisions = append(decisions, policy.Decision{By: policy.Rule{Policy: model.PolicyKey{Name: name}, Rule: w.IntN(3)}})
	}
	p := &policy.Ports{Default: decisions[w.IntN(4)]}
	for _, protocol := range []model.Protocol{icmp, model.TCP, model.UDP, icmp6, model.SCTP} {
		next := w.IntN(3)
		for range w.IntN(4) {
			last := next + w.IntN(2)*w.IntN(10)
			if w.IntN(6) == 0 || protocol == icmp || protocol == icmp6 {
				next, last = min(next, last)*boolean(protocol != icmp && protocol != icmp6), 65535
			}
			if d := decisions[w.IntN(4)]; d != p.Default {
				p.Ranges = append(p.Ranges, policy.PortRange{Protocol: protocol, From: uint16(next), To: uint16(last), Decision: d})
			}
			if next = last + 1 + w.IntN(3); next > 65535 {
				break
			}
		}
	}
	return p
}

func boolean(is bool) int {
	if is {
		return 1
	}
	return 0
}
