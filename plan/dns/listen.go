package dns

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Listen is where a node's own DNS server is asked: at the ClusterIPs of the
// Service that pods send their queries to. It is immutable.
//
// Whether somebody listens there, the kernel sees at each query; who is nobody's
// takes the way of the Service, to a server elsewhere. Only a server that listens
// and does not answer has to be told of. So the addresses are there before there
// is a server, and after it; nothing has to be in time.
type Listen struct {
	// Addresses are the node's own. They are of the Service, and of all nodes.
	Addresses model.Map[netip.Addr, struct{}]
	// Ports are where a server is.
	Ports model.Map[Port, struct{}]
	// Queries are those of Ports at which queries are answered here, if somebody
	// listens; and Own those at which the node's own are: of these, the kernel
	// cannot see in time whether somebody does.
	Queries, Own model.Map[Port, struct{}]

	// Serve is where the server listens, sorted: at Ports, and at those of the
	// node's own addresses, where other nodes' queries come to if they have no
	// server. Clients are who may ask it, sorted: pods and nodes, which nobody
	// else is.
	Serve   []netip.AddrPort
	Clients []netip.Prefix

	// What it was made from.
	nodes   model.Map[string, *model.Node]
	service *model.Service
	servers [len(model.Families)]model.NameServer
}

// Port is a port at an address of the Service.
type Port struct {
	Protocol model.Protocol
	At       netip.AddrPort
}

func (p Port) String() string { return fmt.Sprintf("%s %s", p.Protocol, p.At) }

// QueryPort is where resolvers ask (RFC 1035, section 4.2); other ports of the
// Service, such as that of metrics, are as those of any.
const QueryPort = 53

// ComputeListen plans where queries are answered on a node. prev is the last plan
// or nil; it is returned if nothing changed, or as long as it is not known how the
// cluster's names are served, and where the node's own object has gone. A cluster
// without the Service has an empty plan.
func ComputeListen(prev *Listen, snapshot *model.Snapshot, name string) *Listen {
	if _, ok := snapshot.Nodes.Get(name); snapshot.Network == nil || !ok && prev != nil {
		return prev
	}
	service, _ := snapshot.Services.Get(snapshot.Network.DNS.Service)
	next := &Listen{nodes: snapshot.Nodes, service: service, servers: snapshot.NameServers}
	if prev != nil && prev.same(next) {
		return prev
	}
	if service == nil {
		return next
	}
	for _, addr := range service.ClusterIPs {
		for _, port := range service.Ports {
			if port.Port == QueryPort && (port.Protocol == model.UDP || port.Protocol == model.TCP) {
				next.add(Port{port.Protocol, netip.AddrPortFrom(addr, port.Port)})
			}
		}
	}
	next.admit(name)
	return next
}

// same tells whether two plans are made from the same.
func (l *Listen) same(other *Listen) bool {
	if l.servers != other.servers || l.service != other.service && (l.service == nil || other.service == nil || !l.service.Equal(other.service)) {
		return false
	}
	for change := range model.Diff(l.nodes, other.nodes) {
		if !change.Had || !change.Has ||
			!slices.Equal(change.Old.Addresses, change.New.Addresses) || !slices.Equal(change.Old.PodCIDRs, change.New.PodCIDRs) {
			return false
		}
	}
	return true
}

func (l *Listen) add(at Port) {
	l.Addresses = l.Addresses.With(at.At.Addr(), struct{}{})
	l.Ports = l.Ports.With(at, struct{}{})
	server := l.servers[model.FamilyOf(at.At.Addr())]
	if server != model.NameServerHung {
		l.Queries = l.Queries.With(at, struct{}{})
	}
	if server == model.NameServerWell {
		l.Own = l.Own.With(at, struct{}{})
	}
}

// admit says where the server listens, and to whom.
func (l *Listen) admit(name string) {
	own, _ := l.nodes.Get(name)
	for addr := range l.Addresses.All() {
		l.Serve = append(l.Serve, netip.AddrPortFrom(addr, QueryPort))
		l.Clients = append(l.Clients, model.HostPrefix(addr)) // the agent
		if own == nil {
			continue
		}
		if local := own.Address(model.FamilyOf(addr)); local.IsValid() {
			l.Serve = append(l.Serve, netip.AddrPortFrom(local, QueryPort))
		}
	}
	for _, node := range l.nodes.All() {
		for _, addr := range node.Addresses {
			l.Clients = append(l.Clients, model.HostPrefix(addr))
		}
		for _, prefix := range node.PodCIDRs {
			l.Clients = append(l.Clients, prefix.Masked())
		}
	}
	slices.SortFunc(l.Serve, netip.AddrPort.Compare)
	slices.SortFunc(l.Clients, netip.Prefix.Compare)
	l.Clients = slices.Compact(l.Clients)
}
