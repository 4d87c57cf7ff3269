package hostport

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// hosting are the Services whose ports are the node's, and their slices that name the
// node.
type hosting struct {
	services model.Map[model.ServiceKey, *model.Service]
	slices   model.Map[model.SliceKey, *model.EndpointSlice]
}

// findHosting returns those of a snapshot, and tells whether they, or pods that they
// lead to, may be others than they were. What it costs follows what has changed.
func (p *Plan) findHosting(snapshot *model.Snapshot, node string) (of hosting, moved bool) {
	of = p.hosting
	for change := range model.Diff(p.services, snapshot.Services) {
		had := change.Had && change.Old.HostPorts
		has := change.Has && change.New.HostPorts
		if moved = moved || had || has; has {
			of.services = of.services.With(change.Key, change.New)
		} else if had {
			of.services = of.services.Without(change.Key)
		}
	}
	if of.services.Len() == 0 {
		return hosting{}, moved
	}
	before := p.slices
	if moved {
		of.slices, before = model.Map[model.SliceKey, *model.EndpointSlice]{}, model.Map[model.SliceKey, *model.EndpointSlice]{}
	}
	for change := range model.Diff(before, snapshot.Slices) {
		if change.Has && of.has(change.New, node) {
			of.slices, moved = of.slices.With(change.Key, change.New), true
		} else if _, had := of.slices.Get(change.Key); had {
			of.slices, moved = of.slices.Without(change.Key), true
		}
	}
	// A pod that has just come may be known by its Service already.
	for change := range model.Diff(p.attachments, snapshot.Attachments) {
		moved = moved || change.Had && of.leads(change.Old) || change.Has && of.leads(change.New)
	}
	return of, moved
}

func (h *hosting) has(slice *model.EndpointSlice, node string) bool {
	_, is := h.services.Get(model.ServiceKey{Namespace: slice.Namespace, Name: slice.Service})
	return is && slices.ContainsFunc(slice.Endpoints, func(e model.Endpoint) bool { return e.Node == node })
}

// leads tells whether a pod is one of the endpoints.
func (h *hosting) leads(pod *model.Attachment) bool {
	for _, slice := range h.slices.All() {
		if slices.ContainsFunc(slice.Endpoints, func(e model.Endpoint) bool { return slices.Contains(pod.Addresses, e.Address) }) {
			return true
		}
	}
	return false
}

// local is an endpoint of this node.
type local struct {
	at    netip.AddrPort
	ready bool
	takes bool // new connections
	pod   *model.Attachment
}

// planServices leads ports of Services to their endpoints on this node. While one pod
// follows upon another there are two, and of those a new connection has the one that
// is ready: the other serves those that it has. Without any, the port is not the Service's. It
// returns those that are.
func (p *Plan) planServices(of *hosting, attachments model.Map[model.AttachmentKey, *model.Attachment], node string) map[Port]model.ServiceKey {
	if of.slices.Len() == 0 {
		return nil
	}
	hosts := map[Port]model.ServiceKey{}
	pods := map[netip.Addr]*model.Attachment{}
	for _, attachment := range attachments.All() {
		for _, addr := range attachment.Addresses {
			pods[addr] = attachment
		}
	}
	var all []*model.Service
	for _, s := range of.services.All() {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *model.Service) int { return cmp.Compare(a.String(), b.String()) })
	for _, s := range all {
		for i := range s.Ports {
			for _, family := range model.Families {
				all := of.find(s, &s.Ports[i], family, node, pods)
				best := bestOf(all)
				if best != nil {
					p.planService(s, &s.Ports[i], best, hosts)
				}
				p.keep(&s.Ports[i], all, best)
			}
		}
	}
	return hosts
}

// find returns the endpoints on a node.
func (h *hosting) find(s *model.Service, port *model.ServicePort, family model.Family, node string, pods map[netip.Addr]*model.Attachment) (all []local) {
	for _, slice := range h.slices.All() {
		if slice.Namespace != s.Namespace || slice.Service != s.Name || slice.Family != family {
			continue
		}
		at := slices.IndexFunc(slice.Ports, func(e model.EndpointPort) bool { return e.Name == port.Name && e.Protocol == port.Protocol })
		if at < 0 {
			continue
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if pod := pods[e.Address]; e.Node == node && pod != nil {
				all = append(all, local{netip.AddrPortFrom(e.Address, slice.Ports[at].Port), e.Ready, e.Ready || e.Serving && e.Terminating, pod})
			}
		}
	}
	return all
}

// bestOf returns the endpoint that takes new connections; nil: none does.
func bestOf(all []local) (best *local) {
	for i := range all {
		one := &all[i]
		if one.takes && (best == nil || one.ready && !best.ready || one.ready == best.ready && one.at.Compare(best.at) < 0) {
			best = one
		}
	}
	return best
}

// keep has the connections over UDP stay with the endpoints that take no new ones,
// ready or not: a gateway that ends finishes what it has. What the kernel knows of UDP
// has no end, and would go on with the next one else, who knows nothing of it.
func (p *Plan) keep(of *model.ServicePort, all []local, best *local) {
	if of.Protocol != model.UDP {
		return
	}
	for i := range all {
		if at := all[i].at; best == nil || at != best.at {
			port := Port{of.Protocol, netip.AddrPortFrom(unspecified[model.FamilyOf(at.Addr())], of.Port)}
			p.Kept = p.Kept.With(Kept{port, at}, struct{}{})
		}
	}
}

func (p *Plan) planService(s *model.Service, of *model.ServicePort, to *local, hosts map[Port]model.ServiceKey) {
	family := model.FamilyOf(to.at.Addr())
	port := Port{of.Protocol, netip.AddrPortFrom(unspecified[family], of.Port)}
	wrong := func(reason, message, remedy string) {
		p.problems = append(p.problems, model.Problem{
			Kind: "Service", Namespace: s.Namespace, Name: s.Name, Field: "spec.ports", Reason: reason, Message: message, Remedy: remedy,
		})
	}
	if of.Protocol == model.UDP && slices.Contains(p.reserved[:], of.Port) {
		wrong("HostPortReserved", fmt.Sprintf("host port %s is that of the tunnels between nodes", port), "choose another port")
		return
	}
	if owner, taken := hosts[port]; taken {
		wrong("HostPortTaken", fmt.Sprintf("host port %s of the node leads to Service %s already", port, owner), "give one of them another port, or another node")
		return
	}
	hosts[port] = s.ServiceKey
	p.Ports = p.Ports.With(port, to.at)
	p.Hairpins = p.Hairpins.With(to.at.Addr(), struct{}{})
	if to.at.Addr().Is4() {
		p.Sysctls = p.Sysctls.With("net/ipv4/conf/"+to.pod.Device+"/route_localnet", "1") // as of a pod's own
	}
}
