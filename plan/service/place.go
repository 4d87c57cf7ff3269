package service

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// place is what a plan depends on of the node itself and of the configuration.
type place struct {
	node, zone string
	own        [len(model.Families)]netip.Addr // the first InternalIP of each family; invalid: none
	config     model.Services
	dns        model.ServiceKey                  // the Service of DNS
	ports      [len(model.Families)][]netip.Addr // where node ports are, sorted, but for 127.0.0.1
	tunnels    [6]uint16                         // UDP ports of the tunnels between nodes
	apiServers []netip.AddrPort                  // sorted
}

// newPlace finds the node's own addresses that have node ports: those in the
// networks that are configured for their family, or else the first InternalIP.
// An address of a load balancer that the node has, because somebody announces it
// so, is none of them, unless it is one of the Node's own: who may call is said of
// its Service, and would not be of all others (kubernetes#111863).
func newPlace(self *model.Node, here model.Map[netip.Addr, struct{}], balancers model.Map[netip.Addr, int], config model.Services) place {
	p := place{node: self.Name, zone: self.Zone, config: config}
	lent := func(addr netip.Addr) bool {
		_, balanced := balancers.Get(addr)
		return balanced && !slices.Contains(self.Addresses, addr) && !slices.Contains(self.External, addr)
	}
	for _, family := range model.Families {
		p.own[family] = self.Address(family)
		if within := p.networks(family); len(within) > 0 {
			p.ports[family] = slices.DeleteFunc(among(here, within), lent)
		} else if p.own[family].IsValid() {
			p.ports[family] = []netip.Addr{p.own[family]}
		}
	}
	return p
}

// reserves tells whether a VIP is none to have, but for a ClusterIP: what the network
// itself stands on. Who may make Services could lead the packets of tunnels, or agents
// that look for the API server, elsewhere on all nodes (CVE-2020-8554).
func (p *place) reserves(vip VIP, kind Kind) bool {
	switch {
	case kind == ClusterIP:
		return false
	case kind == ExternalIP && vip.Protocol == model.UDP && slices.Contains(p.tunnels[:], vip.At.Port()):
		return true
	}
	_, is := slices.BinarySearchFunc(p.apiServers, vip.At, netip.AddrPort.Compare)
	return is && vip.Protocol == model.TCP
}

// elsewhere leaves out the DNS server of this node itself, unless it is the only
// one. A query that goes the way of a Service is one that it did not take: it is
// down or hangs, and who makes EndpointSlices may not know that yet.
func (p *place) elsewhere(s model.ServiceKey, all []candidate) []candidate {
	here := func(c candidate) bool { return slices.Contains(p.own[:], c.at.Addr()) }
	if s != p.dns || !slices.ContainsFunc(all, here) {
		return all
	}
	if others := slices.DeleteFunc(slices.Clone(all), here); usable(others) {
		return others
	}
	return all
}

// networks are those of the configuration that are of a family.
func (p *place) networks(family model.Family) (all []netip.Prefix) {
	for _, prefix := range p.config.NodePortAddresses {
		if model.FamilyOf(prefix.Addr()) == family {
			all = append(all, prefix)
		}
	}
	return all
}

func among(here model.Map[netip.Addr, struct{}], networks []netip.Prefix) (found []netip.Addr) {
	for addr := range here.All() {
		contains := func(prefix netip.Prefix) bool { return prefix.Contains(addr) }
		if !addr.IsLoopback() && slices.ContainsFunc(networks, contains) {
			found = append(found, addr)
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return found
}

// equal tells whether what is of Services that are reached from outside is the same, such
// as the addresses of node ports, and whether all else is.
func (p *place) equal(other *place) (same, outside bool) {
	same = p.node == other.node && p.zone == other.zone && p.own == other.own && p.dns == other.dns && p.config.MasqueradeAll == other.config.MasqueradeAll
	outside = p.config.LocalhostNodePorts == other.config.LocalhostNodePorts && p.tunnels == other.tunnels && slices.Equal(p.apiServers, other.apiServers)
	for _, family := range model.Families {
		outside = outside && slices.Equal(p.ports[family], other.ports[family])
	}
	return same, outside
}

// localhost is the one address of the loopback interface that may have node
// ports. There is none of IPv6: the kernel lets no packet of ::1 leave that
// interface.
var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// nodePorts are all addresses of a family that have node ports.
func (p *place) nodePorts(family model.Family) []netip.Addr {
	if family == model.IPv4 && p.config.LocalhostNodePorts {
		return append(slices.Clip(p.ports[family]), localhost)
	}
	return p.ports[family]
}

// sysctls let packets of 127.0.0.1 leave by any interface, and their answers
// come back: an endpoint may be behind each. Data planes see to it that nobody
// else's come in (CVE-2020-8558).
func (p *place) sysctls() (settings model.Map[string, string]) {
	if p.config.LocalhostNodePorts {
		settings = settings.With("net/ipv4/conf/all/route_localnet", "1")
	}
	return settings
}

// noNodePorts says that node ports, so many, are nowhere.
func (p *place) noNodePorts(wanted int, family model.Family) model.Problem {
	problem := model.Problem{
		Kind: "Node", Name: p.node, Field: "status.addresses", Reason: "NoNodePortAddress",
		Message: fmt.Sprintf("%d node ports of Services are not reached over %s: the node has no such InternalIP", wanted, family),
		Remedy:  "give its kubelet --node-ip with an address of each family",
	}
	if within := p.networks(family); len(within) > 0 {
		problem.Message = fmt.Sprintf("%d node ports of Services are not reached over %s: no interface of the node that is up has an address in %s", wanted, family, within)
		problem.Remedy = "give the node an address in one of those networks, or correct spec.services.nodePortAddresses: kubectl edit networks.fairlead.io default"
	}
	return problem
}
