package route

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// changePeer plans another node that came (old is nil), went (new is nil) or
// changed.
func (p *Plan) changePeer(old, new *model.Node) {
	var touched []netip.Prefix
	if old != nil {
		for _, prefix := range old.PodCIDRs {
			p.claims = p.claims.without(prefix, old.Name)
			touched = append(touched, prefix)
		}
		p.removePeer(old)
	}
	if new != nil {
		for _, prefix := range new.PodCIDRs {
			p.claims = p.claims.with(prefix, new.Name)
			touched = append(touched, prefix)
		}
		p.planWay(new)
	}
	for _, prefix := range touched {
		p.replanRange(prefix)
	}
	p.changeAddresses(old, new)
}

// replanRange plans a range of which something changed.
func (p *Plan) replanRange(prefix netip.Prefix) {
	// Ranges that begin with one address share a neighbour (planGateway): the
	// longest that needs it has it, so it comes last.
	p.removeGateway(prefix)
	for bits := range prefix.Addr().BitLen() + 1 {
		if at := netip.PrefixFrom(prefix.Addr(), bits); at == prefix || p.claims.first(at) != "" {
			p.planRange(at)
		}
	}
}

// changeAddresses plans what hangs on the addresses of a peer.
func (p *Plan) changeAddresses(old, new *model.Node) {
	var touched []netip.Addr
	if old != nil {
		for _, addr := range old.Addresses {
			p.addresses = p.addresses.without(addr, old.Name)
			touched = append(touched, addr)
		}
	}
	if new != nil {
		for _, addr := range new.Addresses {
			p.addresses = p.addresses.with(addr, new.Name)
			touched = append(touched, addr)
		}
	}
	for _, addr := range touched {
		p.replanAround(addr)
		p.UDPPeers = p.UDPPeers.Without(model.HostPrefix(addr))
		p.Neighbors = p.Neighbors.Without(Neighbor{IPIPDevice, addr})
		owner, ok := p.nodes.Get(p.addresses.first(addr))
		if !ok {
			continue
		}
		p.planUDPPeer(model.HostPrefix(addr), owner)
		p.planIPIPPeer(addr)
	}
}

// planRange plans the routes to the pods of a range. Without an owner there
// are none, and what this node has itself is no peer's.
func (p *Plan) planRange(prefix netip.Prefix) {
	if slices.Contains(p.input.self.PodCIDRs, prefix) {
		p.planOwnRange(prefix)
		return
	}
	p.UDPPeers = p.UDPPeers.Without(prefix)
	p.collisions = p.collisions.Without(prefix)
	p.Yields = p.Yields.Without(prefix)
	owner, ok := p.nodes.Get(p.claims.first(prefix))
	if !ok {
		p.Routes = p.Routes.Without(prefix)
		return
	}
	if segment, ok := p.collides(prefix); ok {
		p.collisions = p.collisions.With(prefix, collision(owner.Name, prefix, segment, p.refuses(prefix)))
	}
	if p.refuses(prefix) {
		p.Routes = p.Routes.Without(prefix)
		return
	}
	if owner.Flannel != "" {
		p.Yields = p.Yields.With(prefix, struct{}{})
	}
	p.planUDPPeer(prefix, owner)
	switch p.input.way(owner, model.FamilyOf(prefix.Addr())) {
	case Direct:
		p.Routes = p.Routes.With(prefix, p.input.directRoute(owner, prefix))
	case ViaVXLAN:
		p.planGateway(prefix, owner)
	case ViaIPIP:
		p.Routes = p.Routes.With(prefix, p.input.ipipRoute(owner, prefix))
	case ViaUDP:
		outer, _ := p.input.outer(owner)
		p.Routes = p.Routes.With(prefix, p.input.tunnelRoute(UDPDevice, ViaUDP, outer, prefix))
	default:
		// Refused here, lest the default route sends them who knows where.
		p.Routes = p.Routes.With(prefix, Route{Unreachable: true})
	}
}

// planWay plans what a node needs once, however many ranges it has.
func (p *Plan) planWay(peer *model.Node) {
	var greatest Way
	for _, prefix := range peer.PodCIDRs {
		way := p.input.way(peer, model.FamilyOf(prefix.Addr()))
		if way == ViaVXLAN {
			p.planStation(peer)
		}
		greatest = max(greatest, way)
	}
	if greatest != 0 {
		p.Ways = p.Ways.With(peer.Name, greatest)
	}
	if p.input.strands(peer) {
		p.stranded = p.stranded.With(peer.Name, peer)
	}
}

func (p *Plan) removePeer(peer *model.Node) {
	p.removeStation(peer)
	p.Ways = p.Ways.Without(peer.Name)
	p.stranded = p.stranded.Without(peer.Name)
}

// way decides how to reach the pods of one family at a peer.
func (in *input) way(peer *model.Node, family model.Family) Way {
	_, reachable := in.outer(peer)
	switch {
	case in.direct(peer, family):
		return Direct
	case !reachable, in.network.Backend == model.BackendHostGW:
		return 0
	case in.ipip(peer, family):
		return ViaIPIP
	case in.network.Backend == model.BackendUDP:
		return ViaUDP
	default:
		return ViaVXLAN
	}
}

// collides finds the smallest network of a link of this node that a range of
// pods overlaps.
func (p *Plan) collides(prefix netip.Prefix) (segment netip.Prefix, ok bool) {
	for _, candidate := range p.segments {
		if prefix.Overlaps(candidate) && (!ok || candidate.Bits() > segment.Bits()) {
			segment, ok = candidate, true
		}
	}
	return segment, ok
}

// refuses tells whether a range is not routed, since that would take a network away from
// its link, or nodes from theirs. A network that is wider than the range, without nodes
// in it, only misses what is there.
func (p *Plan) refuses(prefix netip.Prefix) bool {
	segment, ok := p.collides(prefix)
	return ok && (segment.Bits() >= prefix.Bits() || p.inhabited(prefix))
}

func collision(node string, prefix, segment netip.Prefix, refused bool) model.Problem {
	consequence := "whose addresses in it are not reached from there"
	if refused {
		consequence = "and is not routed there"
	}
	return model.Problem{
		Kind: "Node", Name: node, Field: "spec.podCIDRs", Reason: "PodCIDROnLink",
		Message: fmt.Sprintf("%s, the range of its pods, overlaps %s, a network that other nodes are on, %s", prefix, segment, consequence),
		Remedy:  "give kube-controller-manager a --cluster-cidr that is nobody else's, then, of each node: " + model.RegisterAnew,
	}
}
