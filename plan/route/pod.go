package route

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// changePod plans the routes to a pod of this node that came (old is nil),
// went (new is nil) or changed.
func (p *Plan) changePod(old, new *model.Attachment) {
	if old != nil {
		for _, addr := range old.Addresses {
			// Unless the address is another pod's by now.
			if route, _ := p.Routes.Get(model.HostPrefix(addr)); route.Device == old.Device {
				p.Routes = p.Routes.Without(model.HostPrefix(addr))
			}
		}
	}
	if new != nil {
		for _, addr := range new.Addresses {
			p.Routes = p.Routes.With(model.HostPrefix(addr), Route{
				Device: new.Device,
				Source: p.input.ownAddress(model.FamilyOf(addr)),
			})
		}
	}
}

// PodMTU is that of the links of pods that come to a node with this uplink, in
// bytes. A link keeps its own; what is less on the way to some peers is on the
// routes to them.
func PodMTU(network *model.Network, uplink *model.Link) int { return wireMTU(network.MTU, uplink) }

// ownAddress is what this node's own pods know it by: probes come from it. It
// is left to the kernel, which takes the gateway's link-local address on the
// pod's link, only while the node's address is on no interface: the kernel
// drops a route with its source address, and pods have to stay reachable.
func (in *input) ownAddress(family model.Family) netip.Addr {
	if addr := in.self.Address(family); addr.IsValid() {
		if !in.present[family] {
			return netip.Addr{}
		}
		return addr
	}
	if prefix := in.self.PodCIDR(family); prefix.IsValid() {
		return prefix.Addr() // on the tunnel
	}
	return netip.Addr{}
}
