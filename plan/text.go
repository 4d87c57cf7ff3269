package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/antispoof"
	"github.com/fairlead-net/fairlead/plan/dns"
	"github.com/fairlead-net/fairlead/plan/firewall"
	"github.com/fairlead-net/fairlead/plan/hostport"
	"github.com/fairlead-net/fairlead/plan/masquerade"
	"github.com/fairlead-net/fairlead/plan/policy"
	"github.com/fairlead-net/fairlead/plan/route"
	"github.com/fairlead-net/fairlead/plan/service"
)

// Text writes a plan as an administrator would type it: sorted lines in the
// words of sysctl, ip, bridge and nft. Equal plans have equal text.
func Text(node *Node) string {
	var sections []string
	if node.Route != nil {
		sections = append(sections, routeText(node.Route)...)
	}
	if node.Masquerade != nil {
		sections = append(sections, masqueradeText(node.Masquerade)...)
	}
	if node.HostPort != nil {
		sections = append(sections, hostportText(node.HostPort)...)
	}
	if a := node.AntiSpoof; a != nil {
		sections = append(sections, lines(a.Sources, func(source antispoof.Source, _ struct{}) string {
			return fmt.Sprintf("source %s", source)
		}))
	}
	if node.Service != nil {
		sections = append(sections, serviceText(node.Service)...)
	}
	if node.Policy != nil {
		sections = append(sections, policyText(node.Policy)...)
	}
	if f := node.Firewall; f != nil {
		sections = append(sections, lines(f.Accepts, func(accept firewall.Accept, _ struct{}) string {
			return fmt.Sprintf("accept %s", accept)
		}))
	}
	if d := node.DNS; d != nil {
		sections = append(sections, dnsText(d)...)
	}
	for _, problem := range node.Problems {
		sections = append(sections, fmt.Sprintf("problem %s\n", problem))
	}
	return strings.Join(sections, "")
}

func masqueradeText(p *masquerade.Plan) []string {
	text := []string{
		lines(p.Pods, func(prefix netip.Prefix, _ struct{}) string { return fmt.Sprintf("masquerade from %s", prefix) }),
		lines(p.Cluster, func(prefix netip.Prefix, _ struct{}) string { return fmt.Sprintf("masquerade not to %s", prefix) }),
		lines(p.Excluded, func(prefix netip.Prefix, _ struct{}) string { return fmt.Sprintf("masquerade not to %s", prefix) }),
	}
	for _, source := range p.Sources {
		if source.IsValid() {
			text = append(text, fmt.Sprintf("masquerade as %s\n", source))
		}
	}
	if !p.RandomPorts {
		text = append(text, "masquerade keeping ports\n")
	}
	first, last := p.Tunnels.Others()
	for _, port := range p.Tunnels {
		if port != 0 {
			text = append(text, fmt.Sprintf("masquerade to UDP port %d from ports %d-%d\n", port, first, last))
		}
	}
	return text
}

func hostportText(p *hostport.Plan) []string {
	return []string{
		lines(p.Ports, func(port hostport.Port, to netip.AddrPort) string { return fmt.Sprintf("hostport %s to %s", port, to) }),
		lines(p.Kept, func(kept hostport.Kept, _ struct{}) string { return fmt.Sprintf("hostport keeps %s", kept) }),
		lines(p.Hairpins, func(pod netip.Addr, _ struct{}) string {
			if own := p.Own[model.FamilyOf(pod)]; own.IsValid() {
				return fmt.Sprintf("hairpin %s as %s", pod, own)
			}
			return fmt.Sprintf("hairpin %s", pod)
		}),
	}
}

func serviceText(p *service.Plan) []string {
	return []string{
		lines(p.Frontends, func(vip service.VIP, f *service.Frontend) string {
			text := fmt.Sprintf("service %s to %s (%s): %s", vip, f.Port, f.Kind, f.Inside)
			if f.Outside != f.Inside {
				text += fmt.Sprintf(", from outside %s", f.Outside)
			}
			if f.Ranges != nil {
				text += fmt.Sprintf(", only for %s", f.Ranges)
			}
			if f.Sticky != 0 {
				text += fmt.Sprintf(", the same for %d s", f.Sticky)
			}
			return text + fmt.Sprintf(", masquerade from %s", f.Masquerade)
		}),
		lines(p.Backends, func(pool service.Pool, b *service.Backends) string {
			return fmt.Sprintf("backends %s: %s", pool, b.Targets)
		}),
		lines(p.ClusterIPs, func(addr netip.Addr, _ struct{}) string { return fmt.Sprintf("service refuse %s", addr) }),
		lines(p.CIDRs, func(prefix netip.Prefix, _ struct{}) string { return fmt.Sprintf("service drop %s", prefix) }),
		lines(p.HealthChecks, func(port uint16, check *service.HealthCheck) string {
			return fmt.Sprintf("service health at TCP %d of %s: endpoints here %d IPv4, %d IPv6",
				port, check.Service, check.Local[model.IPv4], check.Local[model.IPv6])
		}),
	}
}

func policyText(p *policy.Plan) []string {
	return []string{
		lines(p.Pods, func(addr netip.Addr, group policy.Group) string {
			return fmt.Sprintf("policy group of %s: %s", addr, group)
		}),
		lines(p.Ranges, func(prefix netip.Prefix, group policy.Group) string {
			return fmt.Sprintf("policy group of %s: %s", prefix, group)
		}),
		lines(p.Queries, func(q policy.Query, _ struct{}) string { return fmt.Sprintf("policy asks before translation: %s", q) }),
		lines(p.Cells, func(cell policy.Cell, row policy.Row) string {
			who := map[policy.Group]string{policy.Others: "others", policy.Itself: "itself"}[cell.Group]
			if who == "" {
				who = "group " + string(cell.Group)
			}
			ports, _ := p.Rows.Get(row)
			return fmt.Sprintf("policy %s of %s %s %s: %s", cell.Direction, cell.Address, [...]string{"from", "to"}[cell.Direction], who, ports)
		}),
	}
}

func dnsText(p *dns.Listen) []string {
	return []string{
		lines(p.Ports, func(port dns.Port, _ struct{}) string { return fmt.Sprintf("dns at %s", port) }),
		lines(p.Queries, func(port dns.Port, _ struct{}) string {
			return fmt.Sprintf("dns answers %s, if somebody listens", port)
		}),
		lines(p.Own, func(port dns.Port, _ struct{}) string { return fmt.Sprintf("dns answers the node at %s", port) }),
	}
}

func routeText(p *route.Plan) []string {
	return []string{
		lines(p.Sysctls, func(path, value string) string {
			return fmt.Sprintf("sysctl %s=%s", path, value)
		}),
		lines(p.VXLANs, func(_ string, v route.VXLAN) string {
			return fmt.Sprintf("link %s vxlan id %d dstport %d local %s dev %s mtu %d address %s nolearning",
				v.Name, v.VNI, v.Port, v.Local, v.Device, v.MTU, v.MAC)
		}),
		lines(p.IPIPs, func(_ string, d route.IPIP) string {
			return fmt.Sprintf("link %s ipip local %s dev %s mtu %d", d.Name, d.Local, d.Device, d.MTU)
		}),
		lines(p.UDPs, func(_ string, d route.UDP) string {
			text := fmt.Sprintf("link %s tun udp port %d", d.Name, d.Port)
			if d.OtherPort != 0 {
				text += fmt.Sprintf(" other port %d", d.OtherPort)
			}
			for _, local := range d.Locals {
				if local.IsValid() {
					text += " local " + local.String()
				}
			}
			return text + fmt.Sprintf(" mtu %d", d.MTU)
		}),
		lines(p.Addresses, func(a route.Address, _ struct{}) string {
			return fmt.Sprintf("address %s dev %s", a.Prefix, a.Device)
		}),
		lines(p.Neighbors, func(n route.Neighbor, mac model.MAC) string {
			return fmt.Sprintf("neighbor %s lladdr %s dev %s", n.Address, mac, n.Device)
		}),
		lines(p.FDB, func(s route.Station, remote netip.Addr) string {
			return fmt.Sprintf("fdb %s dst %s dev %s", s.MAC, remote, s.Device)
		}),
		lines(p.UDPPeers, func(prefix netip.Prefix, remote netip.Addr) string {
			return fmt.Sprintf("udp peer %s dst %s", prefix, remote)
		}),
		lines(p.Routes, func(prefix netip.Prefix, r route.Route) string {
			return "route " + RouteText(prefix, r)
		}),
	}
}

// RouteText writes a route as ip route does.
func RouteText(destination netip.Prefix, r route.Route) string {
	if r.Unreachable {
		return "unreachable " + destination.String()
	}
	text := destination.String()
	if r.Local {
		text = "local " + text
	}
	if r.Via.IsValid() {
		text += " via " + r.Via.String()
	}
	text += " dev " + r.Device
	if r.OnLink {
		text += " onlink"
	}
	if r.Source.IsValid() {
		text += " src " + r.Source.String()
	}
	if r.MTU != 0 {
		text += fmt.Sprintf(" mtu %d", r.MTU)
	}
	return text
}

func lines[K, V comparable](entries model.Map[K, V], line func(K, V) string) string {
	all := make([]string, 0, entries.Len())
	for key, value := range entries.All() {
		all = append(all, line(key, value)+"\n")
	}
	slices.Sort(all)
	return strings.Join(all, "")
}
