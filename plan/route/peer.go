package route

import (
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// claim is who says that a range of pods is theirs: names of nodes, sorted.
// The first has it; plan.Cluster names the others.
type claim struct{ nodes []string }

// changePeer plans another node that came (old is nil), went (new is nil) or
// changed.
func (p *Plan) changePeer(old, new *model.Node) {
	var touched []netip.Prefix
	if old != nil {
		for _, prefix := range old.PodCIDRs {
			p.release(prefix, old.Name)
			touched = append(touched, prefix)
		}
		p.removeStation(old)
		p.Ways = p.Ways.Without(old.Name)
	}
	if new != nil {
		for _, prefix := range new.PodCIDRs {
			p.claim(prefix, new.Name)
			touched = append(touched, prefix)
		}
		p.planWay(new)
	}
	for _, prefix := range touched {
		p.planRange(prefix)
	}
}

func (p *Plan) claim(prefix netip.Prefix, node string) {
	next := &claim{}
	if held, ok := p.claims.Get(prefix); ok {
		next.nodes = slices.Clone(held.nodes)
	}
	at, _ := slices.BinarySearch(next.nodes, node)
	next.nodes = slices.Insert(next.nodes, at, node)
	p.claims = p.claims.With(prefix, next)
}

func (p *Plan) release(prefix netip.Prefix, node string) {
	held, ok := p.claims.Get(prefix)
	if !ok {
		return
	}
	left := slices.DeleteFunc(slices.Clone(held.nodes), func(name string) bool { return name == node })
	if len(left) == 0 {
		p.claims = p.claims.Without(prefix)
		return
	}
	p.claims = p.claims.With(prefix, &claim{left})
}

// owner is the node that has the range, nil if none.
func (p *Plan) owner(prefix netip.Prefix) *model.Node {
	held, ok := p.claims.Get(prefix)
	if !ok {
		return nil
	}
	node, _ := p.nodes.Get(held.nodes[0])
	return node
}

// planRange plans the routes to the pods of a range. Without an owner there
// are none, and what this node has itself is no peer's.
func (p *Plan) planRange(prefix netip.Prefix) {
	if slices.Contains(p.input.self.PodCIDRs, prefix) {
		return
	}
	p.removeGateway(prefix)
	owner := p.owner(prefix)
	if owner == nil {
		p.Routes = p.Routes.Without(prefix)
		return
	}
	switch p.input.way(owner, model.FamilyOf(prefix.Addr())) {
	case Direct:
		p.Routes = p.Routes.With(prefix, p.input.directRoute(owner, prefix))
	case Tunnel:
		p.planGateway(prefix, owner)
	default:
		// Refused here, lest the default route sends them who knows where.
		p.Routes = p.Routes.With(prefix, Route{Unreachable: true})
	}
}

// planWay plans what a node needs once, however many ranges it has.
func (p *Plan) planWay(peer *model.Node) {
	var way Way
	for _, prefix := range peer.PodCIDRs {
		way = max(way, p.input.way(peer, model.FamilyOf(prefix.Addr())))
	}
	if way == Tunnel {
		p.planStation(peer)
	}
	if way != 0 {
		p.Ways = p.Ways.With(peer.Name, way)
	}
}

// way decides how to reach the pods of one family at a peer.
func (in *input) way(peer *model.Node, family model.Family) Way {
	if in.direct(peer, family) {
		return Direct
	}
	if _, ok := in.outer(peer); ok {
		return Tunnel
	}
	return 0
}
