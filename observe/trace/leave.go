package trace

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/route"
)

const tunnelPrefix = route.TunnelPrefix

// Routing tables that are nothing special.
const (
	tableMain  = 254
	tableLocal = 255
)

// route tells whether the packet finds one, and shows it if not.
func (v *visit) route() bool {
	k := v.kernel
	if k.Refused == "" {
		return true
	}
	line := Line{Where: v.place.Name, Way: v.q.To.String()}
	if k.Route != nil {
		line.Way = routeText(k.Route)
	}
	finding := Finding{Effect: Breaks, Next: v.repair()}
	planned := v.plan != nil && v.plan.Device != ""
	if planned {
		finding.Plan, finding.Kernel = v.planText(), "none"
	}
	owner, prefix := ownerOf(v.cluster, v.q.To)
	if planned && k.Route != nil {
		finding.Kernel = routeText(k.Route) + protocolText(k.Route)
	}
	switch {
	case planned && v.lost() != "":
		finding.What, finding.Next = v.lost(), v.relink()
	case planned && k.Route != nil:
		finding.What = fmt.Sprintf("%s refuses the packet instead of sending it on as planned", v.place.Name)
		finding.Next = v.unroute()
	case planned:
		finding.What = fmt.Sprintf("%s has no route to %s", v.place.Name, v.q.To)
	case k.Refused == OtherReason:
		finding.What = fmt.Sprintf("the kernel of %s does not pass the packet on: %s", v.place.Name, k.Error)
		finding.Next = fmt.Sprintf("on %s: ip rule; ip route get %s", v.place.Name, v.q.To)
	case owner != nil && owner.Name == v.place.Name:
		finding.What = fmt.Sprintf("no pod of %s has the address %s", v.place.Name, v.q.To)
		finding.Next = "see what address the pod has now: kubectl get pods -A -o wide --field-selector spec.nodeName=" + v.place.Name
	case owner != nil:
		finding.What = fmt.Sprintf("%s has no way to %s, the pods of %s", v.place.Name, prefix, owner.Name)
		finding.Next = "fairlead status says why, if the plan has none; if it has: " + v.logs()
	default:
		finding.What = fmt.Sprintf("%s has no route to %s", v.place.Name, v.q.To)
		finding.Next = fmt.Sprintf("give %s a default route, if its pods are to reach the outside; ip route on it shows those that there are", v.place.Name)
	}
	line.Findings = []Finding{finding}
	v.line(line)
	return false
}

// leave shows the interface that the packet leaves by, and the packet around it
// if that is a tunnel. It tells whether the packet gets on.
func (v *visit) leave() bool {
	k, out := v.kernel, v.kernel.Out
	if out == nil {
		v.line(Line{Where: v.place.Name, Way: routeText(k.Route), Findings: []Finding{{
			Effect: Unclear, What: "the kernel does not say by which interface", Next: fmt.Sprintf("on %s: ip route get %s", v.place.Name, v.q.To),
		}}})
		return false
	}
	line := Line{Where: v.place.Name, Device: out.Name, MTU: out.MTU, Way: wayText(k.Route, k.Neighbor)}
	if k.Route.MTU != 0 {
		line.MTU = min(line.MTU, k.Route.MTU)
	}
	if v.masqueraded() {
		line.Way += fmt.Sprintf(", as %s (masquerade)", v.source())
	}
	if v.hostPort() {
		line.Way += fmt.Sprintf(", host port to %s", v.plan.Translated)
	}
	line.Findings = append(line.Findings, v.compareRoute()...)
	line.Findings = append(line.Findings, v.compareMTU(line.MTU)...)
	line.Findings = append(line.Findings, v.untranslated()...)
	v.sent, v.sender = line.MTU, v.place.Name
	line.Findings = append(line.Findings, v.state(out)...)
	line.Findings = append(line.Findings, v.neighbor(out, k.Neighbor, v.hop())...)
	tunnels := out.Tunnel().Tunnels()
	if tunnels {
		if v.plan != nil && v.plan.Tunnel != nil && v.plan.Tunnel.Name == out.Name {
			line.Findings = append(line.Findings, v.unlike(v.plan.Tunnel, out)...)
		}
		if line.effect() != Breaks {
			line.Findings = append(line.Findings, v.remote()...)
		}
	}
	v.line(line)
	if line.effect() == Breaks {
		return false
	}
	return !tunnels || v.outer(line.MTU)
}

// untranslated is about addresses that nothing translates.
func (v *visit) untranslated() []Finding {
	if v.plan == nil || v.kernel.Tables || !v.masqueraded() && !v.hostPort() {
		return nil
	}
	what := fmt.Sprintf("the table inet fairlead of nftables is not on %s: the packet leaves with the pod's address, which nobody outside can answer", v.place.Name)
	if v.hostPort() {
		what = fmt.Sprintf("the table inet fairlead of nftables is not on %s: its ports lead to no pod", v.place.Name)
	}
	return []Finding{{Effect: Breaks, What: what, Plan: "table inet fairlead", Kernel: "none", Next: v.repair()}}
}

// hostPort tells whether a port of the node leads the packet to a pod.
func (v *visit) hostPort() bool {
	return v.plan != nil && v.plan.Translated.IsValid() && v.plan.Service == nil
}

// compareRoute compares the route with the plan's.
func (v *visit) compareRoute() (findings []Finding) {
	k := v.kernel
	if special(k.Route) {
		findings = append(findings, Finding{
			Effect: Harms, What: fmt.Sprintf("a rule of %s sends it to the routing table %d", v.place.Name, k.Route.Table),
			Next: fmt.Sprintf("see whose rule that is, and take it away: on %s: ip rule", v.place.Name),
		})
	}
	astray := v.astray()
	if v.plan == nil || v.plan.Device == "" && !v.plan.Refused || v.plan.Device == k.Route.Device && v.plan.Via == k.Route.Via {
		return append(findings, astray...)
	}
	finding := Finding{
		Effect: Harms, What: fmt.Sprintf("the route of %s is not the plan's", v.place.Name),
		Plan: v.planText(), Kernel: routeText(k.Route) + protocolText(k.Route), Next: v.repair(),
	}
	finding.Next = v.unroute()
	if len(astray) > 0 {
		finding.Effect, finding.What = Breaks, fmt.Sprintf("%s does not take the route of its plan: %s", v.place.Name, astray[0].What)
	}
	if lost := v.lost(); lost != "" {
		finding.What, finding.Next = lost, v.relink()
	}
	return append(findings, finding)
}

// lost is why a route of the plan is not in the kernel: its interface is down or
// gone. It is empty if that is not so.
func (v *visit) lost() string {
	switch k := v.kernel; {
	case k.Out != nil && k.Out.Name == v.plan.Device:
		return ""
	case k.Planned == nil:
		return fmt.Sprintf("%s is not there on %s, and so its routes are not", v.plan.Device, v.place.Name)
	case !k.Planned.Up:
		return fmt.Sprintf("%s on %s is down, and so its routes are not there", v.plan.Device, v.place.Name)
	default:
		return ""
	}
}

// relink is what to do about a lost interface: the agent makes its tunnels anew,
// and brings up no other.
func (v *visit) relink() string {
	switch p := v.plan; {
	case p.Tunnel != nil:
		return v.repair()
	case p.Route.IsSingleIP():
		return "delete the pod, so that its link is made anew"
	default:
		return fmt.Sprintf("on %s: ip link set %s up", v.place.Name, p.Device)
	}
}

// unroute is what to do about a route that the packet takes instead of the
// plan's: one of another's is not ours to remove.
func (v *visit) unroute() string {
	r := v.kernel.Route
	if ours(r) || r.Destination.Bits() < v.plan.Route.Bits() {
		return v.repair()
	}
	kind := r.Type
	if kind != "" {
		kind += " "
	}
	return fmt.Sprintf("see what made the other route, of protocol %s, and take it away: on %s: ip route del %s%s proto %s",
		r.Protocol, v.place.Name, kind, r.Destination, r.Protocol)
}

// special tells whether a route is in a table that only a rule leads to.
func special(r *Route) bool { return r.Table != 0 && r.Table != tableMain && r.Table != tableLocal }

// astray is about what is for a pod and goes where no pod is.
func (v *visit) astray() []Finding {
	owner, prefix := ownerOf(v.cluster, v.q.To)
	k := v.kernel
	if owner == nil || isPodLink(k.Out) || k.Out.Tunnel().Tunnels() || v.holder(v.hop()) != nil {
		return nil
	}
	return []Finding{{
		Effect: Breaks, What: fmt.Sprintf("what is for %s, the pods of %s, goes out of the cluster by %s", prefix, owner.Name, routeText(k.Route)),
		Next: v.repair(),
	}}
}

func ours(r *Route) bool { return r.Protocol == "175" }

func (v *visit) compareMTU(mtu int) []Finding {
	p, k := v.plan, v.kernel
	if p == nil || p.Device == "" || p.Device != k.Out.Name {
		return nil
	}
	want := p.MTU
	if want == 0 && p.Tunnel != nil {
		want = p.Tunnel.MTU
	}
	if want == 0 || want == mtu {
		return nil
	}
	if p.Tunnel != nil && p.Tunnel.MTU != k.Out.MTU && mtu == k.Out.MTU {
		return nil // what is wrong with the device says it
	}
	return []Finding{{
		Effect: Harms, What: fmt.Sprintf("the MTU to %s is not the plan's", p.Route),
		Plan: fmt.Sprintf("mtu %d", want), Kernel: fmt.Sprintf("mtu %d", mtu), Next: v.repair(),
	}}
}

// neighbor is about the entry of the next hop on an interface.
func (v *visit) neighbor(out *Device, entry *Neighbor, hop netip.Addr) []Finding {
	tunnel := out.Tunnel()
	if out.NoARP || tunnel == ByUDP {
		return nil
	}
	plan := ""
	if v.plan != nil && v.plan.Device == out.Name && v.plan.MAC != (model.MAC{}) {
		plan = fmt.Sprintf("%s lladdr %s", hop, v.plan.MAC)
	}
	state := "none"
	if entry != nil {
		state = entry.State
	}
	unresolved := slices.Contains([]string{"none", "failed", "incomplete"}, state)
	switch {
	case tunnel.Tunnels() && unresolved:
		return []Finding{{
			Effect: Breaks, What: fmt.Sprintf("%s on %s has no neighbour %s: who is at the other end is not known", out.Name, v.place.Name, hop),
			Plan: plan, Kernel: state, Next: v.repair(),
		}}
	case plan != "" && !unresolved && entry.MAC != v.plan.MAC:
		return []Finding{{
			Effect: Harms, What: fmt.Sprintf("the neighbour %s of %s is not the plan's", hop, v.place.Name),
			Plan: plan, Kernel: fmt.Sprintf("%s lladdr %s", hop, entry.MAC), Next: v.repair(),
		}}
	case state == "failed":
		// The kernel asks again when the next packet comes.
		next := fmt.Sprintf("see whether %s is up, and on the network of %s", hop, out.Name)
		if holder := v.holder(hop); holder != nil {
			next = fmt.Sprintf("see whether %s is up, and on the network of %s: kubectl describe node %s", holder.Name, out.Name, holder.Name)
		}
		return []Finding{{
			Effect: Unclear, What: fmt.Sprintf("nobody answered for %s on %s when %s last asked", hop, out.Name, v.place.Name), Next: next,
		}}
	}
	return nil
}

// remote is about where the tunnel leads.
func (v *visit) remote() []Finding {
	k, plan := v.kernel, ""
	if v.plan != nil && v.plan.Remote.IsValid() && v.plan.Device == k.Out.Name {
		plan = v.plan.Remote.String()
	}
	what, effect := "", Breaks
	switch {
	case !k.Remote.IsValid() && k.Out.Tunnel() == ByVXLAN:
		what = fmt.Sprintf("%s on %s has no forwarding entry (FDB) of %s: which node that is, is not known", k.Out.Name, v.place.Name, macOf(k.Neighbor))
	case !k.Remote.IsValid():
		what = fmt.Sprintf("%s on %s does not know to which node it leads", k.Out.Name, v.place.Name)
	case v.holder(k.Remote) == nil:
		what = fmt.Sprintf("the tunnel leads to %s, which is no node's address", k.Remote)
	case plan != "" && plan != k.Remote.String():
		what, effect = fmt.Sprintf("the tunnel of %s leads to another node than planned", v.place.Name), Harms
	default:
		return nil
	}
	finding := Finding{Effect: effect, What: what, Plan: plan, Kernel: "none", Next: v.repair()}
	if k.Remote.IsValid() {
		finding.Kernel = k.Remote.String()
	}
	if plan == "" {
		finding.Kernel = ""
	}
	return []Finding{finding}
}

// outer shows the packet around the packet, on the interface that carries it.
func (v *visit) outer(inner int) bool {
	out, outer := v.kernel.Out, v.kernel.Outer
	line := Line{Where: v.place.Name, Way: tunnelText(out.Tunnel(), out.VNI, outer.Source, netip.AddrPortFrom(v.kernel.Remote, v.port())), headers: overhead(out.Tunnel(), v.kernel.Remote)}
	switch {
	case outer.Refused != "":
		what := fmt.Sprintf("%s has no route to %s, the other end of the tunnel", v.place.Name, v.kernel.Remote)
		if outer.Refused == OtherReason {
			what = fmt.Sprintf("%s cannot send to %s, the other end of the tunnel: %s", v.place.Name, v.kernel.Remote, outer.Error)
		}
		line.Findings = []Finding{{Effect: Breaks, What: what, Next: fmt.Sprintf("on %s: ip route get %s", v.place.Name, v.kernel.Remote)}}
	case outer.Out != nil:
		line.Device, line.MTU = outer.Out.Name, outer.Out.MTU
		if outer.Route.MTU != 0 {
			line.MTU = min(line.MTU, outer.Route.MTU)
		}
		if outer.Route.Via.IsValid() {
			line.Way += " via " + outer.Route.Via.String()
		}
		if outer.Neighbor != nil {
			line.Way += neighborText(outer.Neighbor)
		}
		hop := outer.Route.Via
		if !hop.IsValid() {
			hop = v.kernel.Remote
		}
		line.Findings = append(v.state(outer.Out), v.neighbor(outer.Out, outer.Neighbor, hop)...)
		whole := inner + line.headers
		v.sent, v.sender = min(whole, line.MTU), v.place.Name
		if whole > line.MTU {
			line.Findings = append(line.Findings, Finding{
				Effect: Harms, What: fmt.Sprintf("packets of %d bytes have %d in the tunnel, and only %d fit: large ones are divided or lost", inner, whole, line.MTU),
				Next: fmt.Sprintf("raise the MTU of %s on %s to %d, or set spec.mtu of networks.fairlead.io default to %d", line.Device, v.place.Name, whole, line.MTU),
			})
		}
	}
	v.line(line)
	return line.effect() != Breaks
}

func overhead(by By, remote netip.Addr) int {
	ways := map[By]route.Way{ByVXLAN: route.ViaVXLAN, ByIPIP: route.ViaIPIP, ByUDP: route.ViaUDP}
	return route.Overhead(ways[by], model.FamilyOf(remote))
}
