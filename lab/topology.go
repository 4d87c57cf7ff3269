package lab

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/fairlead-net/fairlead/lab/world"
)

// The address plan. None of it collides with what people use for pods and
// services, and what is outside has documentation addresses (RFC 5737, RFC
// 3849).
//
//	172.30.0.0/24    fd00:172:30::/64      control plane: .1 router, .10 API server
//	172.30.S.0/24    fd00:172:30:S::/64    segment S of nodes, from 1: .1 router, .10+N node N
//	203.0.113.0/24   2001:db8:203:113::/64 outside: .1 router, .10 internet
//	10.244.0.0/16    fd00:10:244::/56      pods
//	10.96.0.0/16     fd00:10:96::/112      services
const (
	podCIDR4     = "10.244.0.0/16"
	podCIDR6     = "fd00:10:244::/56"
	serviceCIDR4 = "10.96.0.0/16"
	serviceCIDR6 = "fd00:10:96::/112"
	dnsAddress4  = "10.96.0.10"
	dnsAddress6  = "fd00:10:96::a"
	apiPort      = 6443
)

// Machines of every lab beside its nodes.
const (
	Router   = "router"
	Control  = "control"
	Internet = "internet"
)

// Segments of every lab beside those of nodes, which are called a, b, …
const (
	controlSegment = "control"
	outsideSegment = "outside"
)

// Node is a node of the cluster.
type Node struct {
	Name    string
	Number  int // from 1
	Segment int // from 1
	Zone    string
}

// plan returns the nodes of a lab: neighbours share a segment, zones take turns.
func (c Config) plan() []Node {
	nodes := make([]Node, c.Nodes)
	for i := range nodes {
		nodes[i] = c.node(i+1, 1+i*c.Segments/c.Nodes)
	}
	return nodes
}

func (c Config) node(number, segment int) Node {
	node := Node{Name: fmt.Sprintf("node%d", number), Number: number, Segment: segment}
	if c.Zones > 0 {
		node.Zone = fmt.Sprintf("zone%d", 1+(number-1)%c.Zones)
	}
	return node
}

// segmentName is a, b, … z, then s27, s28 …
func segmentName(segment int) string {
	if segment <= 26 {
		return string(rune('a' + segment - 1))
	}
	return fmt.Sprintf("s%d", segment)
}

// inside returns host's addresses on a segment of the cluster; 0 is that of
// the control plane. IPv6 addresses look like the IPv4 ones: the numbers are
// written, not converted.
func (f Family) inside(segment, host int) []netip.Prefix {
	return f.pick(
		netip.MustParsePrefix(fmt.Sprintf("172.30.%d.%d/24", segment, host)),
		netip.MustParsePrefix(fmt.Sprintf("fd00:172:30:%d::%d/64", segment, host)))
}

func (f Family) outside(host int) []netip.Prefix {
	return f.pick(
		netip.MustParsePrefix(fmt.Sprintf("203.0.113.%d/24", host)),
		netip.MustParsePrefix(fmt.Sprintf("2001:db8:203:113::%d/64", host)))
}

// pick returns the prefixes of the cluster's families, the first family first.
func (f Family) pick(v4, v6 netip.Prefix) []netip.Prefix {
	switch f {
	case IPv4:
		return []netip.Prefix{v4}
	case IPv6:
		return []netip.Prefix{v6}
	default:
		return []netip.Prefix{v4, v6}
	}
}

func (f Family) pickText(v4, v6 string) []string {
	var texts []string
	if f.V4() {
		texts = append(texts, v4)
	}
	if f.V6() {
		texts = append(texts, v6)
	}
	return texts
}

func addresses(prefixes []netip.Prefix) []netip.Addr {
	addrs := make([]netip.Addr, len(prefixes))
	for i, prefix := range prefixes {
		addrs[i] = prefix.Addr()
	}
	return addrs
}

// Addresses returns the addresses of a machine, the first family first; none
// if the lab has no such machine.
func (l *Lab) Addresses(machine string) []netip.Addr {
	family := l.state.Config.Family
	switch machine {
	case Control:
		return addresses(family.inside(0, 10))
	case Internet:
		return addresses(family.outside(10))
	case Router:
		return addresses(family.outside(1))
	}
	for _, node := range l.state.Nodes {
		if node.Name == machine {
			return addresses(family.inside(node.Segment, 10+node.Number))
		}
	}
	return nil
}

func (l *Lab) segments() []world.Segment {
	segments := []world.Segment{{Name: controlSegment, MTU: 1500}, {Name: outsideSegment, MTU: 1500}}
	for s := range l.state.Config.Segments {
		mtu := l.state.Config.MTU
		segments = append(segments, world.Segment{Name: segmentName(s + 1), MTU: mtu[min(s, len(mtu)-1)]})
	}
	return segments
}

// router joins all segments. It knows no route to pods, like any router that
// nobody told of them.
func (l *Lab) router() world.Machine {
	family := l.state.Config.Family
	router := world.Machine{Name: Router, Forward: true, Ports: []world.Port{
		{Segment: controlSegment, Interface: "control", Addresses: family.inside(0, 1)},
		{Segment: outsideSegment, Interface: "outside", Addresses: family.outside(1)},
	}}
	for s := range l.state.Config.Segments {
		router.Ports = append(router.Ports, world.Port{
			Segment: segmentName(s + 1), Interface: segmentName(s + 1), Addresses: family.inside(s+1, 1),
		})
	}
	return router
}

// internet is a host outside of the cluster. It has routes to the machines of
// the lab and none to pods: only masqueraded pods get an answer from it.
func (l *Lab) internet() world.Machine {
	family := l.state.Config.Family
	internet := world.Machine{
		Name:  Internet,
		Ports: []world.Port{{Segment: outsideSegment, Interface: "eth0", Addresses: family.outside(10)}},
		Binds: []world.Bind{l.binaries()},
		Tmpfs: []string{"/run", "/tmp"},
	}
	for i, destination := range family.pick(netip.MustParsePrefix("172.30.0.0/16"), netip.MustParsePrefix("fd00:172:30::/48")) {
		internet.Routes = append(internet.Routes, world.Route{Destination: destination, Via: family.outside(1)[i].Addr()})
	}
	internet.Services = []world.Service{{
		Name: "http", Argv: []string{binDir + "/agnhost", "netexec", "--http-port=80", "--udp-port=80"},
	}}
	if l.state.Fairlead != "" { // else it is of a lab of before
		internet.Binds = append(internet.Binds, world.Bind{Source: filepath.Dir(l.state.Fairlead), Target: ownDir, ReadOnly: true})
		names := world.Service{Name: "dns", Argv: []string{ownDir + "/fairlead", "lab", "outside"}}
		for _, addr := range l.Addresses(Internet) {
			names.Argv = append(names.Argv, addr.String())
		}
		internet.Services = append(internet.Services, names)
	}
	return internet
}
