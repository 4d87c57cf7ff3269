package trace

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// routeText is as ip route has it.
func routeText(r *Route) string {
	text := r.Destination.String()
	if r.Destination.Bits() == 0 {
		text = "default"
	}
	if r.Type != "" && r.Type != "local" {
		text = r.Type + " " + text
	}
	if r.Via.IsValid() {
		text += " via " + r.Via.String()
	}
	if r.Device != "" {
		text += " dev " + r.Device
	}
	return text
}

func protocolText(r *Route) string {
	if r.Protocol == "" || ours(r) {
		return ""
	}
	return " proto " + r.Protocol
}

// wayText is a route and its neighbour, without the device.
func wayText(r *Route, n *Neighbor) string {
	bare := *r
	bare.Device = ""
	text := routeText(&bare)
	if r.Destination.IsSingleIP() {
		text = strings.TrimSuffix(text, fmt.Sprintf("/%d", r.Destination.Bits()))
	} else if !r.Via.IsValid() {
		text += " on-link"
	}
	if n != nil {
		text += neighborText(n)
	}
	return text
}

func neighborText(n *Neighbor) string {
	if n.MAC == (model.MAC{}) {
		return " (" + n.State + ")"
	}
	return " lladdr " + n.MAC.String()
}

// planText is the plan's route.
func (v *visit) planText() string {
	p := v.plan
	return plan.RouteText(p.Route, route.Route{Unreachable: p.Refused, Device: p.Device, Via: p.Via, MTU: p.MTU})
}

// tunnelText is the outer packet of a tunnel. A tunnel without ports has port 0.
func tunnelText(by By, vni uint32, source netip.Addr, remote netip.AddrPort) string {
	text := string(by)
	if vni != 0 {
		text += fmt.Sprintf(" %d", vni)
	}
	if source.IsValid() {
		text += " from " + source.String()
	}
	text += " to " + remote.Addr().String()
	if remote.Port() != 0 {
		text += fmt.Sprintf(" port %d", remote.Port())
	}
	return text
}

// deviceText is a tunnel device as ip -d link has it.
func deviceText(d *Device) string {
	text := d.Name
	switch by := d.Tunnel(); {
	case d.Kind == "vxlan":
		text += fmt.Sprintf(" vxlan id %d dstport %d", d.VNI, d.Port)
	case by.Tunnels():
		text += " " + string(by)
	default:
		text += " " + d.Kind
	}
	if d.Local.IsValid() {
		text += " local " + d.Local.String()
	}
	if d.Parent != "" {
		text += " dev " + d.Parent
	}
	text += fmt.Sprintf(" mtu %d", d.MTU)
	if d.Kind == "vxlan" {
		text += " address " + d.MAC.String()
	}
	return text
}

// repair is what to do if the kernel of a node is not as planned.
func (v *visit) repair() string {
	return "the agent puts it right within a second; if it does not: " + v.logs()
}

func (v *visit) logs() string {
	if v.place.Agent == "" {
		return "fairlead status"
	}
	return "kubectl -n kube-system logs " + v.place.Agent
}

// isPodLink tells whether a device is the host's side of a pod's link.
func isPodLink(d *Device) bool { return d.Peer != nil || strings.HasPrefix(d.Alias, "fairlead ") }

// short is a pod's name without its namespace.
func short(pod string) string { return pod[strings.LastIndex(pod, "/")+1:] }
