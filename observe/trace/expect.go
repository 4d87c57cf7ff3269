package trace

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/service"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

const (
	ipipDevice = route.IPIPDevice
	udpDevice  = route.UDPDevice
)

// Expect says what the plan that a node makes of a snapshot wants to become of
// a packet. MAC is that of the pod that sends it, as it is; zero: as the pod
// should have it.
func Expect(snapshot *model.Snapshot, node string, q Question, mac model.MAC) *Plan {
	planned := plan.Compute(nil, snapshot, node)
	expected := &Plan{}
	packet := plan.Packet{
		Source: q.From, Destination: q.To, Protocol: q.Protocol, Port: q.Port,
		Local: ownAddress(snapshot, q.To),
	}
	if from := attachment(snapshot, q.From); from != nil {
		expected.From, expected.PodMAC = from.Pod.String(), from.MAC
		if q.Enter.By == ByPod {
			expected.In, packet.Device, packet.MAC = from.Device, from.Device, from.MAC
			if mac != (model.MAC{}) {
				packet.MAC = mac
			}
		}
	}
	expected.enter(planned.Route, q.Enter)
	if !q.Reply {
		expected.Service, packet.Backend = expectService(planned, packet, q.Backend)
		expected.Denied = expectDenied(snapshot, planned, packet)
	}
	packet.Established = true // the way of a packet that is let through
	hop := plan.Verdict(planned, packet)
	if s := expected.Service; s != nil && (s.Do != service.Forward || s.Unfit != "") {
		hop = plan.Hop{Spoofed: hop.Spoofed, Reachable: true} // it goes nowhere
	}
	expected.Spoofed, expected.Refused = hop.Spoofed, !hop.Spoofed && !hop.Reachable
	expected.Here = hop.Here
	expected.Device, expected.Via, expected.MTU, expected.Remote = hop.Device, hop.Via, hop.MTU, hop.Remote
	if !q.Reply {
		expected.Translated, expected.Masquerade, expected.As = hop.Pod, hop.Masquerade, hop.As
	}
	to := q.To
	if hop.Pod.IsValid() {
		to = hop.Pod.Addr()
	}
	if of := attachment(snapshot, to); of != nil {
		expected.To = of.Pod.String()
	}
	if planned.Route != nil {
		expected.leave(planned.Route, to)
	}
	return expected
}

// enter says what the plan has of how a packet comes.
func (p *Plan) enter(routes *route.Plan, enter Enter) {
	if routes == nil {
		return
	}
	p.Sysctls = map[string]string{}
	want := func(path string) {
		if value, ok := routes.Sysctls.Get(path); ok {
			p.Sysctls[path] = value
		}
	}
	switch enter.By {
	case ByVXLAN:
		for _, device := range routes.VXLANs.All() {
			if device.VNI == enter.VNI && device.Port == enter.Port && device.Local.Is4() == enter.At.Is4() {
				p.In, p.InTunnel = device.Name, vxlanDevice(device)
			}
		}
	case ByIPIP:
		for _, device := range routes.IPIPs.All() {
			p.In, p.InTunnel = device.Name, ipipTunnel(device)
		}
	case ByUDP:
		for _, device := range routes.UDPs.All() {
			p.In, p.InTunnel = device.Name, udpTunnel(device)
		}
	}
	want("net/ipv4/ip_forward")
	want("net/ipv6/conf/all/forwarding")
	for path := range routes.Sysctls.All() {
		if p.In != "" && path == filterOf(p.In) {
			want(path)
		}
	}
}

// filterOf is the setting of the reverse path filter of a device.
func filterOf(device string) string { return "net/ipv4/conf/" + device + "/rp_filter" }

// leave says what the plan has of how a packet goes on.
func (p *Plan) leave(routes *route.Plan, to netip.Addr) {
	for bits := to.BitLen(); bits >= 0 && !p.Route.IsValid(); bits-- {
		prefix, _ := to.Prefix(bits)
		if _, ok := routes.Routes.Get(prefix); ok {
			p.Route = prefix
		}
	}
	p.MAC, _ = routes.Neighbors.Get(route.Neighbor{Device: p.Device, Address: p.Via})
	if device, ok := routes.VXLANs.Get(p.Device); ok {
		p.Tunnel = vxlanDevice(device)
	}
	if device, ok := routes.IPIPs.Get(p.Device); ok {
		p.Tunnel, p.Remote = ipipTunnel(device), p.Via
	}
	if device, ok := routes.UDPs.Get(p.Device); ok {
		p.Tunnel = udpTunnel(device)
		for bits := to.BitLen(); bits >= 0 && !p.Remote.IsValid(); bits-- {
			prefix, _ := to.Prefix(bits)
			p.Remote, _ = routes.UDPPeers.Get(prefix)
		}
		for _, local := range device.Locals {
			if local.IsValid() && local.Is4() == p.Remote.Is4() {
				p.Tunnel.Local = local
			}
		}
	}
}

func vxlanDevice(v route.VXLAN) *Device {
	return &Device{
		Name: v.Name, Kind: "vxlan", MTU: v.MTU, MAC: v.MAC, Up: true, Carrier: true,
		VNI: v.VNI, Port: v.Port, Local: v.Local, Parent: v.Device,
	}
}

func ipipTunnel(d route.IPIP) *Device {
	return &Device{Name: d.Name, Kind: "ipip", MTU: d.MTU, Up: true, Carrier: true, Local: d.Local, Parent: d.Device}
}

func udpTunnel(d route.UDP) *Device {
	return &Device{Name: d.Name, Kind: "tun", MTU: d.MTU, Up: true, Carrier: true, Port: d.Port}
}

// attachment is the pod of this node that has an address; nil if none has.
func attachment(snapshot *model.Snapshot, addr netip.Addr) *model.Attachment {
	for _, a := range snapshot.Attachments.All() {
		for _, own := range a.Addresses {
			if own == addr {
				return a
			}
		}
	}
	return nil
}

func ownAddress(snapshot *model.Snapshot, addr netip.Addr) bool {
	for _, link := range snapshot.Links.All() {
		if link.Has(addr) {
			return true
		}
	}
	return addr.IsLoopback()
}
