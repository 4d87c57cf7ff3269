package dns

import (
	"fmt"
	"net/netip"

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

	// What it was made from.
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

// ComputeListen plans where queries are answered on this node. prev is the last
// plan or nil; it is returned if nothing changed, or as long as it is not known
// how the cluster's names are served. A cluster without the Service has an empty
// plan.
func ComputeListen(prev *Listen, snapshot *model.Snapshot) *Listen {
	if snapshot.Network == nil {
		return prev
	}
	service, _ := snapshot.Services.Get(snapshot.Network.DNS.Service)
	if prev != nil && prev.servers == snapshot.NameServers && (prev.service == service || prev.service != nil && service != nil && prev.service.Equal(service)) {
		return prev
	}
	next := &Listen{service: service, servers: snapshot.NameServers}
	if service == nil {
		return next
	}
	for _, addr := range service.ClusterIPs {
		for _, port := range service.Ports {
			if port.Port != QueryPort || port.Protocol != model.UDP && port.Protocol != model.TCP {
				continue
			}
			at := Port{port.Protocol, netip.AddrPortFrom(addr, port.Port)}
			next.Addresses = next.Addresses.With(addr, struct{}{})
			next.Ports = next.Ports.With(at, struct{}{})
			server := next.servers[model.FamilyOf(addr)]
			if server != model.NameServerHung {
				next.Queries = next.Queries.With(at, struct{}{})
			}
			if server == model.NameServerWell {
				next.Own = next.Own.With(at, struct{}{})
			}
		}
	}
	return next
}
