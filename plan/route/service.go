package route

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// A packet of the node itself to a ClusterIP is translated after it was routed,
// and then routed again. A node without a default route would refuse it before.
// So there is a route to each range of ClusterIPs, and no packet ever takes it:
// what it says is that there is one, and the address that packets begin with.
// It does not ask whether there is a default route: that may come and go, and
// what the node has open to Services is not to follow it.

// clusterIPs are the ranges that ClusterIPs are taken from, sorted.
func clusterIPs(cidrs model.Map[string, *model.ServiceCIDR]) (all []netip.Prefix) {
	for _, cidr := range cidrs.All() {
		all = append(all, cidr.Prefixes...)
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// planClusterIPs adds the routes by the uplink, as there is no better interface:
// that of the family, with the node's address. A range that is on a link, or in
// a network that is, has a route; and one that somebody else has made stays.
func (p *Plan) planClusterIPs() {
	in := &p.input
	for _, prefix := range p.clusterIPs {
		family := model.FamilyOf(prefix.Addr())
		covered := slices.ContainsFunc(p.segments, func(segment netip.Prefix) bool {
			return segment.Bits() <= prefix.Bits() && segment.Overlaps(prefix)
		})
		if _, taken := p.Routes.Get(prefix); taken || covered || in.uplinks[family] == nil {
			continue
		}
		p.Routes = p.Routes.With(prefix, Route{Device: in.uplinks[family].Name, Source: in.self.Address(family)})
		p.Yields = p.Yields.With(prefix, struct{}{})
	}
}
