package route

import "github.com/fairlead-net/fairlead/model"

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
			p.Routes = p.Routes.With(model.HostPrefix(addr), Route{Device: new.Device})
		}
	}
}
