package service

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// Reason says of one endpoint of a port whether new connections through this
// node go to it, and why, in words for people.
type Reason struct {
	Target  netip.AddrPort
	Node    string // empty: unknown, or outside of the cluster
	Cluster bool   // it is in the pool of the cluster
	Local   bool   // it is in the pool of this node
	Why     string
}

// Why says it of all endpoints of a port, sorted; nil if there is no such port.
func (p *Plan) Why(of Port) (reasons []Reason) {
	s, ok := p.services.Get(of.Service)
	if !ok {
		return nil
	}
	at := slices.IndexFunc(s.Ports, func(port model.ServicePort) bool { return port.Name == of.Name })
	if at < 0 {
		return nil
	}
	group, _ := p.groups.Get(of.Service)
	all := group.collect(p.slices, &s.Ports[at], of.Family)
	cluster, local := p.place.cluster(all), p.place.local(all)
	near := p.place.near(all)
	for _, c := range all {
		reasons = append(reasons, Reason{
			Target: c.at, Node: c.Node, Why: p.place.why(c, near, cluster),
			Cluster: slices.Contains(cluster, c.at), Local: slices.Contains(local, c.at),
		})
	}
	return reasons
}

func (p *place) why(c candidate, near nearness, cluster []netip.AddrPort) string {
	chosen := slices.Contains(cluster, c.at)
	switch {
	case c.leaving() && chosen:
		return "it leaves and still serves, and none is ready"
	case c.leaving() && !c.Ready:
		return "it leaves, while others are ready"
	case c.Terminating && !c.Ready:
		return "it leaves, and serves no more"
	case !c.Ready:
		return "it is not ready"
	case near == sameNode && chosen:
		return "it is ready, and meant for this node"
	case near == sameNode:
		return fmt.Sprintf("it is ready, and meant for other nodes (%s)", strings.Join(c.Hints.Nodes, ", "))
	case near == sameZone && chosen:
		return fmt.Sprintf("it is ready, and meant for zone %s", p.zone)
	case near == sameZone:
		return fmt.Sprintf("it is ready, and meant for other zones than %s (%s)", p.zone, strings.Join(c.Hints.Zones, ", "))
	}
	return "it is ready"
}
