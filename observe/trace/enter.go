package trace

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/fairlead-net/fairlead/model"
)

// enter shows how the packet comes to the node, and tells whether it gets in.
func (v *visit) enter() bool {
	in := v.kernel.In
	if v.q.Enter.By.Tunnels() && !v.wire() {
		return false
	}
	if v.q.Enter.By == ByNode {
		if v.plan == nil {
			v.line(Line{Where: v.place.Name, Way: "made by the node itself", Findings: v.unplanned()})
		}
		return true
	}
	if in == nil {
		line := v.line(Line{Where: v.place.Name, Way: v.entrance()})
		line.Findings = append(line.Findings, v.noEntrance())
		return false
	}
	if v.q.Enter.By == ByPod && in.Peer != nil {
		v.line(Line{Where: short(v.trip.From.Name), Device: in.Peer.Name, MTU: in.Peer.MTU, Way: v.q.From.String(), Findings: v.podSide(in)})
	}
	line := Line{Where: v.place.Name, Device: in.Name, MTU: in.MTU, Way: v.entrance(), Findings: v.unplanned()}
	line.Findings = append(line.Findings, v.state(in)...)
	switch v.q.Enter.By {
	case ByPod:
		line.Findings = append(line.Findings, v.spoofed(in)...)
		line.Findings = append(line.Findings, v.unfiltered()...)
	case ByWire:
		line.Findings = append(line.Findings, v.stranger(in)...)
		line.Findings = append(line.Findings, v.tooLarge(in)...)
	default:
		line.Findings = append(line.Findings, v.tunnelEnd(in)...)
	}
	line.Findings = append(line.Findings, v.refusedEntrance(in)...)
	v.line(line)
	return line.effect() != Breaks
}

// wire shows the interface by which a tunnel's outer packet comes.
func (v *visit) wire() bool {
	line := Line{Where: v.place.Name, Way: "at " + v.q.Enter.At.String()}
	if wire := v.kernel.Wire; wire == nil {
		line.Findings = []Finding{v.addressless()}
	} else {
		line.Device, line.MTU, line.headers = wire.Name, wire.MTU, overhead(v.q.Enter.By, v.q.Enter.At)
		line.Findings = append(v.state(wire), v.tooLarge(wire)...)
	}
	v.line(line)
	return line.effect() != Breaks
}

// tooLarge is about packets that come and are larger than an interface takes.
func (v *visit) tooLarge(wire *Device) []Finding {
	if v.sent <= wire.MTU {
		return nil
	}
	return []Finding{{
		Effect: Harms, What: fmt.Sprintf("%s sends packets of up to %d bytes, and %s on %s takes %d: larger ones are lost", v.sender, v.sent, wire.Name, v.place.Name, wire.MTU),
		Next: fmt.Sprintf("raise the MTU of %s on %s to %d, or set spec.mtu of networks.fairlead.io default to %d", wire.Name, v.place.Name, v.sent, wire.MTU),
	}}
}

// unfiltered is about the table of nftables, if nothing more depends on it than
// that pods are told from each other.
func (v *visit) unfiltered() []Finding {
	if v.plan == nil || v.kernel.Tables {
		return nil
	}
	return []Finding{{
		Effect: Harms, What: fmt.Sprintf("the table inet fairlead of nftables is not on %s: nothing keeps pods from using addresses of others", v.place.Name),
		Plan: "table inet fairlead", Kernel: "none", Next: v.repair(),
	}}
}

// unplanned says that there is nothing to compare the kernel with.
func (v *visit) unplanned() []Finding {
	if v.plan != nil {
		return nil
	}
	return []Finding{{
		Effect: Harms, What: fmt.Sprintf("the agent of %s does not tell its plan, so only the kernel is shown: %s", v.place.Name, v.silent),
		Next: v.logs(),
	}}
}

// entrance says in words how the packet comes.
func (v *visit) entrance() string {
	switch enter := v.q.Enter; {
	case enter.By == ByPod:
		return "from pod " + v.trip.From.Name
	case enter.By.Tunnels():
		return tunnelText(enter.By, enter.VNI, enter.Source, netip.AddrPortFrom(enter.At, enter.Port))
	default:
		return "at " + enter.At.String()
	}
}

func (v *visit) noEntrance() Finding {
	node := v.place.Name
	switch v.q.Enter.By {
	case ByPod:
		finding := Finding{
			Effect: Breaks, What: fmt.Sprintf("no interface of %s leads to the pod %s", node, v.q.From),
			Kernel: "none", Next: fmt.Sprintf("delete the pod, so that it is made anew; if it stays so: %s", v.logs()),
		}
		if v.plan != nil && v.plan.In != "" {
			finding.Plan = v.plan.In
		}
		return finding
	case ByWire:
		return v.addressless()
	default:
		finding := Finding{
			Effect: Breaks, What: fmt.Sprintf("no tunnel device of %s takes it", node), Kernel: "none", Next: v.repair(),
		}
		if v.plan != nil && v.plan.InTunnel != nil {
			finding.Plan = deviceText(v.plan.InTunnel)
		}
		return finding
	}
}

func (v *visit) addressless() Finding {
	return Finding{
		Effect: Breaks, What: fmt.Sprintf("no interface of %s has its address %s", v.place.Name, v.q.Enter.At),
		Next: fmt.Sprintf("bring the interface up, or give the kubelet of %s the right --node-ip", v.place.Name),
	}
}

// state is about an interface that is down.
func (v *visit) state(d *Device) []Finding {
	next := fmt.Sprintf("on %s: ip link set %s up", v.place.Name, d.Name)
	if strings.HasPrefix(d.Name, tunnelPrefix) {
		next = v.repair()
	}
	switch {
	case !d.Up:
		return []Finding{{Effect: Breaks, What: fmt.Sprintf("%s on %s is down", d.Name, v.place.Name), Plan: v.planned(d, "up"), Kernel: "down", Next: next}}
	case !d.Carrier && d.Tunnel() == ByUDP:
		return []Finding{{
			Effect: Breaks, What: fmt.Sprintf("%s on %s has no carrier: the process that carries its packets does not run", d.Name, v.place.Name),
			Next: v.logs(),
		}}
	case !d.Carrier:
		return []Finding{{
			Effect: Breaks, What: fmt.Sprintf("%s on %s has no carrier", d.Name, v.place.Name),
			Next: "see to its other end: a cable, a switch, the pod's namespace",
		}}
	}
	return nil
}

// planned is the text if the device is one of the plan's.
func (v *visit) planned(d *Device, text string) string {
	if v.plan == nil || d.Name != v.plan.Device && d.Name != v.plan.In {
		return ""
	}
	return text
}

// podSide is about the end of a pod's link that is in the pod.
func (v *visit) podSide(link *Device) (findings []Finding) {
	peer := link.Peer
	if !peer.Up {
		findings = append(findings, Finding{
			Effect: Breaks, What: fmt.Sprintf("%s in the pod is down", peer.Name),
			Next: "see what in the pod has set it so (a container with NET_ADMIN); a deleted pod is made anew",
		})
	}
	if peer.MTU != link.MTU {
		findings = append(findings, Finding{
			Effect: Harms, What: fmt.Sprintf("the two ends of the pod's link have different MTUs: %d in the pod, %d on %s", peer.MTU, link.MTU, v.place.Name),
			Next: "delete the pod, so that its link is made anew",
		})
	}
	return findings
}

// spoofed is about the sender's addresses.
func (v *visit) spoofed(in *Device) (findings []Finding) {
	if v.plan == nil {
		return nil
	}
	if v.plan.In != "" && v.plan.In != in.Name {
		findings = append(findings, Finding{
			Effect: Harms, What: fmt.Sprintf("two interfaces are said to be the link of %s", v.q.From),
			Plan: v.plan.In, Kernel: in.Name, Next: v.logs(),
		})
	}
	if !v.plan.Spoofed {
		return findings
	}
	finding := Finding{
		Effect: Breaks, What: fmt.Sprintf("the pod may not send from %s through %s: such packets are dropped", v.q.From, in.Name),
		Next: v.logs(),
	}
	if in.Peer != nil && v.plan.PodMAC != (model.MAC{}) && in.Peer.MAC != v.plan.PodMAC {
		finding.What = fmt.Sprintf("the pod has changed the MAC of its %s: what does not come from its own MAC is dropped", in.Peer.Name)
		finding.Plan, finding.Kernel = v.plan.PodMAC.String(), in.Peer.MAC.String()
		finding.Next = "delete the pod, and see what in it changes the MAC (a container with NET_ADMIN)"
	}
	return append(findings, finding)
}

// stranger is about the MAC that the node before sent to.
func (v *visit) stranger(in *Device) []Finding {
	mac := v.q.Enter.MAC
	if mac == (model.MAC{}) || in.MAC == mac || in.Kind != "veth" && in.Kind != "device" {
		return nil // bonds, bridges and the like have several
	}
	return []Finding{{
		Effect: Breaks, What: fmt.Sprintf("the node before sends to the MAC %s, and %s on %s has %s", mac, in.Name, v.place.Name, in.MAC),
		Next: fmt.Sprintf("see who else on the network has the address %s; on the node before: ip neigh flush %s", v.q.Enter.At, v.q.Enter.At),
	}}
}

// tunnelEnd compares the end of a tunnel with the plan and with what comes.
func (v *visit) tunnelEnd(in *Device) (findings []Finding) {
	if mac := v.q.Enter.MAC; v.q.Enter.By == ByVXLAN && in.MAC != mac {
		finding := Finding{
			Effect: Breaks, What: fmt.Sprintf("the packet in the tunnel is for the MAC %s, and %s on %s has %s", mac, in.Name, v.place.Name, in.MAC),
			Next: "mend the node before",
		}
		if v.plan != nil && v.plan.InTunnel != nil && v.plan.InTunnel.MAC != in.MAC {
			finding.Plan, finding.Kernel, finding.Next = v.plan.InTunnel.MAC.String(), in.MAC.String(), v.repair()
		}
		return append(findings, finding)
	}
	if v.plan == nil {
		return findings
	}
	if v.plan.InTunnel == nil {
		return append(findings, Finding{
			Effect: Harms, What: fmt.Sprintf("the plan of %s has no such tunnel: it changes now, or the nodes differ", v.place.Name),
			Plan: "none", Kernel: deviceText(in), Next: "if it stays so for a minute: fairlead status",
		})
	}
	return append(findings, v.unlike(v.plan.InTunnel, in)...)
}

// unlike compares a tunnel device with its plan.
func (v *visit) unlike(plan, kernel *Device) []Finding {
	same := plan.Name == kernel.Name && plan.MTU == kernel.MTU && plan.VNI == kernel.VNI && plan.Local == kernel.Local
	if plan.Kind == "vxlan" {
		same = same && plan.MAC == kernel.MAC && plan.Port == kernel.Port && plan.Parent == kernel.Parent
	}
	if same || plan.Kind == "tun" && plan.MTU == kernel.MTU || kernel.Kind == "veth" && plan.MTU == kernel.MTU {
		return nil // of the last two, nothing else is in the kernel's device
	}
	return []Finding{{
		Effect: Harms, What: fmt.Sprintf("%s on %s is not as planned", kernel.Name, v.place.Name),
		Plan: deviceText(plan), Kernel: deviceText(kernel), Next: v.repair(),
	}}
}

// refusedEntrance is about what the kernel lets in by an interface, and passes on.
func (v *visit) refusedEntrance(in *Device) []Finding {
	switch v.kernel.Refused {
	case NoForwarding:
		setting := "net.ipv4.ip_forward"
		if v.q.To.Is6() {
			setting = "net.ipv6.conf.all.forwarding"
		} else if v.plan == nil || v.plan.Sysctls["net/ipv4/ip_forward"] == "" {
			setting = "net.ipv4.conf." + in.Name + ".forwarding"
		}
		finding := Finding{
			Effect: Breaks, What: fmt.Sprintf("%s passes on no packet that comes by %s: forwarding is off", v.place.Name, in.Name),
			Kernel: setting + "=0",
			Next:   fmt.Sprintf("on %s: sysctl -w %s=1, and see what turns it off (grep -r forward /etc/sysctl.d /usr/lib/sysctl.d)", v.place.Name, setting),
		}
		if v.plan != nil {
			finding.Plan = setting + "=1"
		}
		return []Finding{finding}
	case Filtered:
		finding := Finding{
			Effect: Breaks,
			What:   fmt.Sprintf("%s drops it as it comes by %s: %s", v.place.Name, in.Name, v.whyFiltered()),
			Kernel: fmt.Sprintf("rp_filter=%d", v.kernel.Filter),
			Next:   fmt.Sprintf("on %s: sysctl -w net.ipv4.conf.%s.rp_filter=2, and see what sets it (grep -r rp_filter /etc/sysctl.d /usr/lib/sysctl.d)", v.place.Name, in.Name),
		}
		switch back := v.kernel.Back; {
		case back != nil && special(back):
			finding.Next = fmt.Sprintf("see the rule that sends it there, and take it away: on %s: ip rule", v.place.Name)
		case v.q.Enter.By == ByPod || v.kernel.Filter != 1:
			finding.Next = v.repair()
		}
		if v.plan != nil && v.plan.Sysctls[filterOf(in.Name)] != "" {
			finding.Plan = "rp_filter=" + v.plan.Sysctls[filterOf(in.Name)]
		}
		return []Finding{finding}
	}
	return nil
}

func (v *visit) whyFiltered() string {
	switch back := v.kernel.Back; {
	case back == nil || back.Device == "":
		return fmt.Sprintf("it has no route back to %s", v.q.From)
	case special(back):
		return fmt.Sprintf("its route back to %s is by %s, in the routing table %d", v.q.From, back.Device, back.Table)
	default:
		return fmt.Sprintf("its route back to %s is by %s", v.q.From, back.Device)
	}
}
