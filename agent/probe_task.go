package agent

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/probe"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// tasks are the paths to a node, as far as this node knows of both ends. To
// itself, it is whether pods and node reach each other.
func (p *prober) tasks(s *model.Snapshot, peer *model.Node) (tasks []probe.Task) {
	self, ok := s.Nodes.Get(p.node)
	if !ok || s.Network == nil {
		return nil
	}
	now, _ := p.endpoint.current.get()
	if now == nil {
		now = &connected{}
	}
	for _, family := range model.Families {
		for _, path := range probe.Paths {
			to := peer.Address(family)
			if path.ToPod() {
				to = peer.ProbeAddress(family)
			}
			local := self.Address(family).IsValid()
			if path.ToPod() {
				local = self.PodCIDR(family).IsValid()
			}
			if !to.IsValid() || !local || path.FromPod() && !now.has(family) || !crosses(path, peer.Name == p.node) || path.ToPod() && peer.Flannel != "" {
				continue
			}
			task := probe.Task{Peer: peer.Name, Path: path, To: to}
			if path.FromPod() {
				task.Here = place(now.netns)
			}
			if peer.Name != p.node {
				task.MTU = p.mtu(s, path, to, now.mtu)
			}
			tasks = append(tasks, task)
		}
	}
	return tasks
}

// crosses tells whether a path has two ends: a node has one endpoint.
func crosses(path probe.Path, own bool) bool { return !own || path.FromPod() != path.ToPod() }

func (c *connected) has(family model.Family) bool {
	for _, addr := range c.addresses {
		if model.FamilyOf(addr) == family {
			return c.netns != nil
		}
	}
	return false
}

// mtu is what should pass on a path, in bytes; 0 if it cannot be told.
func (p *prober) mtu(s *model.Snapshot, path probe.Path, to netip.Addr, pod int) int {
	self, _ := s.Nodes.Get(p.node)
	link := route.Uplink(s.Links, &model.Node{Addresses: []netip.Addr{self.Address(model.FamilyOf(to))}})
	if link == nil {
		link = uplink(s, p.node)
	}
	if link == nil {
		return 0
	}
	mtu := route.PodMTU(s.Network, link)
	if path.ToPod() {
		outcome, _ := p.loop.outcome.get()
		if outcome.plan == nil {
			return 0
		}
		if hop := plan.Verdict(outcome.plan, plan.Packet{Destination: to}); hop.MTU > 0 {
			mtu = min(mtu, hop.MTU)
		}
	}
	if path.FromPod() {
		mtu = min(mtu, pod)
	}
	return mtu
}

// way is how pods of another node are reached.
func (p *prober) way(peer string) (way probe.Way) {
	snapshot, _ := p.feed.Latest()
	outcome, _ := p.loop.outcome.get()
	if outcome.plan == nil || outcome.plan.Route == nil || snapshot.Network == nil {
		return way
	}
	kind, ok := outcome.plan.Route.Ways.Get(peer)
	if !ok {
		return way
	}
	way.Name = kind.String()
	switch kind {
	case route.ViaVXLAN:
		way.Protocol, way.Port = "UDP", snapshot.Network.VXLANPort
	case route.ViaUDP:
		way.Protocol, way.Port = "UDP", snapshot.Network.UDPPort
	case route.ViaIPIP:
		way.Protocol = "IP protocol 4"
	}
	return way
}
